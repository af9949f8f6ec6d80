"""What may be asked about runs, for programs without an event loop: `jetflow.runs.query.queries`, without ``await``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from jetflow import client
from jetflow.runs.query.rows import (
    Bucket,
    Change,
    ChildRow,
    ErrorGroups,
    Page,
    QueueRow,
    RunningRow,
    RunRow,
    RunTotals,
    WorkerRow,
)
from jetflow.runs.trace import RunTrace
from jetflow.sync.portal import Portal
from jetflow.wire.records import Declaration


class Questions:
    """What may be asked about runs, queues and workers. Each method is told of at its namesake of `jetflow.Client`."""

    def __init__(self, portal: Portal[client.Client]) -> None:
        self._portal = portal

    # --- what is stored

    def describe(self, run_id: str, *, children: int = 100, after: str | None = None) -> RunTrace:
        """Return the state of a run: its steps, attempts, and a page of its children with totals by status."""
        return self._portal.call(lambda here: here.describe(run_id, children=children, after=after))

    def declarations(self) -> dict[str, Declaration]:
        """Return the newest declaration of each workflow, by name."""
        return self._portal.call(lambda here: here.declarations())

    def declaration(self, workflow: str) -> Declaration:
        """Return the newest declaration of one workflow."""
        return self._portal.call(lambda here: here.declaration(workflow))

    def totals(self, run_id: str) -> RunTotals:
        """Return how many children a run has, by status; in all, by the step that spawned them, and by workflow."""
        return self._portal.call(lambda here: here.totals(run_id))

    def children(
        self,
        run_id: str,
        *,
        step: str | None = None,
        workflow: str | None = None,
        status: str | None = None,
        search: str | None = None,
        sort: str | None = None,
        after: str | None = None,
        offset: int | None = None,
        limit: int = 100,
    ) -> Page[ChildRow]:
        """Return a page of the children of a run."""
        return self._portal.call(
            lambda here: here.children(
                run_id,
                step=step,
                workflow=workflow,
                status=status,
                search=search,
                sort=sort,
                after=after,
                offset=offset,
                limit=limit,
            )
        )

    def runs(
        self,
        *,
        workflow: str | None = None,
        status: str | None = None,
        since: float | None = None,
        until: float | None = None,
        key: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        after: str | None = None,
        limit: int = 50,
    ) -> Page[RunRow]:
        """Return a page of root runs, the newest first; with the ``status`` of an end, those that ended last."""
        return self._portal.call(
            lambda here: here.runs(
                workflow=workflow,
                status=status,
                since=since,
                until=until,
                key=key,
                metadata=metadata,
                after=after,
                limit=limit,
            )
        )

    def errors(
        self,
        run_id: str | None = None,
        *,
        workflow: str | None = None,
        since: float | None = None,
        limit: int = 50,
    ) -> ErrorGroups:
        """Return failures in groups of those that are alike: of the children of one run, or of all runs."""
        return self._portal.call(lambda here: here.errors(run_id, workflow=workflow, since=since, limit=limit))

    def history(
        self, run_id: str | None = None, *, since: float, until: float | None = None, buckets: int = 60
    ) -> list[Bucket]:
        """Return how many root runs, or children of one run, ended in equal parts of a time."""
        return self._portal.call(lambda here: here.history(run_id, since=since, until=until, buckets=buckets))

    def value(self, run_id: str, reference: str) -> Iterator[bytes]:
        """Yield the chunks of a large value of a run."""
        return self._portal.each(lambda here: here.value(run_id, reference))

    # --- what goes on

    def watch(self, run_id: str) -> Iterator[RunTotals]:
        """Yield the totals of a run now, whenever they have changed, and at its end."""
        return self._portal.each(lambda here: here.watch(run_id))

    def follow(self, run_id: str, *, after: int | None = None) -> Iterator[Change]:
        """Yield what is stored of a run and of how its children end, as it is, until the run has ended."""
        return self._portal.each(lambda here: here.follow(run_id, after=after))

    def follow_roots(self) -> Iterator[Change]:
        """Yield new root runs, and the ends of root runs, for ever."""
        return self._portal.each(lambda here: here.follow_roots())

    def queues(self) -> list[QueueRow]:
        """Return the queue of each step that a worker has ever pulled."""
        return self._portal.call(lambda here: here.queues())

    def workers(self) -> list[WorkerRow]:
        """Return the workers that answer within a second, with what they run."""
        return self._portal.call(lambda here: here.workers())

    def running(self, run_id: str, *, stack: bool = False) -> list[RunningRow]:
        """Return which steps of a run are held by workers at this moment, since when, and by whom."""
        return self._portal.call(lambda here: here.running(run_id, stack=stack))

    def pause(self, workflow: str, step: str | None = None, *, until: float | None = None) -> list[str]:
        """Have the broker give out no tasks of a workflow, or of one step; return which steps it holds."""
        return self._portal.call(lambda here: here.pause(workflow, step, until=until))

    def resume(self, workflow: str, step: str | None = None) -> list[str]:
        """Have the broker give out tasks again, of all steps or of one; return of which steps."""
        return self._portal.call(lambda here: here.resume(workflow, step))
