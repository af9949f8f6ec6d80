"""``python -m tests.chaos.fuzz --count N --seed S``: malformed messages against a live worker, beside good work.

Tasks, outcomes and other records, headers, keys, triggers, looks, live copies and answers, mutated from real ones or
made up, are published raw, past every client library. Then: the worker lives, every task that the streams took has
an outcome or was rejected and counted, and the good work beside it got its right results in good time, although
outcomes of children that were never spawned were forged into each of its joins.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Coroutine
from pathlib import Path
from statistics import median, quantiles
from time import monotonic
from typing import Any, Final

import msgspec
import nats
import uvloop
from nats.aio.client import Client as Nats

import jetflow
from jetflow.broker.store import Store, Stored
from jetflow.errors import JetflowError
from jetflow.server import NatsServer
from jetflow.wire.records import MalformedTask, parse_task
from tests.chaos.checker import messages, unsettled
from tests.chaos.fuzz_load import Number, joining, pair, right_output
from tests.chaos.processes import ROOT
from tests.chaos.progress import say
from tests.chaos.servers import api

NAMESPACE: Final = "fuzz"
PREFIX: Final = f"jf.{NAMESPACE}"
AT_ONCE: Final = 200
"""Messages between two looks at how far the worker is behind."""

PACE: Final = 1500.0
"""Messages a second."""

BEHIND: Final = 200
QUIET_WITHIN: Final = 90.0
SLOWER: Final = 1.0
"""Seconds by which the median of good work may be slower than without bad messages."""

HEADERS: Final = (
    *("Jf-Parent-Step", "Jf-Version", "Jf-Depth", "Jf-Digest", "Jf-Key", "Jf-Metadata", "Jf-Run"),
    *("Jf-Deadline", "Jf-Value", "Jf-Eager", "traceparent", "Status", "X"),
)
ODD: Final = (
    *(b"", b"-", b"0", b"-1", b"1e9", b"9" * 5000, b"null", b"{}", b"[]", b'{"n":', b'{"n":"x"}', b"\xff\xfe", b"\x00"),
    *("²".encode(), "٣".encode(), "é".encode(), b"*", b">", b"NaN", b"[" * 2000, b'"' + b"a" * 3000 + b'"', b"true"),
    *(
        b"2-" + b"0" * 32,
        b"0" * 32,
        b"f" * 32,
        b"_start",
        b"_end",
        b"run",
        b"..",
        b"a.b",
        b'{"n":1}',
        b'{"a":{"b":[1,2]}}',
    ),
)


class Message(msgspec.Struct):
    """One message as it goes over the wire. ``headers`` is the whole block, or empty."""

    subject: bytes
    headers: bytes
    body: bytes


class RawPublisher:
    """Writes protocol lines to a socket, checked by nobody."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self.errors: Counter[str] = Counter()

    async def publish(self, message: Message) -> None:
        if self._writer is None or self._writer.is_closing():
            await self._dial()
        writer = self._writer
        assert writer is not None
        size = len(message.headers) + len(message.body)
        if message.headers:
            writer.write(b"HPUB %b %d %d\r\n" % (message.subject, len(message.headers), size))
        else:
            writer.write(b"PUB %b %d\r\n" % (message.subject, size))
        writer.write(message.headers + message.body + b"\r\n")
        await writer.drain()

    async def _dial(self) -> None:
        reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writer.write(b'CONNECT {"verbose":false,"headers":true,"no_responders":false}\r\nPING\r\n')
        self._reading = asyncio.create_task(self._read(reader, self._writer))

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                if line.startswith(b"PING"):
                    writer.write(b"PONG\r\n")
                elif line.startswith(b"-ERR"):
                    self.errors[line.decode(errors="replace").strip()] += 1
        except (OSError, ValueError):
            pass
        finally:
            writer.close()

    async def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)


