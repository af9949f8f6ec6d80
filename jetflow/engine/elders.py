"""Which runs a rerun is made of: their ids, how headers tell them, and of which of them a step may adopt."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from jetflow.engine.graph import Graph
from jetflow.engine.identity import cut_hash
from jetflow.engine.tasks import NONE, Outcome, Task

MOST_ELDERS: Final = 8
"""Elders that a run looks at: the run that it was made of, and those that that one was made of."""

FAILED: Final = "failed"
ALL: Final = "all"
FROM: Final = "from-"

_ELDER: Final = re.compile(r"([0-9a-f]{32})\.([0-9a-f]{32})")
_RERUN: Final = re.compile(r"([0-9a-f]{32})\.([1-9][0-9]{0,8})\.(failed|all|from-[A-Za-z0-9][A-Za-z0-9_-]{0,63})")


class Elder(msgspec.Struct, frozen=True, gc=False):
    """An ended run, and the root run of its tree, of which outcomes may be adopted."""

    root: str
    run: str

    def __str__(self) -> str:
        return f"{self.root}.{self.run}"


class Rerun(msgspec.Struct, frozen=True, gc=False):
    """Which rerun a root run is: the ``number``-th, from 1, of the run ``origin``, of ``only`` what.

    ``only`` is ``failed``, ``all``, or ``from-`` and the name of a step.
    """

    origin: str
    number: int
    only: str

    def __str__(self) -> str:
        return f"{self.origin}.{self.number}.{self.only}"

    @property
    def step(self) -> str | None:
        """The step that is run again with all behind it, whatever they came to."""
        return self.only.removeprefix(FROM) if self.only.startswith(FROM) else None

    def run(self, workflow: str) -> str:
        """Return the id of the run that this rerun is."""
        return rerun_id(workflow, self.origin, self.number)

    def elder(self, workflow: str) -> str:
        """Return the id of the run that it was made of."""
        return self.origin if self.number == 1 else rerun_id(workflow, self.origin, self.number - 1)


def rerun_id(workflow: str, origin: str, number: int) -> str:
    """Return the id of the ``number``-th rerun of a run."""
    return cut_hash(f"{NONE}\n{workflow}\nrerun\n{origin}\n{number}".encode()).hex()


def twin_id(run: str, step: str, elder: str) -> str:
    """Return the id under which a run keeps a child of its elder, of a step that it has adopted as a whole.

    Nobody spawns it: what would be its key is not known there.
    """
    return cut_hash(f"{run}\n{step}\nadopted\n{elder}".encode()).hex()


def read_elders(text: str | None) -> tuple[Elder, ...]:
    """Return the elders that a header tells, the newest first.

    Raises:
        ValueError: it tells none, or too many.
    """
    if text is None:
        return ()
    found = [_ELDER.fullmatch(one) for one in text.split(",")]
    elders = tuple(Elder(*one.groups()) for one in found if one is not None)
    if len(elders) < len(found) or len(elders) > MOST_ELDERS:
        raise ValueError(f"{text[:200]!r} names no elders")
    return elders


def read_rerun(text: str | None) -> Rerun | None:
    """Return which rerun a header tells.

    Raises:
        ValueError: it tells none.
    """
    if text is None:
        return None
    found = _RERUN.fullmatch(text)
    if found is None:
        raise ValueError(f"{text[:200]!r} is no rerun")
    return Rerun(found[1], int(found[2]), found[3])


def elders_of(task: Task, graph: Graph) -> tuple[Elder, ...]:
    """Return the elders of which a step may adopt: its end, its children, and what it has recorded once.

    None for the steps that run when their run has ended: that is another end. None for a step that is to be run
    again, or comes after it.
    """
    if task.elder is None or task.step in graph.sequels:
        return ()
    rerun = read_rerun(task.rerun)
    again = None if rerun is None else rerun.step
    if again is not None and (again == task.step or again in graph.ancestors.get(task.step, ())):
        return ()
    return read_elders(task.elder)


def next_elders(elder: Elder, only: str, before: str | None) -> str:
    """Return the elders of a rerun of ``elder``: it, and its own ones, if it was to adopt all of theirs.

    So what a rerun did not come to before it was ended is still found. ``only`` is what that one was made for, and
    ``before`` are its elders as they stand in its tasks.
    """
    older = read_elders(before) if only == FAILED else ()
    return ",".join(str(one) for one in (elder, *older)[:MOST_ELDERS])


def adopted(outcome: Outcome, subject: str) -> Outcome:
    """Return an outcome as it is adopted from a subject. What was adopted there as well is named as it was there."""
    return msgspec.structs.replace(outcome, adopted=outcome.adopted or subject)
