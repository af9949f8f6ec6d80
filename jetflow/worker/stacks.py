"""Where the code of a running step stands: the frames of a coroutine that waits, or of a thread."""

from __future__ import annotations

import asyncio
import sys
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, Final

DEEPEST: Final = 200
"""Frames that are looked at."""

_OWN: Final = str(Path(__file__).parent)


def stack_of_task(task: asyncio.Task[Any]) -> str:
    """Return the stack of what a task of the event loop awaits, the innermost frame last, without the worker's own."""
    return _shown((frame, frame.f_lineno) for frame in _awaited(task.get_coro()))


def stack_of_thread(thread: int) -> str:
    """Return the stack of a thread, the innermost frame last, without the worker's own."""
    documented: Any = sys  # that name begins with an underscore, and is public
    frame: FrameType | None = documented._current_frames().get(thread)  # noqa: SLF001
    frames: list[tuple[FrameType, int]] = []
    while frame is not None and len(frames) < DEEPEST:
        frames.append((frame, frame.f_lineno))
        frame = frame.f_back
    return _shown(reversed(frames))


def _awaited(coroutine: Any) -> Iterator[FrameType]:
    """Yield the frames of a coroutine that is suspended, and of what it awaits."""
    for _ in range(DEEPEST):
        frame = next(
            (found for name in ("cr_frame", "gi_frame", "ag_frame") if (found := getattr(coroutine, name, None))), None
        )
        if frame is None:
            return
        yield frame
        coroutine = next(
            (found for name in ("cr_await", "gi_yieldfrom", "ag_await") if (found := getattr(coroutine, name, None))),
            None,
        )


def _shown(frames: Iterable[tuple[FrameType, int]]) -> str:
    """Return frames as text, from the first on that is behind those of the worker."""
    walked = list(frames)
    own = [at for at, (frame, _) in enumerate(walked) if frame.f_code.co_filename.startswith(_OWN)]
    first = own[0] if own else -1
    while first + 1 < len(walked) and (first < 0 or walked[first][0].f_code.co_filename.startswith(_OWN)):
        first += 1
    begin = max(first, 0)
    return "".join(traceback.StackSummary.extract(iter(walked[begin:])).format())
