"""A kit of level *child* that was written from ``docs/wire.md`` with nats-py, and shares no code with jetflow.

It is what the conformance suite is tested with as a second implementation: what it passes is no habit of jetflow's. It
does what a child worker may: it asks for looks, and hands failed attempts back with a delay instead of parking them.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import re
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

NAMESPACE = os.environ["JETFLOW_NAMESPACE"]
TOPOLOGY = json.loads(
    (Path(__file__).parents[2] / "docs" / "topology.json").read_text().replace("NAMESPACE", NAMESPACE)
)
TASKS, RECORDS, VALUES = (f"JF_{NAMESPACE}_{stream}" for stream in ("tasks", "records", "values"))
TASK = re.compile(rf"jf\.{NAMESPACE}\.task\.([^.]+)\.([^.]+)\.(\w{{32}})\.(-|\w{{32}})\.([0-9a-f]{{32}})\.(0|[1-9]\d*)")
SEAL = 2**40
CHUNK = 256 * 1024
GRACE = 3.0


class Final(Exception):
    """An error that another attempt would only repeat."""


class Lost(Exception):
    """A step's own error, tried again."""


# --- the workflows


async def square(value: Any, attempt: int) -> Any:
    if type(value) is not int:
        raise Final("InvalidInput", f"{value!r} is no whole number")
    return value * value


async def flaky(value: Any, attempt: int) -> Any:
    if attempt < 3:
        raise Lost(f"attempt {attempt} fails")
    return attempt


async def fail(value: Any, attempt: int) -> Any:
    if value % 10 == 3:
        raise Final("ValueError", f"{value} ends in 3")
    return value


async def slow(value: Any, attempt: int) -> Any:
    await asyncio.sleep(value)
    return attempt


async def big(value: Any, attempt: int) -> Any:
    return value["text"] * value["n"]


WORKFLOWS: dict[str, Callable[[Any, int], Awaitable[Any]]] = {
    "square": square,
    "flaky": flaky,
    "fail": fail,
    "slow": slow,
    "big": big,
}
ATTEMPTS = 3


