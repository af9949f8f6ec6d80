"""What the marks say that stop runs: their bodies, and for how long they count."""

from __future__ import annotations

from time import time
from typing import Final

import msgspec

from jetflow.broker.session import Session

TREE: Final = b""
ALONE: Final = b'"alone"'
DELETED: Final = b'"deleted"'
"""What a mark says of its run: cancelled with all that it has spawned, cancelled without, deleted with its tree."""

REST: Final = b'"rest'
"""How a mark begins that says of a run that has failed fast: what is left of it is cancelled, see `rest_but`."""

REMEMBERED: Final = 3600.0
"""Seconds for which the mark of a cancelled or deleted run counts."""


def rest_but(step: str | None) -> bytes:
    """Return the mark that cancels what a run has left open and has spawned, but for one step and its children.

    It says nothing of the runs below those: each that has children is marked itself.
    """
    return REST + (b'"' if step is None else f' but {step}"'.encode())


def deleted_by(mark: bytes) -> list[str]:
    """Return the root runs that a mark of many names; none if it is of another kind."""
    try:
        return msgspec.json.decode(mark, type=list[str])
    except msgspec.DecodeError:
        return []


async def was_deleted(session: Session, run: str) -> bool:
    """Tell whether a root run was deleted so lately that what may still be under way of it is refused."""
    names = session.names
    mark = await session.store.leader_last(names.tasks_stream, names.cancelled(run, run))
    return mark is not None and mark.body == DELETED and time() - mark.time < REMEMBERED
