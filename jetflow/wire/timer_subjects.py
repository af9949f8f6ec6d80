"""The names in the timers stream: timers that are armed, what they become, and the schedules that arm them.

Of what a timer is, its third token tells: ``wake`` a parked turn, ``run`` a run that begins later, ``debounce`` one
that is put off while it is asked for again, ``tick`` the next time of a schedule; ``schedule`` is no timer, but what a
schedule says, and neither is ``key``: for which run a key stands. A ``run`` and a ``debounce`` become the same message.
``expire`` is the next look at a queue that is paused, and ``held`` what is said of that.
"""

from __future__ import annotations

from typing import Final

from jetflow.engine.levels import queue_of
from jetflow.engine.tasks import Task

TASK_TOKENS: Final = 6
"""Tokens that name a task: workflow, step, root, parent, run, turn."""


class TimerSubjects:
    """The names in the timers stream of one namespace."""

    def __init__(self, namespace: str) -> None:
        self.prefix: str = f"jf.{namespace}"
        self.timers_stream: str = f"JF_{namespace}_timers"
        self.due_consumer: str = "due"
        self._task_prefix = f"{self.prefix}.task"
        self._timer = f"{self.prefix}.timer.wake"
        self._due = f"{self.prefix}.due.wake"

    @property
    def all_timers(self) -> tuple[str, str]:
        """What the timers stream holds: timers that are armed, and the messages that they become."""
        return f"{self.prefix}.timer.>", self.all_due

    @property
    def all_due(self) -> str:
        """The messages that timers have become."""
        return f"{self.prefix}.due.>"

    def parse_due(self, subject: str) -> list[str]:
        """Return what stands behind the tokens that all messages of timers have in common."""
        return subject.removeprefix(f"{self.prefix}.due.").split(".")

    # --- parked turns

    def timer_of(self, task: Task) -> str:
        """The timer of a parked turn: the tokens of its task."""
        return f"{self._timer}.{_tokens(task)}"

    def due_of(self, task: Task) -> str:
        """What the timer of a parked turn becomes."""
        return f"{self._due}.{_tokens(task)}"

    def task_of_due(self, subject: str) -> str | None:
        """Return the subject of the task whose timer has become a message; None if it is of no timer that is known."""
        if not subject.startswith(f"{self._due}.") or subject.count(".") != self._due.count(".") + TASK_TOKENS:
            return None
        return f"{self._task_prefix}{subject[len(self._due) :]}"

    def timers_of_step(self, task: Task, step: str) -> str:
        """Every timer of one step of a task's run."""
        return f"{self._timer}.{task.workflow}.{queue_of(task, step)}.{task.root}.*.{task.run}.*"

    def timers_of_run(self, root: str, run: str) -> str:
        """Every timer of one run."""
        return f"{self._timer}.*.*.{root}.*.{run}.*"

    def timers_of_parent(self, root: str, parent: str) -> str:
        """Every timer of every child of one run."""
        return f"{self._timer}.*.*.{root}.{parent}.>"

    def timers_of_tree(self, root: str) -> str:
        """Every timer of one root run and all its descendants."""
        return f"{self._timer}.*.*.{root}.>"

    # --- runs that begin later

    def timer_of_run(self, workflow: str, run: str) -> str:
        """The timer of a root run that begins later. Both may be ``*``."""
        return f"{self.prefix}.timer.run.{workflow}.{run}"

    def timer_of_debounce(self, workflow: str, key: str) -> str:
        """The timer of a root run that is put off while it is asked for again; ``key`` is a hash. Both may be ``*``."""
        return f"{self.prefix}.timer.debounce.{workflow}.{key}"

    def due_run(self, workflow: str, run: str) -> str:
        """What the timer of a root run becomes."""
        return f"{self.prefix}.due.run.{workflow}.{run}"

    def holder_of_key(self, workflow: str, key: str) -> str:
        """For which run a key stands for a while; ``key`` is a hash."""
        return f"{self.prefix}.timer.key.{workflow}.{key}"

    # --- schedules

    def schedule(self, name: str) -> str:
        """What one schedule says; all of them with ``*``."""
        return f"{self.prefix}.timer.schedule.{name}"

    def timer_of_tick(self, schedule: str) -> str:
        """The timer of the next time of a schedule; all of them with ``*``."""
        return f"{self.prefix}.timer.tick.{schedule}"

    def due_tick(self, schedule: str) -> str:
        """What it becomes."""
        return f"{self.prefix}.due.tick.{schedule}"

    # --- queues that are paused

    def held_queue(self, workflow: str, queue: str) -> str:
        """What is said of a paused queue, where what waits there for too long is cancelled. Both may be ``*``."""
        return f"{self.prefix}.timer.held.{workflow}.{queue}"

    def timer_of_expiry(self, workflow: str, queue: str) -> str:
        """The timer of the next look at such a queue."""
        return f"{self.prefix}.timer.expire.{workflow}.{queue}"

    def due_expiry(self, workflow: str, queue: str) -> str:
        """What it becomes."""
        return f"{self.prefix}.due.expire.{workflow}.{queue}"


def _tokens(task: Task) -> str:
    return f"{task.workflow}.{queue_of(task, task.step)}.{task.root}.{task.parent}.{task.run}.{task.turn}"
