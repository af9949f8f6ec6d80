"""The worker process of the floor of waking: ``python -m benchmarks.bare.waker URL``. See `benchmarks.bare.waking`.

Everything is done many at a time: tasks are read by hundreds in one request, and next turns stored by fast ingest
(ADR-50), with one acknowledgement for all of a batch. Batches overlap.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from typing import Any, Final

import msgspec
import nats
from nats.aio.client import Client
from nats.aio.msg import Msg

from benchmarks.bare.waking import DUE, EVENTS, TASKS, TIMERS, WAITING, WAITS, WAITS_OF_EVENT
from benchmarks.bare.wire import ask, encode
from benchmarks.processes import serve

BATCH: Final = 500
"""Steps that are woken together: what one fast-ingest batch of jetflow holds."""

OVERLAPPING: Final = 4
PULL: Final = 1000
PULLS: Final = 4
_STATUS: Final = "Status"


class BareWaker:
    """Wakes parked steps."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._inbox = client.new_inbox()
        self._next = 0
        self._due: asyncio.Queue[Msg] = asyncio.Queue()
        self._left = 0
        self._pages: dict[str, tuple[list[Msg], asyncio.Future[list[Msg]]]] = {}
        self._batches: dict[str, asyncio.Future[None]] = {}
        self._running: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin to pull due messages and events."""
        unbound: Any = {"pending_msgs_limit": 0, "pending_bytes_limit": 0}
        for kind, callback in (
            ("due", self._on_due),
            ("event", self._on_event),
            ("page", self._on_page),
            ("batch", self._on_batch),
        ):
            await self._client.subscribe(f"{self._inbox}.{kind}.>", cb=callback, **unbound)
        for _ in range(PULLS):
            await self._pull()
        request = encode({"batch": 10, "expires": 600_000_000_000})
        await self._client.publish(
            f"$JS.API.CONSUMER.MSG.NEXT.{EVENTS}.{WAITING}", request, reply=f"{self._inbox}.event.0"
        )
        self._running = [asyncio.create_task(self._wake_due()) for _ in range(OVERLAPPING)]

    async def _pull(self) -> None:
        self._left += PULL
        request = encode({"batch": PULL, "expires": 600_000_000_000})
        await self._client.publish(f"$JS.API.CONSUMER.MSG.NEXT.{TIMERS}.{DUE}", request, reply=f"{self._inbox}.due.0")

    # --- by timers

    async def _on_due(self, message: Msg) -> None:
        if not message.reply:
            return
        self._left -= 1
        if self._left <= PULL * (PULLS - 1):
            await self._pull()
        self._due.put_nowait(message)

    async def _wake_due(self) -> None:
        """Wake what is due by then, again and again."""
        while True:
            due = [await self._due.get()]
            while len(due) < BATCH and not self._due.empty():
                due.append(self._due.get_nowait())
            await self._wake([f"bf.default.task.{message.subject[len('bf.default.due.wake.') :]}" for message in due])
            for message in due:
                await self._client.publish(message.reply, b"+ACK")

    # --- by an event

    async def _on_event(self, message: Msg) -> None:
        if message.reply:
            self._running.append(asyncio.create_task(self._wake_all(message)))

    async def _wake_all(self, event: Msg) -> None:
        """Wake all that wait for an event, remove their waits, and acknowledge it."""
        waits: list[str] = []
        while True:
            asked = {"subjects_filter": WAITS_OF_EVENT, "offset": len(waits)}
            answer = await ask(self._client, f"STREAM.INFO.{WAITS}", asked)
            waits += answer["state"].get("subjects") or {}
            if len(waits) >= answer.get("total", 0):
                break
        tasks = [f"bf.default.task.{wait[len(WAITS_OF_EVENT) - 1 :].rpartition('.')[0]}" for wait in waits]
        batches = iter([tasks[at : at + BATCH] for at in range(0, len(tasks), BATCH)])

        async def some() -> None:
            for batch in batches:
                await self._wake(batch)

        await asyncio.gather(*(some() for _ in range(OVERLAPPING)))
        await ask(self._client, f"STREAM.PURGE.{WAITS}", {"filter": WAITS_OF_EVENT})
        await self._client.publish(event.reply, b"+ACK")

    # --- both

    async def _wake(self, tasks: Sequence[str]) -> None:
        stored = await self._read(tasks)
        if len(stored) != len(tasks):
            raise RuntimeError(f"{len(stored)} of {len(tasks)} tasks are there")
        await self._store(stored)

    async def _read(self, subjects: Sequence[str]) -> list[Msg]:
        """Read many messages by their subjects, in one request."""
        self._next += 1
        reply = f"{self._inbox}.page.{self._next}"
        page: asyncio.Future[list[Msg]] = asyncio.get_running_loop().create_future()
        self._pages[reply] = [], page
        request = encode({"multi_last": subjects, "batch": len(subjects)})
        await self._client.publish(f"$JS.API.DIRECT.GET.{TASKS}", request, reply=reply)
        return await page

    async def _on_page(self, message: Msg) -> None:
        found, page = self._pages[message.subject]
        if not message.data and _STATUS in (message.headers or {}):
            del self._pages[message.subject]
            page.set_result(found)
        else:
            found.append(message)

    async def _store(self, tasks: Sequence[Msg]) -> None:
        """Store the next turns of tasks as one batch, and wait until the server has all of them."""
        self._next += 1
        batch = f"{self._inbox}.batch.{self._next}"
        stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._batches[batch] = stored
        for number, task in enumerate(tasks, 1):
            given = task.headers or {}
            headers = {name: value for name, value in given.items() if name.startswith("Jf-")}
            subject = given["Nats-Subject"]
            headers["Nats-Msg-Id"] = f"{subject[-34:-2]}.run.1"
            operation = 2 if number == len(tasks) else 0 if number == 1 else 1
            reply = f"{batch}.{BATCH}.ok.{number}.{operation}.$FI"
            await self._client.publish(f"{subject[:-1]}1", task.data, reply=reply, headers=headers)
        await stored

    async def _on_batch(self, message: Msg) -> None:
        answer = msgspec.json.decode(message.data)
        stored = self._batches[message.subject.rsplit(".", 5)[0]]
        if "error" in answer:
            stored.set_exception(RuntimeError(f"a turn was refused: {answer}"))
        elif "batch" in answer:
            stored.set_result(None)


async def _main(url: str) -> None:
    client = await nats.connect(url, pending_size=256 * 1024 * 1024)
    try:
        await BareWaker(client).start()
        await serve()
    finally:
        await client.close()


if __name__ == "__main__":
    import uvloop

    uvloop.run(_main(sys.argv[1]))
