"""Triggering runs: at once or later, one or many; and the runs that come of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Mapping
from datetime import datetime, timedelta
from time import time
from typing import Any, Final, Generic, Literal, TypeAlias, TypeVar, Unpack, overload

from msgspec.structs import replace

from jetflow import hooks
from jetflow.broker.session import Session
from jetflow.children import errors_of
from jetflow.context import check_bulk
from jetflow.engine.holding import Hold
from jetflow.engine.levels import checked_level
from jetflow.engine.sleeping import seconds_of, timestamp_of
from jetflow.engine.tasks import Status, Task
from jetflow.errors import InvalidInput, RunFailed, UnknownRun
from jetflow.runs.delays import DelayedRun, debounce_root, is_delayed, read_delayed, reschedule, trigger_later
from jetflow.runs.describing import read_trace
from jetflow.runs.following import Following
from jetflow.runs.hearing import Hearing
from jetflow.runs.holding import start_held
from jetflow.runs.located import locate
from jetflow.runs.publishing import Publishing
from jetflow.runs.query.queries import Queries
from jetflow.runs.query.stored import check_id, check_names
from jetflow.runs.targets import Target, resolve, root_task, trigger_root
from jetflow.runs.values import with_output
from jetflow.runs.whens import Begins, Debounce, When, begins
from jetflow.telemetry.catalogue import TRIGGERED
from jetflow.wire.codec import Codec
from jetflow.wire.events import PublishedEvent
from jetflow.wire.metadata import written_metadata
from jetflow.workflow import Workflow

I = TypeVar("I")  # noqa: E741 - the input of a workflow, as O is its output
O = TypeVar("O")  # noqa: E741
O_co = TypeVar("O_co", covariant=True)

RunStatus: TypeAlias = Literal["scheduled", "queued", "running"] | Status
"""Where a run stands; ``scheduled`` until it begins, if it begins later."""

TRIGGER_TIMEOUT = 30.0
"""Seconds for which a trigger waits for the broker."""

AT_ONCE: Final = 500
"""Runs of `Client.trigger_many` that are on their way to the broker at a time."""

BYTES_AT_ONCE: Final = 4 * 1024 * 1024
"""Bytes of their inputs from which on it is fewer."""


class Run(Hearing, Generic[O_co]):
    """A root run, or any run by its id.

    ``created`` tells whether the trigger that returned it has made it: one with a key may have found it there. (It is
    false, too, if the broker's answer was lost, and the trigger was sent again and recognised.) It is None for a run
    that was not triggered here, and where only a worker can tell.
    """

    def __init__(
        self, session: Session, id: str, codec: Codec[Any], task: Task | None = None, *, created: bool | None = None
    ) -> None:
        super().__init__(session, id, task)
        self._codec = codec
        self.created: bool | None = created

    def __repr__(self) -> str:
        return f"<Run {self.id}>"

    def through(self, client: Triggering) -> Run[O_co]:
        """Return the same run, followed through another client."""
        return Run(client.session, self.id, self._codec, self._task, created=self.created)

    def like(self, task: Task, *, created: bool) -> Run[O_co]:
        """Return another run whose output is of the same type."""
        return Run(self._session, task.run, self._codec, task, created=created)

    async def signal(self, name: str, payload: Any = None, *, id: str | None = None) -> PublishedEvent:
        """Send a signal to the run, for a step that waits for it: see `Client.signal`."""
        return await Publishing(self._session).signal(self.id, name, payload, id=id)

    async def status(self) -> RunStatus:
        """Return where the run stands.

        Raises:
            UnknownRun: no run with this id is stored.
        """
        session = self._session.usable()
        try:
            located = await locate(session, self.id)
        except UnknownRun:
            if await is_delayed(session, self.id):
                return "scheduled"
            raise
        return (await read_trace(session, located, values=False)).status

    async def result(self, timeout: float | None = None) -> O_co:
        """Wait for the run to end, and return its output.

        ``timeout`` is seconds: None waits for ever, 0 returns what is there. An outage of the broker is waited through.
        What waits for a worker that is not there is said once in the log, after five seconds.

        Raises:
            UnknownRun: no run with this id is stored, or it was deleted meanwhile.
            RunFailed: the run ended without an output: a group of the errors of its steps.
            InvalidOutput: its output does not fit the type that is asked for.
            ResultTimeout: it has not ended in time; it goes on.
            BrokerTimeout: the broker does not answer.
        """
        root, outcome = await Following(self._session.usable(), self.id, self._task).outcome(timeout)
        outcome = await with_output(self._session, root, outcome)
        if outcome.status == "succeeded":
            return self._codec.decode_output(outcome.output)
        raise RunFailed(self.id, outcome.workflow, status=outcome.status, errors=errors_of(outcome))


class Triggering(Queries):
    """The part of a client by which runs begin."""

    @property
    def session(self) -> Session:
        """Its way to the broker; not part of what stays the same between versions."""
        return self._session

    @overload
    async def trigger(
        self,
        workflow: Workflow[I, O],
        input: I,
        *,
        key: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        **when: Unpack[When],
    ) -> Run[O]: ...
    @overload
    async def trigger(
        self,
        workflow: Workflow[None, O],
        input: None = None,
        *,
        key: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        **when: Unpack[When],
    ) -> Run[O]: ...
    @overload
    async def trigger(
        self,
        workflow: str,
        input: Any = None,
        *,
        key: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        **when: Unpack[When],
    ) -> Run[Any]: ...
    async def trigger(
        self,
        workflow: Workflow[Any, Any] | str,
        input: Any = None,
        *,
        key: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        **when: Unpack[When],
    ) -> Run[Any]:
        """Start a root run. The same key of the same workflow is the same run.

        ``metadata`` is JSON; every descendant of the run sees it as ``ctx.metadata``. For a user who may not store
        tasks, but ask for runs (``jf.<namespace>.in.trigger.*``), a worker starts it, and alone knows of key conflicts.

        It begins at once, or ``at=`` a time, after a ``delay=``, or when it is asked for no more (``debounce=``): see
        `When`. Until then it is one of `delayed`, and can be cancelled as if it had not been. It begins with the newest
        version of its workflow at that time.

        Raises:
            PermissionDenied: this user may do neither.
            InvalidInput: the input, or the metadata, does not fit.
            UnknownWorkflow: nobody has declared a workflow of this name.
            UnknownLevel: the workflow does not declare the level.
            KeyConflict: the key was used with another input.
            PayloadTooLarge: the input is larger than the server accepts.
            BrokerTimeout: the broker did not take it in time.
        """
        planned = begins(when, key)
        target = await resolve(self._session.usable(), workflow, timeout=TRIGGER_TIMEOUT)
        body = target.written(input)
        with hooks.triggering(target.workflow) as opened:
            opened.children = 1
            task = root_task(target, body, key=key, metadata=_encoded(metadata), trace=opened.trace)
            return await self._started(target, task, planned)

    async def _started(self, target: Target, task: Task, planned: Begins) -> Run[Any]:
        if planned.level is not None:
            task = replace(task, level=checked_level(target.workflow, target.levels, planned.level))
        if planned.debounce is not None:
            return await self._debounced(target, task, planned.debounce)
        if planned.hold is not None:
            return await self._held(target, task, planned.hold)
        if planned.at is not None and planned.at > time():
            created = await trigger_later(self._session, task, planned.at, timeout=TRIGGER_TIMEOUT)
        else:
            created = await trigger_root(self._session, task, timeout=TRIGGER_TIMEOUT)
        if hooks.meters and (created or task.key is None):
            hooks.add(TRIGGERED, 1, {"workflow": target.workflow})
        known = replace(task, input=b"")  # whoever follows it needs no input
        return Run(self._session, task.run, target.output, known, created=True if task.key is None else created)

    async def _held(self, target: Target, task: Task, hold: Hold) -> Run[Any]:
        """Start a run, unless its key stands for another one at this time."""
        run, created = await start_held(self._session, task, task.key or "", hold, timeout=TRIGGER_TIMEOUT)
        if hooks.meters and created:
            hooks.add(TRIGGERED, 1, {"workflow": target.workflow})
        known = replace(task, run=run, root=run, input=b"")
        return Run(self._session, run, target.output, known, created=created)

    async def _debounced(self, target: Target, task: Task, by: Debounce) -> Run[Any]:
        run, _ = await debounce_root(
            self._session, task, by.key, seconds=by.seconds, at_most=by.at_most, timeout=TRIGGER_TIMEOUT
        )
        known = replace(task, run=run, root=run, input=b"")
        return Run(self._session, run, target.output, known, created=run == task.run)

    async def delayed(self, workflow: str | None = None) -> list[DelayedRun]:
        """Return the runs that have been asked for and have not begun, of one workflow or all; the next one first."""
        check_names(workflow=workflow)
        return await read_delayed(self._session.usable(), workflow)

    async def reschedule(
        self, run_id: str, *, at: datetime | None = None, delay: float | timedelta | None = None
    ) -> None:
        """Have a run that has not begun begin ``at`` another time, or after a ``delay`` from now on.

        Raises:
            UnknownRun: there is no run of this id.
            RunBegun: it has begun.
            InvalidInput: neither or both are given, or no time.
        """
        check_id(run_id)
        if (at is None) == (delay is None):
            raise InvalidInput("reschedule() takes at= a time, or a delay=")
        later = time() if delay is None else time() + seconds_of(delay, "the delay of a run")
        when = later if at is None else timestamp_of(at, "reschedule(at=...)")
        await reschedule(self._session.usable(), run_id, when, timeout=TRIGGER_TIMEOUT)

    @overload
    async def trigger_many(
        self,
        workflow: Workflow[I, O],
        inputs: Iterable[I] | AsyncIterable[I],
        *,
        key: Callable[[I], str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        **when: Unpack[When],
    ) -> list[Run[O]]: ...
    @overload
    async def trigger_many(
        self,
        workflow: str,
        inputs: Iterable[Any] | AsyncIterable[Any],
        *,
        key: Callable[[Any], str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        **when: Unpack[When],
    ) -> list[Run[Any]]: ...
    async def trigger_many(
        self,
        workflow: Workflow[Any, Any] | str,
        inputs: Iterable[Any] | AsyncIterable[Any],
        *,
        key: Callable[[Any], str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        **when: Unpack[When],
    ) -> list[Run[Any]]:
        """Start a root run for each input, many at once, and return them in the order of the inputs.

        ``key`` is a function of the input. These are runs of their own, with nothing to join them: for that, have one
        run spawn children. An error ends it, and what was triggered before stays: with keys, the same call once more
        finds those runs, and triggers the rest. It raises what `trigger` raises.
        """
        planned = begins(when, key)
        if planned.debounce is not None:
            raise InvalidInput("runs that are triggered together are not debounced: trigger one")
        check_bulk(inputs, key, call="trigger_many", for_one="trigger")
        target = await resolve(self._session.usable(), workflow, timeout=TRIGGER_TIMEOUT)
        told, runs, batch, size = _encoded(metadata), list[Run[Any]](), list[Task](), 0
        with hooks.triggering(target.workflow) as opened:
            async for value in _each(inputs):
                body, own = target.written(value), None if key is None else key(value)
                batch.append(root_task(target, body, key=own, metadata=told, trace=opened.trace))
                size += len(body)
                if len(batch) == AT_ONCE or size >= BYTES_AT_ONCE:
                    runs += await self._all_started(target, batch, planned)
                    batch, size = [], 0
            runs += await self._all_started(target, batch, planned)
            opened.children = len(runs)
        return runs

    async def _all_started(self, target: Target, batch: Iterable[Task], planned: Begins) -> list[Run[Any]]:
        """Start runs, and wait for all of them, also where one fails."""
        started = await asyncio.gather(
            *(self._started(target, task, planned) for task in batch), return_exceptions=True
        )
        runs: list[Run[Any]] = []
        for one in started:
            if isinstance(one, BaseException):
                raise one
            runs.append(one)
        return runs


async def _each(inputs: Iterable[Any] | AsyncIterable[Any]) -> AsyncGenerator[Any]:
    if isinstance(inputs, AsyncIterable):
        async for value in inputs:
            yield value
    else:
        for value in inputs:
            yield value


def _encoded(metadata: Mapping[str, Any] | None) -> bytes | None:
    return None if metadata is None else written_metadata(metadata)
