"""Answering, in the worker, what the context of a step asks that runs in a process."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextvars import copy_context
from itertools import count
from typing import Any, Protocol, TypeVar

import msgspec

from jetflow.engine.awaiting import Group
from jetflow.engine.joins import split_ids
from jetflow.engine.policies import JoinPolicy
from jetflow.engine.sleeping import Sleep
from jetflow.errors import JetflowError
from jetflow.host import StepHost
from jetflow.processes.pool_errors import crossed
from jetflow.processes.pool_messages import Answer, Ask, Refused, Spoken
from jetflow.processes.pool_streams import HostedStreams
from jetflow.wire.records import encode
from jetflow.workflow import Workflow

T = TypeVar("T")

_log = logging.getLogger("jetflow.worker")


class ToldVoice(Protocol):
    """What a step says that runs in a process, as the worker stores it."""

    async def written_chunk(self, body: bytes, is_raw: bool) -> None:
        """Store a chunk that is written already."""
        ...

    async def chunk(self, value: Any) -> None:
        """See `Context.stream`."""
        ...

    def progress(self, fraction: float, text: str = "") -> None:
        """See `Context.progress`."""
        ...

    def log(
        self, level: str, message: str, *, fields: Mapping[str, Any] | None = None, at: float | None = None
    ) -> None:
        """See `Context.log`."""
        ...


class Host(StepHost, Protocol):
    """What has to be answered in the worker for a step that runs in a process."""

    @property
    def voice(self) -> ToldVoice:
        """What the step says while it runs."""
        ...

    async def recorded(self, name: str) -> bytes | None:
        """The value that is recorded once, if it is."""
        ...

    async def record(self, name: str, body: bytes) -> bytes | None:
        """Record a value once, and return the one that is recorded."""
        ...


class Hosting:
    """Answers what one call asks, as its questions come. `close` it when the call has ended."""

    def __init__(
        self, host: Host, workflows: Mapping[str, Workflow[Any, Any]], send: Callable[[Answer | Refused], None]
    ) -> None:
        self._host = host
        self._workflows = workflows
        self._send = send
        self._answering: dict[int, asyncio.Task[None]] = {}
        self._streams: dict[int, AsyncIterator[Any]] = {}
        self._hosted = HostedStreams(host, self._value)
        self._context = copy_context()  # that of the step, which spans and log records go by
        self._numbers = count(1)
        self._answers: dict[str, Callable[..., Awaitable[Any]]] = {
            "spawn": self._spawn,
            "spawn_one": self._spawn_one,
            "wait_for": self._wait_for,
            "decide": self._decide,
            "recorded": host.recorded,
            "record": host.record,
            "sleep": self._sleep,
            "open": self._open,
            "next": self._next,
            "shut": self._shut,
            "chunk": self._chunk,
            "events": self._events,
            "stream_open": self._open_stream,
            "cancel": self._cancel,
        } | self._hosted.answers()

    def ask(self, asked: Ask) -> None:
        """Begin to answer a question."""
        task = asyncio.get_running_loop().create_task(self._answer(asked), context=self._context)
        self._answering[asked.ask] = task
        task.add_done_callback(lambda _: self._answering.pop(asked.ask, None))

    def hear(self, spoken: Spoken) -> None:
        """Take what the step says while it runs."""
        try:
            if spoken.what == "extend_timeout":
                self._host.steering.extend_timeout(*spoken.given)
            elif spoken.what == "release_slot":
                self._host.steering.release_slot()
            elif spoken.what == "progress":
                self._host.voice.progress(*spoken.given)
            else:
                level, message, fields, at = spoken.given
                self._host.voice.log(level, message, fields=fields, at=at)
        except JetflowError as error:  # it has ended meanwhile: nobody waits for an answer
            _log.debug("what a step says in a process is not kept: %s", error)

    def drop(self, number: int) -> None:
        """Stop to answer one."""
        if (task := self._answering.get(number)) is not None:
            task.cancel()

    async def close(self) -> None:
        """Answer nothing more."""
        tasks = list(self._answering.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for stream in self._streams.values():
            await _shut(stream)
        self._hosted.close()

    async def _answer(self, asked: Ask) -> None:
        try:
            body = await self._answers[asked.what](*asked.given)
        except asyncio.CancelledError:  # nobody waits, or the step is cancelled, and with it its process
            raise
        except BaseException as error:  # whatever it is, the step has asked for it
            self._send(Refused(asked.ask, crossed(error)))
        else:
            self._send(Answer(asked.ask, body))

    # --- the answers

    async def _spawn(
        self,
        workflow: str,
        bodies: list[bytes],
        keys: list[str] | None,
        delay: float | None,
        level: str | None,
        told: bytes | list[bytes] | None,
    ) -> bytes:
        values = [self._value(workflow, body) for body in bodies]
        target = self._workflows.get(workflow, workflow)
        key = None if keys is None else _in_turn(keys)
        group = await self._host.spawn(
            target, values, key, delay, level, _in_turn(told) if isinstance(told, list) else told
        )
        return bytes(group.ids)

    async def _open_stream(self, workflow: str, asked: dict[str, Any]) -> dict[str, Any]:
        return await self._hosted.open(self._workflows.get(workflow, workflow), asked)

    async def _spawn_one(
        self,
        workflow: str,
        body: bytes,
        key: str | None,
        detached: bool,
        delay: float | None,
        level: str | None,
        told: bytes | None,
    ) -> bytes:
        target = self._workflows.get(workflow, workflow)
        group = await self._host.spawn_one(target, self._value(workflow, body), key, detached, delay, level, told)
        return bytes(group.ids)

    def _value(self, workflow: str, body: bytes) -> Any:
        """Return an input, of its type if that is known here."""
        known = self._workflows.get(workflow)
        return msgspec.json.decode(body) if known is None else known.input.decode(body)

    async def _wait_for(self, ids: bytes) -> list[bytes]:
        return [encode(outcome) for outcome in await self._host.wait_for(list(split_ids(ids)))]

    async def _decide(self, ids: bytes, policy: dict[str, Any]) -> tuple[list[tuple[bytes, bytes]], bytes, bool]:
        decided = await self._host.decide(list(split_ids(ids)), msgspec.convert(policy, JoinPolicy))
        ended = [(child, encode(outcome)) for child, outcome in decided.ended.items()]
        return ended, b"".join(decided.open), decided.met

    async def _chunk(self, body: bytes, is_raw: bool) -> None:
        await self._host.voice.written_chunk(body, is_raw)

    async def _cancel(self) -> None:
        await self._host.steering.cancel()

    async def _sleep(self, seconds: float | None, until: float | None, key: str | None) -> None:
        await self._host.sleep(Sleep(seconds, until, key))

    async def _events(self, groups: list[dict[str, Any]]) -> list[bytes]:
        taken = await self._host.wait_for_events([msgspec.convert(group, Group) for group in groups])
        return [encode(one) for one in taken]

    async def _open(self, what: str, of: Any) -> int:
        number = next(self._numbers)
        self._streams[number] = self._host.as_they_end(set(split_ids(of))) if what == "ends" else self._pages(of)
        return number

    async def _pages(self, step: str) -> AsyncIterator[list[tuple[str, bytes]]]:
        async for page in self._host.children(step):
            yield [(child, encode(outcome)) for child, outcome in page]

    async def _next(self, number: int) -> list[Any]:
        try:
            return [await anext(self._streams[number])]
        except StopAsyncIteration:
            return []

    async def _shut(self, number: int) -> None:
        await _shut(self._streams.pop(number))


def _in_turn(given: Sequence[T]) -> Callable[[Any], T]:
    """Return a function that gives one after the other, for the inputs as they are spawned."""
    each = iter(given)
    return lambda _: next(each)


async def _shut(stream: Any) -> None:
    await stream.aclose()
