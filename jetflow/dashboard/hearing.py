"""What a page shows of what a run's steps say: how far they are, and the newest lines and chunks."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable
from time import monotonic
from typing import Any, Final

import msgspec

from jetflow.client import Client
from jetflow.wire.output import Chunk, LogLine, Progress

MOST: Final = 1000
"""Lines, and chunks, that are told at once."""

SHOWN: Final = 200
"""Lines, and chunks, of a live topic."""

LONGEST: Final = 2000
"""Characters of one chunk that are told."""

EVERY: Final = 0.5
"""Seconds between two looks at what a run says."""

_GOES_ON: Final = ("queued", "running")


class ShownChunk(msgspec.Struct, frozen=True, kw_only=True):
    """A chunk, cut to what fits a page: ``text`` is its text, or its JSON."""

    step: str
    sequence: int
    attempt: int
    turn: int
    index: int
    at: float
    text: str


class Heard(msgspec.Struct, frozen=True, kw_only=True):
    """How far the steps of a run are, and how many lines and chunks they have said: everybody may see that."""

    progress: dict[str, Progress]
    lines: int
    chunks: int


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """What the steps of a run have said. ``lines`` and ``chunks`` are the newest, ``more_`` how many came before.

    They are ``withheld`` from whoever may not see payloads.
    """

    progress: dict[str, Progress]
    lines: list[LogLine]
    chunks: list[ShownChunk]
    more_lines: int = 0
    more_chunks: int = 0
    withheld: bool = False


class Hearing:
    """Reads on, at each look, behind what it has read."""

    def __init__(
        self, client: Client, run_id: str, *, limit: int = SHOWN, shown: Callable[[Any], Any] = lambda value: value
    ) -> None:
        self._run = client.run(run_id)
        self._shown = shown
        self._lines: deque[LogLine] = deque(maxlen=limit)
        self._chunks: deque[ShownChunk] = deque(maxlen=limit)
        self._counts = [0, 0]
        self._after = [0, 0]

    async def heard(self) -> Said:
        """Return what has been said until now.

        Raises:
            UnknownRun: no run with this id is stored.
        """
        progress = await self._run.progress()
        async for line in self._run.logs(after=self._after[0]):
            self._lines.append(line)
            self._counts[0] += 1
            self._after[0] = line.sequence
        async for chunk in self._run.stream(after=self._after[1], follow=False):
            self._chunks.append(_shown(chunk, self._shown(chunk.value)))
            self._counts[1] += 1
            self._after[1] = chunk.sequence
        return Said(
            progress=progress,
            lines=list(self._lines),
            chunks=list(self._chunks),
            more_lines=self._counts[0] - len(self._lines),
            more_chunks=self._counts[1] - len(self._chunks),
        )

    async def states(self) -> AsyncGenerator[Heard]:
        """Yield how much has been said, whenever that has changed, until the run has ended."""
        shown: Heard | None = None
        while True:
            began = monotonic()
            is_over = await self._run.status() not in _GOES_ON  # before it is read: what was said is stored by then
            progress = (await self.heard()).progress
            said = Heard(progress=progress, lines=self._counts[0], chunks=self._counts[1])
            if said != shown:
                shown = said
                yield said
            if is_over:
                return
            await asyncio.sleep(max(EVERY, 10 * (monotonic() - began)))


def _shown(chunk: Chunk, value: Any) -> ShownChunk:
    text = _text(value)
    return ShownChunk(
        step=chunk.step,
        sequence=chunk.sequence,
        attempt=chunk.attempt,
        turn=chunk.turn,
        index=chunk.index,
        at=chunk.at,
        text=text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…",
    )


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return msgspec.json.encode(value).decode()
