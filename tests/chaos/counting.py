"""Counts from the records that limits have held: how many ran at once, and how many began in any stretch of time."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tests.chaos.plan import (
    BEGIN,
    BEGIN_IN_ALL,
    IN_SECONDS,
    LIMITED,
    PACED,
    PLACES,
    PLACES_IN_ALL,
    limit_key,
)

if TYPE_CHECKING:
    from tests.chaos.checker import Streams, Task, Verdict

ALL = "all keys"

OUTAGE = 8.0
"""Seconds behind the start of a server in which tasks are stored that were sent before it went."""

HELD_UP = 2.0
"""The same behind the end of a fault that had a server or a worker stand still, or take or send nothing."""


def check_limits(verdict: Verdict, streams: Streams, restarts: Sequence[float], held_up: Sequence[float]) -> None:
    """Never more of a key, and of all, may have run at once, or begun in a stretch of time, than may.

    A run has begun when the task of its first step is stored, and ends with its outcome.
    """
    begun: defaultdict[str, list[tuple[float, str, Task]]] = defaultdict(list)
    for run, task in streams.runs.items():
        first = streams.tasks.get((run, "run", 0))
        if task.workflow in (LIMITED, PACED) and first is not None:
            begun[task.workflow].append((first.time, run, task))
    _check_places(verdict, streams, begun[LIMITED])
    _check_paces(verdict, begun[PACED], restarts, held_up)


def _check_places(verdict: Verdict, streams: Streams, begun: list[tuple[float, str, Task]]) -> None:
    happened: list[tuple[float, int, str]] = []
    for at, run, task in begun:
        ended = min((one.time for one in streams.ended.get(run, [])), default=None)
        if ended is not None and ended > at:  # else it was cancelled before
            key = limit_key(task.input["seed"])
            happened += (at, 1, key), (ended, -1, key)
            verdict.limited += 1
    inside: Counter[str] = Counter()
    for at, change, key in sorted(happened):
        for one, most in ((key, PLACES), (ALL, PLACES_IN_ALL)):
            inside[one] += change
            verdict.most_at_once = max(verdict.most_at_once, inside[key])
            if inside[one] > most:
                verdict.wrong.append(f"at {at:.3f} {inside[one]} runs of {one} have a place of {most}")


def _check_paces(
    verdict: Verdict, begun: list[tuple[float, str, Task]], restarts: Sequence[float], held_up: Sequence[float]
) -> None:
    times: defaultdict[str, list[float]] = defaultdict(list)
    for at, _, task in sorted(begun, key=lambda one: one[0]):
        verdict.paced += 1
        times[limit_key(task.input["seed"])].append(at)
        times[ALL].append(at)
    for key, all_of_key in times.items():
        most = BEGIN_IN_ALL if key == ALL else BEGIN
        for first, beyond in zip(all_of_key, all_of_key[most:], strict=False):
            late = any(first - OUTAGE < one <= beyond for one in restarts)
            late = late or any(first - HELD_UP < one <= beyond for one in held_up)
            if beyond - first < IN_SECONDS and not late:
                verdict.wrong.append(f"{most + 1} runs of {key} began in {beyond - first:.3f} s, from {first:.3f} on")
