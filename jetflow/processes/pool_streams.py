"""Streams of children of a step that runs in a process: the source is read there, and the worker spawns."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias

import msgspec

from jetflow.children import Streamed
from jetflow.engine.windows import AskedStream
from jetflow.host import ChildStream, StepHost
from jetflow.wire.codec import Codec
from jetflow.workflow import Workflow

Asking: TypeAlias = Callable[..., Awaitable[Any]]


class Opened(msgspec.Struct, frozen=True):
    """What the process has to know of a stream that the worker has opened."""

    number: int
    spawned: int
    last: str
    position: bytes
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
        self.last: str = opened.last
        self.is_over: bool = opened.is_over

    async def places(self) -> int:
        """See `ChildStream.places`."""
        return int(await self._ask("stream_places", self._opened.number))

    async def put(self, values: Sequence[Any], keys: Sequence[str] | None, position: bytes | None) -> None:
        """See `ChildStream.put`."""
        bodies = [self._input.encode(value) for value in values]
        await self._ask("stream_put", self._opened.number, bodies, None if keys is None else list(keys), position)
        self.spawned += len(bodies)

    async def check(self, value: Any, key: str | None) -> None:
        """See `ChildStream.check`."""
        await self._ask("stream_check", self._opened.number, self._input.encode(value), key)

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
            "stream_put": self._put,
            "stream_check": self._check,
            "stream_finish": self._finish,
        }

    async def open(self, workflow: Workflow[Any, Any] | str, asked: dict[str, Any]) -> dict[str, Any]:
        """Open one."""
        stream = await self._host.open_stream(workflow, msgspec.convert(asked, AskedStream))
        self._streams.append(stream)
        number = len(self._streams) - 1
        opened = Opened(number, stream.spawned, stream.last, stream.position, stream.is_over)
        return msgspec.structs.asdict(opened)

    async def _places(self, number: int) -> int:
        return await self._streams[number].places()

    async def _put(self, number: int, bodies: list[bytes], keys: list[str] | None, position: bytes | None) -> None:
        stream = self._streams[number]
        await stream.put([self._value_of(stream.workflow, body) for body in bodies], keys, position)

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