class Fuzzer:
    """Makes bad messages, some out of good ones."""

    def __init__(self, rng: random.Random, real: list[Message]) -> None:
        self._rng = rng
        self._real = real
        self.joins: list[tuple[str, str, str]] = []
        """Joins of good work that are open: root, run, step. Forged children are aimed at them."""

        self.inboxes: list[str] = []
        self.made: Counter[str] = Counter()

    def next(self) -> Message:
        kinds = (
            self.task,
            self.made_up_task,
            self.record,
            self.trigger,
            self.look,
            self.live,
            self.answer,
            self.forged,
        )
        kind = self._rng.choices(kinds, (30, 25, 15, 10, 5, 5, 2, 8))[0]
        self.made[kind.__name__] += 1
        return kind()

    # --- kinds

    def task(self) -> Message:
        """A real task with something wrong, under a run id of its own, or what is left of one."""
        real = self._pick(f"{PREFIX}.task.")
        tokens = real.subject.split(b".")
        tokens[7] = self._id()
        if self._rng.random() < 0.5:
            tokens[5] = tokens[7] if tokens[6] == b"-" else tokens[5]
        return self._mutated(Message(b".".join(tokens), real.headers, real.body), keep=5)

    def made_up_task(self) -> Message:
        flow = self._rng.choice(
            (b"number.run", b"number.run", b"pause.run", b"joining.run", b"pair.throw", b"pair.gather")
        )
        root = self._id()
        parent, step = self._rng.choice(((b"-", b"-"), (self._id(), b"run"), (b"-", b"run"), (self._id(), b"-")))
        subject = b".".join((PREFIX.encode(), b"task", flow, root, parent, self._rng.choice((root, self._id())), b"0"))
        chosen = {name: self._odd() for name in self._rng.sample(HEADERS, self._rng.randrange(4))}
        headers = {"Jf-Parent-Step": step} | chosen if self._rng.random() < 0.7 else chosen
        return Message(subject, self._block(headers), self._odd() if self._rng.random() < 0.7 else b'{"n":5}')

    def record(self) -> Message:
        """An outcome, a mark, a join record... of runs that are nobody's."""
        real = self._pick(
            f"{PREFIX}.{self._rng.choice(('run', 'step', 'join', 'mark', 'try', 'once', 'cancel', 'set'))}."
        )
        tokens = real.subject.split(b".")
        for at in range(3, len(tokens)):
            if len(tokens[at]) == 32:
                tokens[at] = self._id()
        return self._mutated(Message(b".".join(tokens), real.headers, real.body), keep=3)

    def trigger(self) -> Message:
        flow = self._rng.choice((b"number", b"number", b"joining", b"nobody", b"a.b", self._token()))
        headers = {name: self._odd() for name in self._rng.sample(HEADERS, self._rng.randrange(4))}
        return Message(b"%b.in.trigger.%b" % (PREFIX.encode(), flow), self._block(headers), self._odd())

    def look(self) -> Message:
        what = self._rng.choice(
            (
                b"look.%b.%b.run" % (self._id(), self._id()),
                b"look.%b" % self._token(),
                b"look.%b.%b.%b" % (self._token(), self._token(), self._token()),
                self._token(),
            )
        )
        return Message(b"%b.in.%b" % (PREFIX.encode(), what), b"", self._odd())

    def live(self) -> Message:
        """A live copy that no stream has sent."""
        root, run, step = self._join()
        child = self._rng.choice((self._id(), self._token(), b"zz"))
        subject = b".".join((PREFIX.encode(), b"live.run", root, run, step, child))
        if self._rng.random() < 0.2:
            subject = b"%b.live.%b" % (PREFIX.encode(), self._token())
        return Message(subject, b"", self._odd())

    def answer(self) -> Message:
        """Something on a subject where the worker expects answers of the server."""
        if not self.inboxes:
            return self.live()
        before = self._rng.choice(self.inboxes).encode()
        return Message(b"%b.%b" % (before, self._rng.choice((b"x", b"99999999", self._token()))), b"", self._odd())

    def forged(self) -> Message:
        """A good outcome, a mark or a count of a child that nobody spawned, in a join that is open."""
        root, run, step = self._join()
        child, prefix = self._id(), PREFIX.encode()
        way = self._rng.randrange(6)
        if way == 4:  # its name is no run id
            return Message(b".".join((prefix, b"run", root, run, step, self._token())), b"", self._odd())
        if way == 5:
            token = self._token() + b"-"  # no run id: a whole task is a spawned child, whoever has published it
            subject = b".".join((prefix, b"task", b"number", b"run", root, run, token, b"0"))
            return Message(subject, self._block({"Jf-Parent-Step": step}), b'{"n":1}')
        if way == 0:
            return Message(
                b".".join((prefix, b"run", root, run, step, child)),
                b"",
                b'{"status":"succeeded","output":777777,"workflow":"pause","step":"run"}',
            )
        if way == 1:
            self.queued = Message(b".".join((prefix, b"mark", root, run, step, b"failed", child)), b"", b"")
            return Message(
                b".".join((prefix, b"run", root, run, step, child)),
                b"",
                b'{"status":"failed","error":{"type":"Forged","message":"forged"},"workflow":"pause"}',
            )
        if way == 2:
            mark, self.queued = getattr(self, "queued", None), None
            if mark is not None:
                return mark
        counter = b"$KV.jf_%b_counters.join.%b.%b.%b" % (NAMESPACE.encode(), root, run, step)
        return Message(counter, self._block({"Nats-Incr": b"+1"}), b"")

    # --- parts

    def _pick(self, prefix: str) -> Message:
        chosen = [message for message in self._real if message.subject.startswith(prefix.encode())]
        return self._rng.choice(chosen or self._real)

    def _join(self) -> tuple[bytes, bytes, bytes]:
        if not self.joins:
            return self._id(), self._id(), b"run"
        root, run, step = self._rng.choice(self.joins)
        return root.encode(), run.encode(), step.encode()

    def _id(self) -> bytes:
        return b"%032x" % self._rng.getrandbits(128)

    def _odd(self) -> bytes:
        if self._rng.random() < 0.3:
            return self._rng.randbytes(self._rng.randrange(40))
        return self._rng.choice(ODD)

    def _token(self) -> bytes:
        odd = self._odd()[:60]
        token = bytes(byte for byte in odd if byte > 32 and byte not in b".*>")
        return token or b"t"

    def _block(self, headers: dict[str, bytes]) -> bytes:
        lines = b"".join(
            b"%b: %b\r\n" % (name.encode(), value.replace(b"\r", b"").replace(b"\n", b""))
            for name, value in headers.items()
        )
        block = b"NATS/1.0\r\n" + lines + b"\r\n"
        return self._bytes_changed(block) if self._rng.random() < 0.1 else block

    def _mutated(self, message: Message, *, keep: int) -> Message:
        """Change the subject behind its first tokens, the headers, or the body."""
        way = self._rng.randrange(4)
        if way == 0:
            tokens = message.subject.split(b".")
            at = self._rng.randrange(keep, len(tokens) + 1)
            if at == len(tokens):
                tokens = self._rng.choice((tokens[: self._rng.randrange(keep + 1, at + 1)], [*tokens, self._token()]))
            else:
                tokens[at] = self._token()
            message.subject = b".".join(tokens)
        if way == 1 and message.headers:
            message.headers = self._bytes_changed(message.headers)
        if way == 2:
            message.headers = self._block({name: self._odd() for name in self._rng.sample(HEADERS, 3)})
        if way == 3 or not message.headers:
            message.body = self._bytes_changed(message.body) if self._rng.random() < 0.6 else self._odd()
        return message

    def _bytes_changed(self, data: bytes) -> bytes:
        changed = bytearray(data)
        for _ in range(self._rng.randrange(1, 4)):
            way, at = self._rng.randrange(3), self._rng.randrange(len(changed) + 1)
            if way == 0 or not changed or at == len(changed):
                changed[at:at] = self._rng.randbytes(self._rng.randrange(1, 4))
            elif way == 1:
                changed[at] = self._rng.randrange(256)
            else:
                del changed[at : at + self._rng.randrange(1, 8)]
        return bytes(changed)


