"""Running again what has ended: one run, or all that fit a filter."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping
from typing import Any, Final, Literal, TypeAlias, TypeVar, overload

import msgspec

from jetflow import hooks
from jetflow.engine.elders import FAILED
from jetflow.engine.endings import FAILED as NOT_WELL
from jetflow.engine.identity import checked_key, keyed_root_id
from jetflow.engine.tasks import Task
from jetflow.errors import AlreadyRerun, BrokerError, JetflowError
from jetflow.runs.query.stored import check_id
from jetflow.runs.rerunning import asked, chain_of, newest_of, rerun
from jetflow.runs.targets import Target
from jetflow.runs.whens import Begins
from jetflow.step import Step
from jetflow.telemetry.catalogue import TRIGGERED
from jetflow.triggering import TRIGGER_TIMEOUT, Run, Triggering
from jetflow.wire.codec import ANY
from jetflow.wire.records import decode_outcome
from jetflow.workflow import Workflow

O = TypeVar("O")  # noqa: E741 - the output of a workflow

Only: TypeAlias = Literal["failed", "all"]

PAGE: Final = 100
"""Runs that are read for `Rerunning.rerun_many` at a time."""

AT_ONCE: Final = 8
"""Runs of it that are begun at once."""


class Again(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one run of many: the id of its ``rerun``, or the ``error`` for which there is none.

    ``created`` tells whether it is new. In a dry run there is neither.
    """

    run: str
    rerun: str | None = None
    created: bool = False
    error: JetflowError | None = None


class Rerunning(Triggering):
    """The part of a client by which runs are run again."""

    @overload
    async def rerun(
        self, run: Run[O], *, only: Only = FAILED, from_step: Step[..., Any, Any] | str | None = None
    ) -> Run[O]: ...
    @overload
    async def rerun(
        self, run: str, *, only: Only = FAILED, from_step: Step[..., Any, Any] | str | None = None
    ) -> Run[Any]: ...
    async def rerun(
        self, run: Run[Any] | str, *, only: Only = FAILED, from_step: Step[..., Any, Any] | str | None = None
    ) -> Run[Any]:
        """Run one that has ended once more: as a new run, with the same input, of the newest version of its workflow.

        With ``only="failed"`` it takes over what has succeeded: steps, and children, are not run again; those that have
        failed, or were cancelled, or never came to it, are, and joins are made of both. What a step has recorded
        (`Context.once`), and when its sleeps end, stays. ``from_step`` runs a step and all behind it anew, whatever
        came of them, and the rest as before; ``only="all"`` takes over nothing. The old run is left as it is, and each
        names the other. A child that is run again becomes a root run: the join that it was in is over.

        Reruns make a chain: the same call again finds the rerun that it has made (``created`` is false then).

        Raises:
            UnknownRun: no run with this id is stored.
            RunNotEnded: it goes on, or has not begun.
            NothingToRerun: it has succeeded, and only what has failed is asked for.
            AlreadyRerun: it was run again in another way, or its rerun was: that one is to be run again.
            InputLost: what was its input is not stored any more.
            RecentlyDeleted: it was deleted, or its rerun was.
            InvalidInput: there is no such step.
            UnknownWorkflow: nobody declares its workflow any more.
            BrokerTimeout, PermissionDenied: the broker did not take it.
        """
        run_id = run if isinstance(run, str) else run.id
        check_id(run_id)
        step = from_step.name if isinstance(from_step, Step) else from_step
        what = asked(only, step)
        session = self._session.usable()
        with hooks.triggering("rerun") as opened:
            task, target, created = await rerun(session, run_id, what, trace=opened.trace, timeout=TRIGGER_TIMEOUT)
            opened.children = 1
        if created and hooks.meters:
            hooks.add(TRIGGERED, 1, {"workflow": target.workflow})
        known = msgspec.structs.replace(task, input=b"")
        return (
            Run(session, task.run, ANY, known, created=created)
            if isinstance(run, str)
            else run.like(known, created=created)
        )

    async def _started(self, target: Target, task: Task, planned: Begins) -> Run[Any]:
        """See `Triggering`. A run of a key that has failed is run again, where that is asked for."""
        run = await super()._started(target, task, planned)
        while planned.reruns and run.created is False:
            session = self._session
            newest = await newest_of(session, run.id)
            stored = await session.store.leader_last(session.names.records_stream, session.names.run_by_id(newest))
            known = msgspec.structs.replace(task, run=newest, root=newest, input=b"")
            if stored is None or decode_outcome(stored.body).status not in NOT_WELL:
                return run.like(known, created=False)
            with contextlib.suppress(AlreadyRerun):
                return await self.rerun(run.like(known, created=False))
        return run

    async def newest(self, run: Run[Any] | str) -> Run[Any]:
        """Return the newest run of the chain of reruns that a run is in: itself, if it was never run again.

        Raises:
            UnknownRun: no run with this id is stored.
        """
        run_id = run if isinstance(run, str) else run.id
        check_id(run_id)
        return Run(self._session, await newest_of(self._session.usable(), run_id), ANY)

    async def newest_of(self, workflow: Workflow[Any, O] | str, key: str) -> Run[O]:
        """Return the run that a key names, or the newest of its reruns.

        Raises:
            UnknownRun: there is none.
        """
        name = workflow if isinstance(workflow, str) else workflow.name
        first = keyed_root_id(name, checked_key("a run", key))
        codec = ANY if isinstance(workflow, str) else workflow.output
        return Run(self._session, await newest_of(self._session.usable(), first), codec)

    async def chain(self, run_id: str) -> list[str]:
        """Return the ids of the chain of reruns that a run is in, the first one first.

        Raises:
            UnknownRun: no run with this id is stored.
        """
        check_id(run_id)
        return await chain_of(self._session.usable(), run_id)

    async def rerun_many(
        self,
        *,
        only: Only = FAILED,
        from_step: Step[..., Any, Any] | str | None = None,
        dry_run: bool = False,
        workflow: str | None = None,
        status: str | None = "failed",
        since: float | None = None,
        until: float | None = None,
        key: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> AsyncGenerator[Again]:
        """Run again all root runs that fit a filter, as of `Client.runs`, and yield what became of each.

        They are found first, and runs that come later are not touched; of a chain only the newest is run again. To
        abort is to break out of the loop: what was begun goes on. With ``dry_run`` nothing is begun. Calling it again
        begins nothing twice.

        Raises:
            InvalidQuery: the filter makes no sense.
            BrokerTimeout: the broker does not answer.
        """
        step = from_step.name if isinstance(from_step, Step) else from_step
        asked(only, step)
        found: list[str] = []
        after: str | None = None
        while True:
            page = await self.runs(
                workflow=workflow,
                status=status,
                since=since,
                until=until,
                key=key,
                metadata=metadata,
                after=after,
                limit=PAGE,
            )
            found += [row.id for row in page.items]
            after = page.next
            if after is None:
                break
        for at in range(0, len(found), AT_ONCE):
            ids = found[at : at + AT_ONCE]
            if dry_run:
                many = [Again(run=run_id) for run_id in ids]
            else:
                many = await asyncio.gather(*(self._one_of_many(run_id, only, step) for run_id in ids))
            for one in many:
                yield one

    async def _one_of_many(self, run_id: str, only: Only, step: str | None) -> Again:
        try:
            again = await self.rerun(run_id, only=only, from_step=step)
        except BrokerError:
            raise
        except JetflowError as error:
            newest = error.newest if isinstance(error, AlreadyRerun) else None
            return Again(run=run_id, rerun=newest, error=error)
        return Again(run=run_id, rerun=again.id, created=bool(again.created))
