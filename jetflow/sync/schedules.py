"""Schedules for programs without an event loop. Every call is one of `jetflow.scheduling.Schedules`."""

from __future__ import annotations

import builtins
from datetime import datetime
from typing import Any, Unpack

import jetflow.client
from jetflow.engine.planning import Plan
from jetflow.scheduling import UNSET, ScheduleRow, ScheduleTicks
from jetflow.sync.portal import Portal
from jetflow.sync.run import Run
from jetflow.workflow import Workflow


class Schedules:
    """What may be done with the schedules of a namespace; see `jetflow.scheduling.Schedules`."""

    def __init__(self, portal: Portal[jetflow.client.Client]) -> None:
        self._portal = portal

    def create(
        self, name: str, workflow: Workflow[Any, Any] | str, input: Any = None, **plan: Unpack[Plan]
    ) -> ScheduleRow:
        """Have a workflow run when a plan says so, with this input.

        Raises:
            ScheduleExists: there is one of this name.
            InvalidInput: the plan makes no sense, or the input does not fit.
            UnknownWorkflow: nobody has declared a workflow of this name.
        """
        return self._portal.call(lambda here: here.schedules.create(name, workflow, input, **plan))

    def get(self, name: str) -> ScheduleRow:
        """Return one schedule.

        Raises:
            UnknownSchedule: there is none of this name.
        """
        return self._portal.call(lambda here: here.schedules.get(name))

    def list(self, workflow: str | None = None) -> builtins.list[ScheduleRow]:
        """Return all schedules, or those of one workflow, by name."""
        return self._portal.call(lambda here: here.schedules.list(workflow))

    def ticks(self, name: str | None = None, *, last: int = 5, upcoming: int = 5) -> builtins.list[ScheduleTicks]:
        """Return all schedules by name, or one, with what their last ticks have led to, and when they are due next.

        Raises:
            UnknownSchedule: there is none of this name.
            InvalidQuery: more than a hundred ticks of each are asked for, or fewer than none.
        """
        return self._portal.call(lambda here: here.schedules.ticks(name, last=last, upcoming=upcoming))

    def update(self, name: str, *, input: Any = UNSET, **plan: Unpack[Plan]) -> ScheduleRow:
        """Change what a schedule says: what is given. New times take the place of all old ones.

        Raises:
            UnknownSchedule: there is none of this name.
            InvalidInput: the plan makes no sense, or the input does not fit.
        """
        return self._portal.call(lambda here: here.schedules.update(name, input=input, **plan))

    def pause(self, name: str) -> ScheduleRow:
        """Start nothing more by a schedule until it is resumed. Ticks that pass meanwhile are not made up for.

        Raises:
            UnknownSchedule: there is none of this name.
        """
        return self._portal.call(lambda here: here.schedules.pause(name))

    def resume(self, name: str) -> ScheduleRow:
        """Let a schedule that was paused go on, with the next tick from now on.

        Raises:
            UnknownSchedule: there is none of this name.
        """
        return self._portal.call(lambda here: here.schedules.resume(name))

    def delete(self, name: str) -> None:
        """Remove a schedule. What it has started goes on.

        Raises:
            UnknownSchedule: there is none of this name.
        """
        self._portal.call(lambda here: here.schedules.delete(name))

    def trigger(self, name: str) -> Run[Any]:
        """Start a run as a tick of this moment would.

        Raises:
            UnknownSchedule: there is none of this name.
            UnknownWorkflow, InvalidInput: no run can be started of it.
        """
        return Run(self._portal, self._portal.call(lambda here: here.schedules.trigger(name)))

    def backfill(self, name: str, since: datetime, until: datetime) -> builtins.list[Run[Any]]:
        """Start the runs of all ticks from ``since`` to ``until``, and return them.

        Raises:
            UnknownSchedule: there is none of this name.
            InvalidInput: there are too many ticks, or it ends before it begins.
            UnknownWorkflow: no run can be started of it.
        """
        runs = self._portal.call(lambda here: here.schedules.backfill(name, since, until))
        return [Run(self._portal, run) for run in runs]

    def next(self, name: str, count: int = 10) -> builtins.list[datetime]:
        """Return the next ticks of a schedule, ``count`` at most, in UTC.

        Raises:
            UnknownSchedule: there is none of this name.
        """
        return self._portal.call(lambda here: here.schedules.next(name, count))