class GoodWork:
    """Triggers roots all the time, checks their results, and measures how long they take."""

    def __init__(self, client: jetflow.Client, fuzzer: Fuzzer | None) -> None:
        self._client = client
        self._fuzzer = fuzzer
        self.seconds: list[float] = []
        self.wrong: list[str] = []
        self.stopping = False

    async def run(self, at_once: int = 4) -> None:
        await asyncio.gather(*(self._lane(number) for number in range(at_once)))

    async def _lane(self, number: int) -> None:
        n = number
        while not self.stopping:
            n += 10
            await self.one(joining if n % 4 < 2 else pair, n)

    async def one(self, flow: jetflow.Workflow[Any, Any], n: int) -> None:
        began = monotonic()
        join: tuple[str, str, str] | None = None
        try:
            run = await self._client.trigger(flow, Number(n))
            if self._fuzzer is not None:
                join = run.id, run.id, "run" if flow is joining else "throw"
                self._fuzzer.joins.append(join)
            output = await run.result(timeout=60)
            if output != right_output(flow.name, n):
                self.wrong.append(f"{flow.name}({n}), run {run.id}, is {output}, not {right_output(flow.name, n)}")
        except JetflowError as error:
            self.wrong.append(f"{flow.name}({n}): {type(error).__name__}: {str(error)[:300]}")
        finally:
            if self._fuzzer is not None and join is not None:
                self._fuzzer.joins.remove(join)
        self.seconds.append(monotonic() - began)
        if self.seconds[-1] > 2.0:
            say(f"{flow.name}({n}), {join and join[0]}, took {self.seconds[-1]:.1f} s")


