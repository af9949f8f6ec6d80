"""Filters of those who look at a namespace: many messages of one kind, of whom only one fact is asked.

`Subjects` has the names that runs are made of; these are combinations of the same tokens for lists and counts.
"""

from __future__ import annotations

from jetflow.engine.tasks import NONE
from jetflow.wire.subjects import Subjects

ANY = "*"
"""Stands for any token."""


def matches(subject: str, wanted: str) -> bool:
    """Tell whether a subject is one of a filter whose wildcards each stand for one token."""
    tokens, names = wanted.split("."), subject.split(".")
    return len(tokens) == len(names) and all(token in (ANY, name) for token, name in zip(tokens, names, strict=True))


class Filters:
    """The filters of one namespace. A token that is not given stands for any."""

    def __init__(self, names: Subjects) -> None:
        self._prefix = names.prefix

    def first_tasks(self, root: str = ANY, parent: str = ANY, *, workflow: str = ANY, step: str = ANY) -> str:
        """One message for each run that one run has spawned: ``step`` is the first of ``workflow``."""
        return f"{self._prefix}.task.{workflow}.{step}.{root}.{parent}.*.0"

    def first_tasks_of_roots(self, *, workflow: str = ANY, step: str = ANY) -> str:
        """One message for each root run: ``step`` is the first of ``workflow``."""
        return self.first_tasks(parent=NONE, workflow=workflow, step=step)

    def ends(self, root: str = ANY, parent: str = ANY, *, step: str = ANY) -> str:
        """How the children of a run have ended, or those of one step of it."""
        return f"{self._prefix}.run.{root}.{parent}.{step}.*"

    def marks(
        self, root: str = ANY, parent: str = ANY, *, step: str = ANY, status: str = ANY, workflow: str = ANY
    ) -> str:
        """The marks of children of a run that ended other than well."""
        return f"{self._prefix}.mark.{root}.{parent}.{step}.{status}.{workflow}.*"

    def changes_of_run(self, root: str, run: str) -> list[str]:
        """What is stored of a run and its children while it goes on, in the stream of records."""
        prefix = self._prefix
        return [
            f"{prefix}.run.{root}.*.*.{run}",
            f"{prefix}.mark.{root}.{run}.>",
            f"{prefix}.run.{root}.{run}.>",
            f"{prefix}.step.{root}.{run}.*",
            f"{prefix}.join.{root}.{run}.*.*",
            f"{prefix}.try.{root}.{run}.>",
        ]

    def records_of_run(self, root: str, run: str) -> list[str]:
        """What is stored of a run itself, in the stream of records."""
        prefix = self._prefix
        return [
            f"{prefix}.run.{root}.*.*.{run}",
            f"{prefix}.mark.{root}.*.*.*.*.{run}",
            f"{prefix}.step.{root}.{run}.*",
            f"{prefix}.join.{root}.{run}.*.*",
            f"{prefix}.try.{root}.{run}.>",
            f"{prefix}.once.{root}.{run}.>",
        ]

    def changes_of_roots(self) -> list[str]:
        """How root runs end, in the stream of records."""
        return [f"{self._prefix}.run.*.-.-.*"]

    def ask_workers(self) -> str:
        """Asks every worker who it is and what it does."""
        return f"{self._prefix}.ask.workers"

    def drain(self) -> str:
        """Tells the worker that the body names to take no more tasks."""
        return f"{self._prefix}.tell.drain"

    def ask_late(self, workflow: str) -> str:
        """Asks who runs some children of a workflow for how long, and to make twins of those that are late."""
        return f"{self._prefix}.ask.late.{workflow}"

    def ask_run(self, run: str) -> str:
        """Asks who holds a step of one run what it does."""
        return f"{self._prefix}.ask.run.{run}"
