"""Which attempt a delivery is: how many bodies of its turn have begun before, by what is recorded of them.

The broker counts deliveries, and many of them reach nobody: they are lost with a connection, or lie in the socket of a
worker that is paused. So a delivery is an attempt when its body has begun, and by nothing else. Whoever is given a task
*again* records that it begins before its body does. The first delivery of a task, which is nearly all of them, records
nothing: if nothing is known of it, nobody can tell whether its body had begun, and it does not count. So a body that
ends its worker is begun once more often than its attempts allow, and no more.

What may have begun and has not ended is asked for before it is begun anew: a worker that lives may run it, which the
broker had lost sight of for a while. What such a worker holds is neither an attempt of another, nor begun beside it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from jetflow.engine.tasks import Attempt

FIRST: Final = "1"


class Recorded(msgspec.Struct, frozen=True, gc=False):
    """One record of one delivery of a turn: that its body began, or how it ended without an outcome."""

    delivery: str
    attempt: Attempt


def attempts_made(recorded: Iterable[Recorded]) -> int:
    """Return how many deliveries of a turn were attempts: something is recorded of them, and none was handed back."""
    known, returned = _deliveries(recorded)
    return len(known - returned)


def has_only_queued(recorded: Iterable[Recorded], delivery: int) -> bool:
    """Tell whether no body of a turn can have begun before its delivery of this number."""
    known, returned = _deliveries(recorded)
    return known == returned and (delivery == 1 or FIRST in returned)


def may_run_elsewhere(recorded: Iterable[Recorded], *, is_first: bool) -> bool:
    """Tell whether a body of a turn may have begun and not ended: by a record, or in its first delivery, by none.

    ``is_first`` says that no delivery was before.
    """
    records = list(recorded)
    begun = {one.delivery for one in records}
    if not is_first:
        begun.add(FIRST)
    return bool(begun - {one.delivery for one in records if one.attempt.returned or one.attempt.ended})


def _deliveries(recorded: Iterable[Recorded]) -> tuple[set[str], set[str]]:
    records = list(recorded)
    return {one.delivery for one in records}, {one.delivery for one in records if one.attempt.returned}