class Fuzzing:
    """One live worker process, and what is thrown at it."""

    def __init__(self, server: NatsServer, directory: Path, rng: random.Random) -> None:
        self._server = server
        self._directory = directory
        self._rng = rng
        self._worker: subprocess.Popen[bytes] | None = None

    async def run(self, count: int) -> dict[str, Any]:
        started = monotonic()
        async with jetflow.connect(self._server.url, namespace=NAMESPACE) as client:
            self._start_worker()
            raw = await nats.connect(self._server.url)
            publisher = RawPublisher(int(self._server.url.rpartition(":")[2]))
            try:
                alone = GoodWork(client, None)
                inboxes = await self._inboxes_during(self._for_a_while(alone, 3.0))
                fuzzer = Fuzzer(self._rng, await self._real_messages(raw))
                fuzzer.inboxes = sorted(inboxes)
                beside = GoodWork(client, fuzzer)
                working = asyncio.create_task(beside.run())
                began = monotonic()
                for number in range(count):
                    await publisher.publish(fuzzer.next())
                    if number % AT_ONCE == 0:
                        await asyncio.sleep(max(0.0, began + number / PACE - monotonic()))
                        await self._keep_up(raw)
                    if number % 5000 == 0:
                        say(f"{monotonic() - started:6.1f} s  {number} messages, {len(beside.seconds)} good runs")
                beside.stopping = True
                await working
                left = await self._quiet(raw)
                report = await self._check(client)
                alive = self._worker is not None and self._worker.poll() is None
            finally:
                await publisher.close()
                await raw.close()
                self.close()
        wrong = alone.wrong + beside.wrong
        for text in wrong[:10] + left[:10]:
            say(text)
        slower = median(beside.seconds) - median(alone.seconds)
        return {
            "seconds": round(monotonic() - started, 1),
            "messages": count,
            "kinds": dict(sorted(fuzzer.made.items())),
            "refused_by_server": sum(publisher.errors.values()),
            **report,
            "alive": alive,
            "good_runs": len(beside.seconds),
            "good_wrong": len(wrong),
            "good_median_alone": round(median(alone.seconds), 3),
            "good_median": round(median(beside.seconds), 3),
            "good_p95": round(quantiles(beside.seconds, n=20)[-1], 3),
            "good_slowest": round(max(beside.seconds), 3),
            "left": len(left),
            "ok": alive and not wrong and not left and not report["without_outcome"] and slower < SLOWER,
        }

    def _start_worker(self) -> None:
        options = {"slots": 200, "ack_wait": 2.0, "sweep_every": 3600.0, "unknown_step_grace": 0.5, "park_after": 60.0}
        command = [
            *(sys.executable, "-m", "tests.chaos.worker", self._server.url),
            *("--namespace", NAMESPACE),
            *("--options", json.dumps(options)),
            *("--counts", str(self._directory / "counts.json")),
            *("--load", "tests.chaos.fuzz_load"),
            *("--parent", str(os.getpid())),
        ]
        with (self._directory / "worker.log").open("ab") as log:
            self._worker = subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def close(self) -> None:
        if self._worker is not None:
            self._worker.kill()
            self._worker.wait()

    @staticmethod
    async def _for_a_while(work: GoodWork, seconds: float) -> None:
        working = asyncio.create_task(work.run())
        await asyncio.sleep(seconds)
        work.stopping = True
        await working

    async def _inboxes_during(self, work: Coroutine[Any, Any, None]) -> set[str]:
        """Return the subjects, without their last token, on which the worker and the client get answers meanwhile."""
        found: set[str] = set()

        async def note(message: Any) -> None:
            found.add(message.subject.rpartition(".")[0])

        async with await nats.connect(self._server.url) as listener:
            await listener.subscribe("_INBOX.>", cb=note)
            await work
        return found

    @staticmethod
    async def _real_messages(raw: Nats) -> list[Message]:
        found: list[Message] = []
        for stream in ("tasks", "records"):
            async for subject, _, _, headers, body in messages(raw, f"JF_{NAMESPACE}_{stream}"):
                ours = {name: value for name, value in headers.items() if not name.startswith("Nats-")}  # none twice
                lines = "".join(f"{name}: {value}\r\n" for name, value in ours.items())
                block = f"NATS/1.0\r\n{lines}\r\n".encode() if headers else b""
                found.append(Message(subject.encode(), block, body))
        return found

    @staticmethod
    async def _keep_up(raw: Nats) -> None:
        """Wait until the worker is not far behind: what it is slow at is not what is asked here."""
        for _ in range(600):
            answer = await api(raw, f"CONSUMER.LIST.JF_{NAMESPACE}_tasks", timeout=60.0)
            if sum(one["num_pending"] for one in answer["consumers"]) < BEHIND:
                return
            await asyncio.sleep(0.05)
        raise RuntimeError("the worker does not keep up: it may hang")

    @staticmethod
    async def _quiet(raw: Nats) -> list[str]:
        until = monotonic() + QUIET_WITHIN
        while (left := await unsettled(raw, NAMESPACE)) and monotonic() < until:  # noqa: ASYNC110
            await asyncio.sleep(0.5)
        return left

    async def _check(self, client: jetflow.Client) -> dict[str, Any]:
        """Every task that a consumer delivers must have ended, or have been rejected.

        Read by jetflow's own reader: nats-py's ends at a subject that is not UTF-8.
        """
        store = client._session.store
        await asyncio.sleep(1.0)  # the worker writes its counts twice a second
        counts = json.loads((self._directory / "counts.json").read_bytes())
        ended: set[str] = set()
        async for page in store.pages(f"JF_{NAMESPACE}_records", f"{PREFIX}.run.>"):
            ended.update(stored.subject.rpartition(".")[2] for stored in page)
        tasks = malformed = 0
        without: list[str] = []
        known = {"number.run", "pause.run", "joining.run", "pair.throw", "pair.gather"}
        async for page in store.pages(f"JF_{NAMESPACE}_tasks", f"{PREFIX}.task.>"):
            for stored in page:
                tokens = stored.subject.split(".")
                if ".".join(tokens[3:5]) in known:
                    tasks += 1
                    if len(tokens) == 9 and tokens[7] in ended:
                        continue
                    if await _is_malformed(store, stored):
                        malformed += 1
                    else:
                        without.append(f"{stored.subject} {stored.headers} {stored.body[:200]!r}")
        for text in without[:5]:
            say(f"without outcome: {text}")
        if keep := os.environ.get("FUZZ_LOG"):
            await asyncio.to_thread(Path(f"{keep}.without").write_text, "\n".join(without))
        return {
            "tasks_stored": tasks,
            "bodies_executed": counts["executed"],
            "failures_recorded": counts["failed"],
            "rejected": counts["rejected"],
            "tasks_malformed": malformed,
            "without_outcome": len(without) + max(0, malformed - counts["rejected"]),
        }


