"""How an error's traceback reads. What a frame looks like is kept, for where many fail they fail at the same places.

Python compiles the line of each frame anew to mark in it where the error was: a failed attempt cost more for that than
for all else.
"""

from __future__ import annotations

import traceback
from types import TracebackType
from typing import Any, Final

KEPT: Final = 1000
"""Frames whose text is kept."""

DEEP: Final = 50
"""Frames from which on a traceback is left to Python, which folds those that repeat."""

_kept: dict[tuple[str, str, int, int], str] = {}


def traceback_of(error: BaseException) -> str:
    """Return an error's traceback with those of its causes, as Python writes it."""
    frames: list[Any] = []
    frame = error.__traceback__
    while frame is not None and len(frames) <= DEEP:
        frames.append(_text(frame))
        frame = frame.tb_next
    if frame is not None:
        return "".join(traceback.format_exception(error))
    told = traceback.TracebackException(type(error), error, None)
    told.stack = _Told(frames)
    return "".join(told.format())


class _Told(traceback.StackSummary):
    """Frames of which only the text is known."""

    def format(self, **_: Any) -> list[str]:
        texts: list[Any] = list(self)
        return texts


def _text(frame: TracebackType) -> str:
    code = frame.tb_frame.f_code
    place = code.co_filename, code.co_name, frame.tb_lineno, frame.tb_lasti
    text = _kept.get(place)
    if text is None:
        if len(_kept) == KEPT:
            _kept.clear()
        text = _kept[place] = "".join(traceback.format_tb(frame, limit=1))
    return text
