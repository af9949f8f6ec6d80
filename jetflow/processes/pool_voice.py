"""What a step says that runs in a process.

Chunks are asked for, so that they keep their order and their bounds; all else is told, and waits for nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from time import time
from typing import Any

from jetflow.errors import InvalidInput
from jetflow.processes.pool_messages import Spoken
from jetflow.wire.codec import written
from jetflow.wire.output import line_of


class PoolVoice:
    """The voice of a step in a process: see `jetflow.host.Voice`."""

    def __init__(self, call: int, ask: Callable[..., Awaitable[Any]], send: Callable[[Spoken], None]) -> None:
        self._call = call
        self._ask = ask
        self._send = send

    async def chunk(self, value: Any) -> None:
        """See `Context.stream`."""
        raw = bytes(value) if isinstance(value, bytes | bytearray) else None
        body = written(value, "a chunk") if raw is None else raw
        await self._ask("chunk", body, raw is not None)

    def progress(self, fraction: float, text: str = "") -> None:
        """See `Context.progress`."""
        if not 0 <= fraction <= 1:
            raise InvalidInput(f"ctx.progress({fraction!r}): from 0 to 1")
        self._send(Spoken(self._call, "progress", [float(fraction), str(text)]))

    def log(self, level: str, message: str, *, fields: Mapping[str, Any] | None = None) -> None:
        """See `Context.log`."""
        line = line_of(time(), level, message, "", dict(fields or {}))
        self._send(Spoken(self._call, "log", [line.level, line.message, line.fields, line.at]))
