"""What may be asked about runs, for programs without an event loop: `jetflow.runs.query.queries`, without ``await``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any, Literal

from jetflow import client
from jetflow.broker.server_facts import ServerFacts
from jetflow.runs.query.checks import Diagnosis
from jetflow.runs.query.event_lists import EventPage
from jetflow.runs.query.lineage import Lineage
from jetflow.runs.query.messages import Messages
from jetflow.runs.query.payloads import Payload
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
    Tree,
    WorkerRow,
    WorkflowSummary,
)
from jetflow.runs.trace import RunTrace
from jetflow.sync.portal import Portal
from jetflow.wire.records import Declaration


class Questions:
    """What may be asked about runs, queues and workers. Each method is told of at its namesake of `jetflow.Client`."""

    def __init__(self, portal: Portal[client.Client]) -> None:
        self._portal = portal

    # --- what is stored

    def describe(self, run_id: str, *, children: int = 100, after: str | None = None, values: bool = True) -> RunTrace:
        """Return the state of a run: its steps, attempts, and a page of its children with totals by status."""
        return self._portal.call(lambda here: here.describe(run_id, children=children, after=after, values=values))

    def input(self, run_id: str) -> Payload | None:
        """Return the input of a run, as it is stored; None where its task is gone."""
        return self._portal.call(lambda here: here.input(run_id))

    def output(self, run_id: str, step: str | None = None) -> Payload | None:
        """Return the output of a run, or of one step, as it is stored; None where it has none, or has none yet."""
        return self._portal.call(lambda here: here.output(run_id, step))

    def once(self, run_id: str, step: str, name: str) -> Payload | None:
        """Return a value that a step has recorded with ``ctx.once``; None where it has not."""
        return self._portal.call(lambda here: here.once(run_id, step, name))

    def published(
        self, topic: str = ">", *, key: str | None = None, before: int | None = None, limit: int = 50
    ) -> EventPage:
        """Return stored events of a topic, or of a pattern, the newest first, each with the runs that it has started.

        ``before`` is the ``next`` of the page before.

        Raises:
            InvalidQuery: there is no such topic, or the limit makes no sense.
        """
        return self._portal.call(lambda here: here.published(topic, key=key, before=before, limit=limit))

    def newest_event(self) -> int:
        """Return the sequence of the newest event; 0 where there never was one."""
        return self._portal.call(lambda here: here.newest_event())

    def lineage(self, run_id: str) -> Lineage:
        """Return the runs above a run up to its root, and its place among the children of its parent."""
        return self._portal.call(lambda here: here.lineage(run_id))

    def messages(self, run_id: str) -> Messages:
        """Return what is stored of a run in the streams of tasks and records, message by message."""
        return self._portal.call(lambda here: here.messages(run_id))

    def tree(self, run_id: str, *, depth: int = 3) -> Tree:
        """Return what a run has spawned, and what that has spawned, rolled up by step and workflow."""
        return self._portal.call(lambda here: here.tree(run_id, depth=depth))

    def summary(self, *, since: float) -> list[WorkflowSummary]:
        """Return what has become of the root runs that were asked for since a time, by workflow, with durations."""
        return self._portal.call(lambda here: here.summary(since=since))

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
        within: float | None = None,
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
                within=within,
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
        search: str | None = None,
        sort: str | None = None,
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
                search=search,
                sort=sort,
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

    @property
    def server(self) -> ServerFacts:
        """The server that this client is connected to, or was last."""
        return self._portal.open().server

    def doctor(self) -> Diagnosis:
        """Return what is stored, and what is worth a look: server, limits, clocks, queues, workers, leftovers."""
        return self._portal.call(lambda here: here.doctor())

    def queues(self) -> list[QueueRow]:
        """Return the queue of each step that a worker has ever pulled."""
        return self._portal.call(lambda here: here.queues())

    def workers(self) -> list[WorkerRow]:
        """Return the workers that answer within a second, with what they run."""
        return self._portal.call(lambda here: here.workers())

    def drain(self, worker: str) -> int:
        """Tell a worker, by its name, to take no more tasks; return how many of that name have heard it."""
        return self._portal.call(lambda here: here.drain(worker))

    def running(self, run_id: str, *, stack: bool = False) -> list[RunningRow]:
        """Return which steps of a run are held by workers at this moment, since when, and by whom."""
        return self._portal.call(lambda here: here.running(run_id, stack=stack))

    def pause(
        self,
        workflow: str,
        step: str | None = None,
        *,
        until: float | None = None,
        schedules: Literal["queue", "drop"] = "queue",
        queue_ttl: float | timedelta | None = None,
    ) -> list[str]:
        """Have the broker give out no tasks of a workflow, or of one step; return which steps it holds."""
        return self._portal.call(
            lambda here: here.pause(workflow, step, until=until, schedules=schedules, queue_ttl=queue_ttl)
        )

    def resume(self, workflow: str, step: str | None = None) -> list[str]:
        """Have the broker give out tasks again, of all steps or of one; return of which steps."""
        return self._portal.call(lambda here: here.resume(workflow, step))
