"""Whether runs are over: they have ended, or are covered by the mark of who was cancelled.

All that ask in the same pass of the event loop share two readings, where whoever answers is the streams' leader: runs
are parked by hundreds where a limit has a backlog.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from jetflow.broker.session import Session
from jetflow.broker.together import Together
from jetflow.engine.tasks import NONE, Task
from jetflow.runs.entries import Entries
from jetflow.runs.marks import ALONE, REST, rest_but

AT_ONCE: Final = 200
"""Runs of which one reading tells."""


class _Question(NamedTuple):
    """What tells that a run is over: its outcome, and the marks of itself, its parent and its root, as subjects.

    ``step`` is that of the parent that has spawned it.
    """

    ended: str
    run: str
    parent: str
    step: str
    root: str

    @property
    def marks(self) -> set[str]:
        return {mark for mark in (self.run, self.parent, self.root) if mark}


class Over:
    """Tells which runs are over."""

    def __init__(self, session: Session, entries: Entries) -> None:
        self._store = session.store
        self._names = session.names
        self._entries = entries
        self._together = Together(self._answers, AT_ONCE)

    async def is_over(self, task: Task) -> bool:
        """Tell whether a run has ended, or is cancelled with its parent or its tree."""
        names = self._names
        question = _Question(
            names.run_of_any_step(task),
            names.cancelled(task.root, task.run),
            "" if task.parent == NONE else names.cancelled(task.root, task.parent),
            task.parent_step,
            names.cancelled(task.root, task.root),
        )
        return await asyncio.shield(self._together.ask(question))

    async def _answers(self, questions: Sequence[_Question]) -> Mapping[_Question, bool]:
        marks = {mark for question in questions for mark in question.marks}
        ended, found = await asyncio.gather(self._ended(questions), self._marks(marks))
        return {one: one in ended or _is_covered(one, found) for one in questions}

    async def _ended(self, questions: Sequence[_Question]) -> set[_Question]:
        stream = self._names.records_stream
        if await self._entries.is_alone(stream):
            found = await self._store.few_subjects(stream, [one.ended for one in questions])
            if found is not None:
                there = {_without_step(subject) for _, subject in found}
                return {one for one in questions if _without_step(one.ended) in there}
        stored = await asyncio.gather(*(self._store.leader_last(stream, one.ended) for one in questions))
        return {one for one, outcome in zip(questions, stored, strict=True) if outcome is not None}

    async def _marks(self, subjects: Iterable[str]) -> dict[str, bytes]:
        stream, subjects = self._names.tasks_stream, list(subjects)
        if await self._entries.is_alone(stream):
            few = await self._store.few(stream, subjects)
            if few is not None and not few.left:
                return {mark.subject: mark.body for mark in few.found}
        stored = await asyncio.gather(*(self._store.leader_last(stream, subject) for subject in subjects))
        return {mark.subject: mark.body for mark in stored if mark is not None}


def _without_step(ended: str) -> tuple[str, str]:
    """Return of which run an outcome is, whichever step of its parent has spawned it."""
    of_parent, _, run = ended.rsplit(".", 2)
    return of_parent, run


def _is_covered(question: _Question, marks: Mapping[str, bytes]) -> bool:
    if question.run in marks:
        return True
    return _covers(marks.get(question.parent), question.step) or _covers(marks.get(question.root), None)


def _covers(mark: bytes | None, step: str | None) -> bool:
    """Tell whether the mark of a parent or a root says that what the ``step`` has spawned is cancelled."""
    if mark is None or mark == ALONE:
        return False
    return not mark.startswith(REST) or (step is not None and mark != rest_but(step))
