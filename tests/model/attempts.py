"""Every history of one task that is delivered again and again: which of its deliveries count as attempts.

The broker may deliver to nobody: into a lost connection, or to a worker that is paused. Workers may die before their
body has begun or in it, hand the task back, and stop a body that runs. The broker may lose sight of a worker that
lives, and that one may fall silent, so that it is taken for dead. A guard may record what a worker that died has held,
also where that had stored its outcome and not acknowledged it. Checked is what is promised: a task is
poisoned only if as many bodies were lost as it has attempts, and a body that ends its worker ends by itself; what a
worker holds that lives and answers is neither poisoned nor begun beside it; what has ended is not begun again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from jetflow.engine.attempts import Recorded, attempts_made, may_run_elsewhere
from jetflow.engine.tasks import Attempt
from tests.model.explorer import Report, Seen, walk

NAME: Final = "deliveries of one task, of which many reach nobody"
ATTEMPTS: Final = (1, 2, 3)
OUTAGES, RETURNS, SIGHTS = 3, 2, 2
BEGUN, RETURNED, LOST = range(3)
RECORDS: Final = (Attempt(attempt=1), Attempt(attempt=1, returned=True), Attempt(attempt=1, ended=1.0))
LIVE, SILENT, NOBODY = "live", "silent", "nobody"

Kept = frozenset[tuple[str, int]]
"""What is recorded: the delivery, and what of it."""


class Life(NamedTuple):
    """Where the task stands. ``lost`` are bodies that began and ended with their workers, or were taken for it.

    ``holder`` is the worker that runs it out of the broker's sight, which the broker may lose ``sights`` times more;
    ``held`` is the delivery under which it does. ``ended`` says that an outcome is stored, ``again`` that a body began
    after that.
    """

    deliveries: int = 0
    lost: int = 0
    outages: int = OUTAGES
    returns: int = RETURNS
    kept: Kept = frozenset()
    poisoned: bool = False
    sights: int = SIGHTS
    holder: str = NOBODY
    held: int = 0
    beside: bool = False
    ended: bool = False
    again: bool = False


@dataclass(frozen=True)
class Counting:
    """How attempts are counted. The right one is `RIGHT`; each other is a planted bug."""

    made: Callable[[Iterable[Recorded], int], int] = lambda recorded, _: attempts_made(recorded)
    records_from: int = 2
    records_first: bool = True
    records_returns: bool = True
    asks: Callable[[Iterable[Recorded], bool, bool], bool] = lambda recorded, is_first, _: may_run_elsewhere(
        recorded, is_first=is_first
    )
    records_held: bool = False
    guard_waits_for_death: bool = True
    guard_knows_what_began: bool = True
    looks_for_the_outcome: bool = True


RIGHT: Final = Counting()
BUGS: Final = {
    "every delivery is an attempt": Counting(made=lambda _, deliveries: deliveries - 1),
    "deliveries less those that were returned": Counting(
        made=lambda recorded, deliveries: deliveries - 1 - sum(one.attempt.returned for one in recorded)
    ),
    "a return counts": Counting(made=lambda recorded, _: len({one.delivery for one in recorded})),
    "records are attempts, two of one delivery are two": Counting(
        made=lambda recorded, _: sum(1 if not one.attempt.returned else 0 for one in recorded)
    ),
    "a beginning is recorded nowhere": Counting(records_from=1000),
    "a beginning is recorded from the third delivery on": Counting(records_from=3),
    "a beginning is recorded behind the body": Counting(records_first=False),
    "a body that is stopped leaves no record": Counting(records_returns=False),
    "nobody is asked": Counting(asks=lambda *_: False),
    "others are asked only before it is given up": Counting(asks=lambda _, __, is_over: is_over),
    "others are asked only about what is recorded": Counting(
        asks=lambda recorded, _, __: may_run_elsewhere(recorded, is_first=True)
    ),
    "a delivery of what another holds is an attempt": Counting(records_held=True),
    "a guard takes a worker that lives for dead": Counting(guard_waits_for_death=False),
    "a guard counts what had not begun": Counting(guard_knows_what_began=False),
    "what a guard gives back is begun without a look for its outcome": Counting(looks_for_the_outcome=False),
}


def explore(counting: Counting = RIGHT, *, stop_at_first: bool = False) -> Report:
    """Explore all that can become of a task, for steps with each number of attempts."""

    def look(state: tuple[int, Life]) -> Seen[tuple[int, Life]]:
        attempts, life = state
        wrong = _wrong(life, attempts)
        over = wrong or life.poisoned or (life.ended and counting.looks_for_the_outcome)
        after = [] if over else [*_next(life, attempts, counting), *_of_holder(life, counting)]
        return Seen([(attempts, one) for one in after], wrong, not after)

    return walk(NAME, [(attempts, Life()) for attempts in ATTEMPTS], look, stop_at_first=stop_at_first)


def hunt(bug: Counting) -> Report | None:
    """Return the search that caught a way to count that is wrong."""
    report = explore(bug, stop_at_first=True)
    return report if report.violations else None


def _wrong(life: Life, attempts: int) -> str:
    if life.holder == LIVE and (life.poisoned or life.beside):
        return f"twice: poisoned or begun anew beside a worker that runs it: {life}"
    if life.poisoned and life.lost + (life.holder == SILENT) < attempts:
        return f"wrong: poisoned after {life.lost} of {attempts} attempts: {life}"
    if life.again:
        return f"twice: a body began when the task had ended: {life}"
    if life.lost > attempts + 1:
        return f"endless: {life.lost} bodies were lost of {attempts} attempts and one: {life}"
    return ""


def _of_holder(life: Life, counting: Counting) -> Iterator[Life]:
    """What becomes of the worker that runs the task out of sight: it dies, falls silent, or is heard of again."""
    if life.holder != NOBODY:
        dead = life._replace(holder=NOBODY, lost=life.lost + 1)
        yield dead
        yield _keep(dead, LOST, life.held)
        yield life._replace(holder=SILENT if life.holder == LIVE else LIVE)
        if life.holder == LIVE and not counting.guard_waits_for_death:
            yield _keep(life, LOST, life.held)


def _next(life: Life, attempts: int, counting: Counting) -> Iterator[Life]:
    given = life._replace(deliveries=life.deliveries + 1)
    if life.ended:
        yield given._replace(again=True)  # found as ended by whoever looks for that
        return
    if life.outages:
        yield given._replace(outages=life.outages - 1)  # to nobody, or to one that dies before its body begins
    if life.returns:
        fewer = given._replace(returns=life.returns - 1)
        yield _keep(fewer, RETURNED)  # by the worker that was given it, or by the guard of one that died
        if not counting.guard_knows_what_began:
            yield _keep(fewer, LOST)
    recorded = [Recorded(number, RECORDS[what]) for number, what in life.kept]
    is_over = counting.made(recorded, given.deliveries) + 1 > attempts
    if life.holder == LIVE and counting.asks(recorded, given.deliveries == 1, is_over):
        if life.sights:
            left = _keep(given, BEGUN) if counting.records_held else given
            yield left._replace(sights=life.sights - 1)
        return
    if is_over:
        yield given._replace(poisoned=True)
        return
    begun = given._replace(beside=life.holder == LIVE, lost=life.lost + (life.holder == SILENT))
    if begun.beside:
        yield begun
        return
    begun = begun._replace(holder=NOBODY)
    if given.deliveries >= counting.records_from and counting.records_first:
        begun = _keep(begun, BEGUN)
    dead = begun._replace(lost=begun.lost + 1)
    yield dead
    yield _keep(dead, LOST)
    yield Life(deliveries=given.deliveries, ended=True)  # it died between its outcome and its acknowledgement
    if life.sights:
        yield begun._replace(holder=LIVE, held=begun.deliveries, sights=life.sights - 1)
    if life.returns:  # it is stopped, and its worker with it
        stopped = begun._replace(returns=life.returns - 1)
        yield _keep(stopped, RETURNED) if counting.records_returns else stopped


def _keep(life: Life, what: int, delivery: int = 0) -> Life:
    return life._replace(kept=life.kept | {(str(delivery or life.deliveries), what)})
