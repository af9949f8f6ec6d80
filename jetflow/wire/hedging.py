"""What is asked of workers about the children that a join takes for late (``docs/wire.md``, Twins of stragglers)."""

from __future__ import annotations

from typing import Final

import msgspec

from jetflow.engine.hedging import Straggler
from jetflow.errors import MalformedRecord

MOST_RUNS: Final = 500
"""Children that one question names."""


class Late(msgspec.Struct, frozen=True, kw_only=True):
    """Asks who runs some of these children, and for a twin of each whose step has run ``late_after`` seconds."""

    runs: tuple[str, ...]
    late_after: float


def decode_late(body: bytes) -> Late:
    """Return what is asked.

    Raises:
        MalformedRecord: it cannot be read.
    """
    try:
        return msgspec.json.decode(body, type=Late)
    except msgspec.DecodeError as error:
        raise MalformedRecord("question for stragglers", str(error)) from error


def decode_stragglers(body: bytes) -> list[Straggler]:
    """Return what one worker has answered; nothing if it cannot be read, for another one may be asked again."""
    try:
        return msgspec.json.decode(body, type=list[Straggler])
    except msgspec.DecodeError:
        return []
