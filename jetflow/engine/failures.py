"""Failures that fit: a report of an error must never be larger than a message may be, or its run would not end."""

from __future__ import annotations

from typing import Final

import msgspec

from jetflow.engine.tasks import Failure, Outcome

LARGEST: Final = 64_000
"""Bytes of a failure as JSON, at most."""

PARTS: Final = 4
"""Into so many parts a message is divided, of which one failure may take one."""

_LONGEST_NAME: Final = 256
_BESIDE: Final = 128
"""Bytes for the name of the step, and the names of fields."""

_LEAST: Final = 256
"""Bytes that a failure is worth, at least."""


def room_for(max_payload: int) -> int:
    """Return the bytes that one failure may take where messages of ``max_payload`` bytes are taken."""
    return min(LARGEST, max_payload // PARTS)


def clipped(failure: Failure, room: int) -> Failure:
    """Return a failure that takes at most ``room`` bytes: the message keeps its beginning, the traceback its end."""
    longest = min(_LONGEST_NAME, room // 8)
    half = max(0, room - _BESIDE - 2 * longest) // 2
    name, place = _head(failure.type, longest), _head(failure.place, longest)
    message = _head(failure.message, half)
    trace = _head(failure.traceback[::-1], half)[::-1]
    if (name, message, trace, place) == (failure.type, failure.message, failure.traceback, failure.place):
        return failure
    return msgspec.structs.replace(failure, type=name, message=message, traceback=trace, place=place)


def fitted(outcome: Outcome, room: int) -> Outcome:
    """Return an outcome whose errors take at most ``room`` bytes together; of very many only the first are told."""
    error, errors = outcome.error, outcome.errors[: max(0, room // _LEAST - 1)]
    share = room // (len(errors) + 1)
    return msgspec.structs.replace(
        outcome,
        error=None if error is None else clipped(error, share),
        errors=tuple(clipped(one, share) for one in errors),
    )


def _head(text: str, most: int) -> str:
    """Return the beginning of a text that takes at most ``most`` bytes as JSON."""
    text = text[:most]  # a character takes a byte at least
    while text and (size := len(msgspec.json.encode(text)) - 2) > most:
        text = text[: min(len(text) - 1, len(text) * most // size)]
    return text
