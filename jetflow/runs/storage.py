"""How much a namespace stores, and what that costs its server."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import msgspec

from jetflow.broker.session import Session
from jetflow.broker.times import seconds_of

MEMORY_A_MESSAGE: Final = 700
"""Bytes of memory that the server holds for each stored message, as measured with 200,000 runs of one step."""


class StreamUse(msgspec.Struct, frozen=True, kw_only=True):
    """One stream: how many messages it holds, their bytes, and when the oldest was stored (seconds since the epoch)."""

    name: str
    messages: int
    bytes: int
    oldest: float | None = None


class Storage(msgspec.Struct, frozen=True, kw_only=True):
    """What a namespace stores. ``memory`` is about how many bytes of memory its server holds for that."""

    streams: list[StreamUse]
    memory: int

    @property
    def messages(self) -> int:
        """Messages of all streams."""
        return sum(stream.messages for stream in self.streams)

    @property
    def bytes(self) -> int:
        """Bytes of all streams on the server's disk."""
        return sum(stream.bytes for stream in self.streams)


async def read_storage(session: Session) -> Storage:
    """Ask each stream of a namespace how much it holds."""
    names = session.names
    wanted = [
        names.tasks_stream,
        names.records_stream,
        names.counters_stream,
        *([names.values_stream] if session.takes_large else []),
        names.timers_stream,
        names.inbox_stream,
        names.workflows_stream,
    ]
    optional = session.optional.names  # which a namespace may do without
    states = await asyncio.gather(
        *(session.connection.api(f"STREAM.INFO.{stream}") for stream in wanted),
        *(session.optional.info(stream) for stream in optional),
    )
    found = zip(wanted + optional, states, strict=True)
    streams = [_use(stream, state["state"]) for stream, state in found if state is not None]
    return Storage(streams=streams, memory=MEMORY_A_MESSAGE * sum(stream.messages for stream in streams))


def _use(name: str, state: dict[str, Any]) -> StreamUse:
    messages = int(state["messages"])
    return StreamUse(
        name=name,
        messages=messages,
        bytes=int(state["bytes"]),
        oldest=seconds_of(state["first_ts"]) if messages else None,
    )
