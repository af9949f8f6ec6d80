"""Streams of children of a step that runs in a process: the source is read there, and the worker spawns."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias

import msgspec

from jetflow.children import Streamed
from jetflow.engine.tasks import Outcome
from jetflow.engine.windows import AskedStream
from jetflow.host import ChildStream, StepHost
from jetflow.wire.codec import Codec
from jetflow.wire.records import decode_outcome, encode
from jetflow.workflow import Workflow

Asking: TypeAlias = Callable[..., Awaitable[Any]]


class Opened(msgspec.Struct, frozen=True):
    """What the process has to know of a stream that the worker has opened."""

    number: int
    spawned: int
    last: str
    position: bytes
    state: bytes
    is_over: bool


class PoolStream:
    """A stream as the process has it: see `jetflow.host.ChildStream`."""

    def __init__(self, ask: Asking, opened: Opened, workflow: str, input: Codec[Any], output: Codec[Any]) -> None:
        self._ask = ask
        self._opened = opened
        self._input = input
        self.workflow: str = workflow
        self.codec: Codec[Any] = output
        self.spawned: int = opened.spawned
        self.position: bytes = opened.position
        self.state: bytes = opened.state
        self.last: str = opened.last
        self.is_over: bool = opened.is_over

    async def places(self) -> int:
        """See `ChildStream.places`."""
        return int(await self._ask("stream_places", self._opened.number))

    async def taken(self) -> list[Outcome]:
        """See `ChildStream.taken`."""
        taken: list[bytes] = await self._ask("stream_taken", self._opened.number)
        return [decode_outcome(one) for one in taken]

    async def put(
        self,
        values: Sequence[Any],
        keys: Sequence[str] | None,
        position: bytes | None,
        state: bytes | None,
        told: Sequence[bytes] | None,
    ) -> None:
        """See `ChildStream.put`."""
        bodies, given = [self._input.encode(value) for value in values], None if keys is None else list(keys)
        await self._ask("stream_put", self._opened.number, bodies, given, position, state, told)
        self.spawned += len(bodies)

    async def check(self, value: Any, key: str | None) -> None:
        """See `ChildStream.check`."""
        await self._ask("stream_check", self._opened.number, self._input.encode(value), key)

    async def drain(self, state: bytes | None) -> bool:
        """See `ChildStream.drain`."""
        return bool(await self._ask("stream_drain", self._opened.number, state))

    async def finish(self) -> Streamed:
        """See `ChildStream.finish`."""
        return msgspec.convert(await self._ask("stream_finish", self._opened.number), Streamed)

    def close(self) -> None:
        """See `ChildStream.close`. The worker closes its own when the call ends."""


class HostedStreams:
    """The streams of one call, in the worker. `close` them when it has ended."""

    def __init__(self, host: StepHost, value_of: Callable[[str, bytes], Any]) -> None:
        self._host = host
        self._value_of = value_of
        self._streams: list[ChildStream] = []

    def answers(self) -> dict[str, Callable[..., Awaitable[Any]]]:
        """Return what answers which question."""
        return {
            "stream_places": self._places,
            "stream_taken": self._taken,
            "stream_put": self._put,
            "stream_drain": self._drain,
            "stream_check": self._check,
            "stream_finish": self._finish,
        }

    async def open(self, workflow: Workflow[Any, Any] | str, asked: dict[str, Any]) -> dict[str, Any]:
        """Open one."""
        stream = await self._host.open_stream(workflow, msgspec.convert(asked, AskedStream))
        self._streams.append(stream)
        number = len(self._streams) - 1
        opened = Opened(number, stream.spawned, stream.last, stream.position, stream.state, stream.is_over)
        return msgspec.structs.asdict(opened)

    async def _places(self, number: int) -> int:
        return await self._streams[number].places()

    async def _taken(self, number: int) -> list[bytes]:
        return [encode(one) for one in await self._streams[number].taken()]

    async def _put(
        self,
        number: int,
        bodies: list[bytes],
        keys: list[str] | None,
        position: bytes | None,
        state: bytes | None,
        told: list[bytes] | None,
    ) -> None:
        stream = self._streams[number]
        await stream.put([self._value_of(stream.workflow, body) for body in bodies], keys, position, state, told)

    async def _drain(self, number: int, state: bytes | None) -> bool:
        return await self._streams[number].drain(state)

    async def _check(self, number: int, body: bytes, key: str | None) -> None:
        stream = self._streams[number]
        await stream.check(self._value_of(stream.workflow, body), key)

    async def _finish(self, number: int) -> dict[str, Any]:
        stream = self._streams[number]
        ended = await stream.finish()
        stream.close()
        return msgspec.to_builtins(ended)

    def close(self) -> None:
        """Wait for none of them any more."""
        for stream in self._streams:
            stream.close()