async def _is_malformed(store: Store, stored: Stored) -> bool:
    """Tell whether a stored message is no task, as it was delivered.

    A direct get puts headers of its own in the place of the last two bytes of the message's, whatever they are: only
    the leader gives a block as it is that does not end as it should.
    """
    try:
        parse_task(stored.subject, stored.headers, stored.body)
        whole = await store.leader_last(f"JF_{NAMESPACE}_tasks", stored.subject)
        if whole is not None:
            parse_task(whole.subject, whole.headers, whole.body)
    except MalformedTask:
        return True
    return False


async def fuzz(count: int, seed: int) -> dict[str, Any]:
    """Throw ``count`` messages at a worker with a server of its own, and return what became of it."""
    with tempfile.TemporaryDirectory(prefix="jetflow-fuzz-") as directory:
        async with NatsServer() as server:
            fuzzing = Fuzzing(server, Path(directory), random.Random(seed))
            try:
                return {"seed": seed} | await fuzzing.run(count)
            finally:
                fuzzing.close()
                log = (Path(directory) / "worker.log").read_text(errors="replace")
                if keep := os.environ.get("FUZZ_LOG"):
                    await asyncio.to_thread(Path(keep).write_text, log)


async def main(given: argparse.Namespace) -> int:
    report = await fuzz(given.count, given.seed)
    sys.stdout.write(f"{json.dumps(report)}\n")
    return 0 if report["ok"] else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.fuzz", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--count", type=int, default=10_000, help="messages")
    parser.add_argument("--seed", type=int, default=1)
    sys.exit(uvloop.run(main(parser.parse_args())))