class Worker:
    """Pulls tasks, and runs them as the page says."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.slots = asyncio.Semaphore(int(os.environ.get("SLOTS", "100")))
        self.held: set[str] = set()
        self.running: set[asyncio.Task[None]] = set()
        self.stopping = asyncio.Event()

    # --- the broker

    async def api(self, operation: str, request: Any) -> dict[str, Any]:
        reply = await self.client.request(f"$JS.API.{operation}", json.dumps(request).encode(), timeout=10)
        return json.loads(reply.data)

    async def leader_last(self, stream: str, subject: str) -> bytes | None:
        answer = await self.api(f"STREAM.MSG.GET.{stream}", {"last_by_subj": subject})
        if "error" in answer:
            return None
        return base64.b64decode(answer["message"].get("data", ""))

    async def publish(self, subject: str, body: bytes = b"", headers: dict[str, str] | None = None) -> dict[str, Any]:
        """Publish until the server has said what became of it."""
        while True:
            try:
                reply = await self.client.request(subject, body, timeout=3, headers=headers)
            except NatsError:
                continue
            answer = json.loads(reply.data) if reply.data else {}
            error = answer.get("error", {})
            if not error or error.get("description") == "maximum messages per subject exceeded":
                return answer
            await asyncio.sleep(0.3)  # maximum bytes exceeded, and other trouble: not stored

    async def store(self, stream: str, subject: str, record: Any) -> None:
        """Store a record; one that is taken is read from the leader, and published again if it is not there."""
        while "error" in await self.publish(subject, record if isinstance(record, bytes) else encode(record)):
            if await self.leader_last(stream, subject) is not None:
                return

    # --- starting

    async def start(self) -> None:
        for stream in TOPOLOGY["streams"]:
            answer = await self.api(f"STREAM.CREATE.{stream['name']}", stream)
            if "error" in answer:
                found = (await self.api(f"STREAM.INFO.{stream['name']}", {}))["config"]
                if (found.get("metadata") or {}).get("jetflow_edition") != "2":
                    sys.exit(f"{stream['name']} is of another edition")
        step = TOPOLOGY["consumers"][0]["config"]
        for workflow in WORKFLOWS:
            graph = {"workflow": workflow, "nodes": [{"name": "run", "after": []}]}
            bucket = f"$KV.jf_{NAMESPACE}_workflows.{workflow}"
            await self.publish(f"{bucket}.v1", encode(graph))
            await self.publish(bucket, encode({"graph": graph, "version": "v1"}))
            config = json.loads(json.dumps(step).replace("WORKFLOW", workflow).replace("STEP", "run"))
            name, subject = config["name"], config["filter_subject"]
            await self.api(f"CONSUMER.CREATE.{TASKS}.{name}.{subject}", {"stream_name": TASKS, "config": config})
        consumers = (await self.api(f"CONSUMER.NAMES.{TASKS}", {}))["consumers"]
        for consumer in consumers:
            if consumer.partition("=")[0] in WORKFLOWS:
                self.spawn(self.pull(consumer))
        self.spawn(self.beat())

    def spawn(self, work: Any) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self.running.add(task)
        task.add_done_callback(self.running.discard)
        return task

    async def beat(self) -> None:
        while True:
            await asyncio.sleep(1.5)
            for reply in list(self.held):
                await self.client.publish(reply, b"+WPI")

    async def pull(self, consumer: str) -> None:
        inbox = self.client.new_inbox()
        subscription = await self.client.subscribe(inbox)
        request = json.dumps({"batch": 1, "expires": 5_000_000_000}).encode()
        while not self.stopping.is_set():
            await self.client.publish(f"$JS.API.CONSUMER.MSG.NEXT.{TASKS}.{consumer}", request, reply=inbox)
            try:
                message = await subscription.next_msg(timeout=6)
            except NatsError:
                continue
            if not message.reply.startswith("$JS.ACK."):
                continue
            self.held.add(message.reply)
            await self.slots.acquire()
            self.spawn(self.take(message))

    async def take(self, message: Msg) -> None:
        try:
            await self.handle(message)
        finally:
            self.held.discard(message.reply)
            self.slots.release()

    # --- one delivery

    async def handle(self, message: Msg) -> None:
        headers = message.headers or {}
        found = TASK.fullmatch(message.subject)
        parent_step = headers.get("Jf-Parent-Step", "-")
        if found is None or (found[4] == "-") != (parent_step == "-"):
            await self.client.publish(message.reply, b"+TERM")
            return
        workflow, step, root, parent, run, turn = found.groups()
        task = Task(self, message, workflow, step, root, parent, parent_step, run, turn)
        if self.stopping.is_set():
            await task.hand_back(None, 0)
            return
        version, bucket = headers.get("Jf-Version", ""), f"jf_{NAMESPACE}_workflows"
        if version and await self.leader_last(f"KV_{bucket}", f"$KV.{bucket}.{workflow}.{version}") is None:
            await task.unknown("UnknownVersion")
        elif step != "run":
            await task.unknown("UnknownStep")
        elif task.delivery > 1 and await self.leader_last(RECORDS, task.outcome_subject) is not None:
            await task.count(well=True)
            await self.client.publish(message.reply, b"+ACK")
        else:
            await task.run_body()

    async def stop(self) -> None:
        self.stopping.set()
        until = time.monotonic() + 5
        while self.held and time.monotonic() < until:  # noqa: ASYNC110  a kit is short
            await asyncio.sleep(0.05)
        await self.client.flush()


class Task:
    """One delivery of a task."""

    def __init__(
        self,
        worker: Worker,
        message: Msg,
        workflow: str,
        step: str,
        root: str,
        parent: str,
        parent_step: str,
        run: str,
        turn: str,
    ) -> None:
        self.worker, self.message, self.workflow, self.step = worker, message, workflow, step
        self.root, self.parent, self.run, self.turn = root, parent, run, turn
        self.headers = message.headers or {}
        self.where = f"{root}.{parent}.{parent_step}"
        self.outcome_subject = f"jf.{NAMESPACE}.run.{self.where}.{run}"
        self.attempts = f"jf.{NAMESPACE}.try.{root}.{run}.{step}.{turn}"
        self.delivery = int(message.reply.split(".")[4])
        self.attempt = 1
        self.started = 0.0

    async def tried(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for delivery in range(1, self.delivery):
            record = await self.record(f"{delivery}")
            if record is not None:
                found.append(record)
        return found

    async def record(self, delivery: str) -> dict[str, Any] | None:
        body = await self.worker.leader_last(RECORDS, f"{self.attempts}.{delivery}")
        if body is None:
            return None
        try:
            record = json.loads(body)
        except ValueError:
            return {}
        return record if isinstance(record, dict) else {}

    async def run_body(self) -> None:
        made = 0
        for delivery in range(1, self.delivery):
            ended = await self.record(f"{delivery}")
            made += (
                not ended.get("returned") if ended is not None else await self.record(f"begun-{delivery}") is not None
            )
        self.attempt = int(self.headers.get("Jf-Attempt", "0")) + made + 1
        if float(self.headers.get("Jf-Deadline", "inf")) < time.time():
            await self.end("timed_out", error=failure("RunTimeout", "the deadline has passed"))
            return
        if self.attempt > ATTEMPTS:
            await self.end("failed", error=failure("Poisoned", "it was lost too often"))
            return
        self.started = time.time()
        if self.delivery > 1:
            begun = {"attempt": self.attempt, "started": self.started}
            await self.worker.store(RECORDS, f"{self.attempts}.begun-{self.delivery}", begun)
        try:
            output = await WORKFLOWS[self.workflow](json.loads(await self.input() or b"null"), self.attempt)
        except Final as error:
            await self.end("failed", error=failure(*error.args))
        except Lost as error:
            if self.attempt < ATTEMPTS:
                await self.hand_back(failure("Lost", str(error)), 0.4, returned=False)
            else:
                await self.end("failed", error=failure("Lost", str(error)))
        else:
            await self.end("succeeded", output=output)

    async def input(self) -> bytes:
        reference = self.headers.get("Jf-Value")
        if reference is None:
            return self.message.data
        name, _, count = reference.partition(".")
        chunks = [
            await self.worker.leader_last(VALUES, f"jf.{NAMESPACE}.value.{self.root}.{name}.{number}")
            for number in range(int(count))
        ]
        data = b"".join(chunk for chunk in chunks if chunk is not None)
        if hashed(data) != name.partition("-")[0]:
            raise Final("LostValue", "the input is gone, or was changed")
        return data

    async def end(self, status: str, *, output: Any = None, error: Any = None) -> None:
        """Store how the run ended, tell it, count it, look, and acknowledge the task."""
        record: dict[str, Any] = {"status": status, "workflow": self.workflow, "step": "run", "attempt": self.attempt}
        record |= {"started": self.started, "ended": time.time(), "worker": "foreign"}
        text = encode(output)
        if len(text) > CHUNK:
            record["value"] = await self.put(text)
        elif error is None:
            record["output"] = output
        if error is not None:
            record["error"] = error
            mark = f"jf.{NAMESPACE}.mark.{self.where}.{status}.{self.workflow}.{self.run}"
            await self.worker.store(RECORDS, mark, {"type": error["type"], "message": error["message"][:200]})
        await self.worker.store(RECORDS, self.outcome_subject, record)
        live = f"jf.{NAMESPACE}.live.run.{self.where}.{self.run}"
        await self.worker.client.publish(live, encode(record))
        await self.count(well=error is None)
        await self.worker.client.publish(self.message.reply, b"+ACK")

    async def count(self, *, well: bool) -> None:
        """Count the run, and ask for a look if that is due."""
        counter = f"$KV.jf_{NAMESPACE}_counters.join.{self.where}"
        value = int((await self.worker.publish(counter, headers={"Nats-Incr": "+1"}))["val"])
        eager = "Jf-Eager" in self.headers
        if value >= SEAL or (not well and (eager or value > SEAL // 2)):
            await self.worker.publish(f"jf.{NAMESPACE}.in.look.{self.where}")

    async def put(self, text: bytes) -> str:
        name = f"{hashed(text)}-{CHUNK}"
        chunks = [text[at : at + CHUNK] for at in range(0, len(text), CHUNK)]
        for number, chunk in enumerate(chunks):
            await self.worker.store(VALUES, f"jf.{NAMESPACE}.value.{self.root}.{name}.{number}", chunk)
        return f"{name}.{len(chunks)}"

    async def hand_back(self, error: Any, delay: float, *, returned: bool = True) -> None:
        now = time.time()
        record = {"attempt": self.attempt, "started": now, "ended": now, "error": error, "returned": returned}
        await self.worker.store(RECORDS, f"{self.attempts}.{self.delivery}", record)
        body = f'-NAK {{"delay":{int(delay * 1e9)}}}' if delay else "-NAK"
        await self.worker.client.publish(self.message.reply, body.encode())

    async def unknown(self, kind: str) -> None:
        """Leave a task to others for a while, then end its run by name."""
        since = [record.get("started", 0) for record in await self.tried() if record.get("error")]
        error = failure(kind, f"{self.step} of {self.workflow}")
        if time.time() - min(since, default=time.time()) < GRACE:
            await self.hand_back(error, 1)
        else:
            await self.end("failed", error=error)


def failure(kind: str, message: str) -> dict[str, str]:
    return {"type": kind, "message": message, "step": "run"}


def encode(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def hashed(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]


async def main() -> None:
    client = await nats.connect(os.environ["NATS_URL"], max_reconnect_attempts=-1)
    worker = Worker(client)
    await worker.start()
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await told.wait()
    await worker.stop()


if __name__ == "__main__":
    asyncio.run(main())
