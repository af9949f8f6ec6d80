"""Triggering runs and following them from plain code. Every call is one of `jetflow.Client` on the portal's loop."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, TypeVar, Unpack, overload

import jetflow.client
from jetflow.broker.access import Server
from jetflow.broker.auth import Auth
from jetflow.broker.layout import Difference
from jetflow.broker.topology import Placement
from jetflow.context import check_bulk
from jetflow.engine.policies import JoinPolicy
from jetflow.rerunning import Again, Only
from jetflow.runs.delays import DelayedRun
from jetflow.runs.loosening import LoosenedJoin
from jetflow.runs.storage import Storage
from jetflow.runs.whens import When
from jetflow.step import Step
from jetflow.sync.limits import Limits
from jetflow.sync.portal import Portal
from jetflow.sync.questions import Questions
from jetflow.sync.run import Run
from jetflow.sync.schedules import Schedules
from jetflow.wire.events import PublishedEvent
from jetflow.workflow import Workflow

I = TypeVar("I")  # noqa: E741 - the input of a workflow, as O is its output
O = TypeVar("O")  # noqa: E741


class Client(Questions):
    """Triggers runs, follows them, and answers what is asked about them (`Questions`). Made by `connect`.

    Use it in a ``with`` block, or `close` it; one that is left open is closed at the end of the program. Threads may
    share it. A forked process connects by itself when it first uses it.

    All methods raise `ClientClosed` after its end, and what `connect` raises where they have to connect first.
    """

    def __init__(self, portal: Portal[jetflow.client.Client]) -> None:
        super().__init__(portal)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection. Safe to call twice."""
        self._portal.close()

    @property
    def limits(self) -> Limits:
        """The limits of the namespace."""
        return Limits(self._portal)

    @property
    def schedules(self) -> Schedules:
        """The schedules of the namespace."""
        return Schedules(self._portal)

    @property
    def namespace(self) -> str:
        """The namespace that this client works in."""
        return self._portal.open().namespace

    @overload
    def trigger(
        self,
        workflow: Workflow[I, O],
        input: I,
        *,
        key: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        **when: Unpack[When],
    ) -> Run[O]: ...
    @overload
    def trigger(
        self,
        workflow: Workflow[None, O],
        input: None = None,
        *,
        key: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        **when: Unpack[When],
    ) -> Run[O]: ...
    @overload
    def trigger(
        self,
        workflow: str,
        input: Any = None,
        *,
        key: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        **when: Unpack[When],
    ) -> Run[Any]: ...
    def trigger(
        self,
        workflow: Workflow[Any, Any] | str,
        input: Any = None,
        *,
        key: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        **when: Unpack[When],
    ) -> Run[Any]:
        """Start a root run; see `jetflow.Client.trigger`.

        Raises:
            InvalidInput: the input, or the metadata, does not fit.
            UnknownWorkflow: nobody has declared a workflow of this name.
            KeyConflict: the key was used with another input.
            PayloadTooLarge: the input is larger than the server accepts.
            BrokerTimeout: the broker did not take it in time.
        """
        portal = self._portal
        return Run(portal, portal.call(lambda here: here.trigger(workflow, input, key=key, metadata=metadata, **when)))

    @overload
    def trigger_many(
        self,
        workflow: Workflow[I, O],
        inputs: Iterable[I],
        *,
        key: Callable[[I], str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        **when: Unpack[When],
    ) -> list[Run[O]]: ...
    @overload
    def trigger_many(
        self,
        workflow: str,
        inputs: Iterable[Any],
        *,
        key: Callable[[Any], str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        **when: Unpack[When],
    ) -> list[Run[Any]]: ...
    def trigger_many(
        self,
        workflow: Workflow[Any, Any] | str,
        inputs: Iterable[Any],
        *,
        key: Callable[[Any], str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        **when: Unpack[When],
    ) -> list[Run[Any]]:
        """Start a root run for each input, many at once; see `jetflow.Client.trigger_many`.

        It raises what `trigger` raises.
        """
        portal = self._portal
        check_bulk(inputs, key, call="trigger_many", for_one="trigger")
        given = list(inputs)  # in this thread: the inputs are the caller's code, which may use this very client
        runs = portal.call(lambda here: here.trigger_many(workflow, given, key=key, metadata=metadata, **when))
        return [Run(portal, run) for run in runs]

    def delayed(self, workflow: str | None = None) -> list[DelayedRun]:
        """Return the runs that have been asked for and have not begun, of one workflow or all; the next one first."""
        return self._portal.call(lambda here: here.delayed(workflow))

    def reschedule(self, run_id: str, *, at: datetime | None = None, delay: float | timedelta | None = None) -> None:
        """Have a run that has not begun begin ``at`` another time, or after a ``delay`` from now on.

        Raises:
            UnknownRun: there is no run of this id.
            RunBegun: it has begun.
            InvalidInput: neither or both are given, or no time.
        """
        self._portal.call(lambda here: here.reschedule(run_id, at=at, delay=delay))

    @overload
    def run(self, run_id: str, workflow: Workflow[Any, O]) -> Run[O]: ...
    @overload
    def run(self, run_id: str, workflow: None = None) -> Run[Any]: ...
    def run(self, run_id: str, workflow: Workflow[Any, Any] | None = None) -> Run[Any]:
        """Return an existing run. ``workflow`` types its output.

        Raises:
            UnknownRun: ``run_id`` is not the id of any run.
        """
        return Run(self._portal, self._portal.open().run(run_id, workflow))

    def cancel(self, run_id: str, *, tree: bool = True) -> bool:
        """Cancel a run, and all its descendants unless ``tree`` is false. Returns False if it had ended already.

        Raises:
            UnknownRun: no run with this id is stored.
        """
        return self._portal.call(lambda here: here.cancel(run_id, tree=tree))

    def delete(self, run_id: str) -> None:
        """Cancel a root run that is under way, and delete all that is stored of it and its descendants.

        Raises:
            UnknownRun: no root run with this id is stored.
        """
        self._portal.call(lambda here: here.delete(run_id))

    def loosen(
        self, run: Run[Any] | str, *, policy: JoinPolicy, step: Step[..., Any, Any] | str | None = None
    ) -> LoosenedJoin:
        """Give the join at which a run waits a looser policy; see `jetflow.Client.loosen`.

        Raises:
            UnknownRun: no run with this id is stored.
            NothingToLoosen, TighterPolicy: it cannot be.
        """
        run_id = run if isinstance(run, str) else run.id
        return self._portal.call(lambda here: here.loosen(run_id, policy=policy, step=step))

    def rerun(
        self, run: Run[Any] | str, *, only: Only = "failed", from_step: Step[..., Any, Any] | str | None = None
    ) -> Run[Any]:
        """Run one that has ended once more, of what has failed; see `jetflow.Client.rerun`.

        Raises:
            UnknownRun: no run with this id is stored.
            RunNotEnded, NothingToRerun, AlreadyRerun, InputLost, RecentlyDeleted: it cannot be.
        """
        portal, run_id = self._portal, run if isinstance(run, str) else run.id
        return Run(portal, portal.call(lambda here: here.rerun(run_id, only=only, from_step=from_step)))

    def rerun_many(
        self,
        *,
        only: Only = "failed",
        from_step: Step[..., Any, Any] | str | None = None,
        dry_run: bool = False,
        workflow: str | None = None,
        status: str | None = "failed",
        since: float | None = None,
        until: float | None = None,
        key: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Iterator[Again]:
        """Run again all root runs that fit a filter, and yield what became of each; see `jetflow.Client.rerun_many`."""
        return self._portal.each(
            lambda here: here.rerun_many(
                only=only,
                from_step=from_step,
                dry_run=dry_run,
                workflow=workflow,
                status=status,
                since=since,
                until=until,
                key=key,
                metadata=metadata,
            )
        )

    def newest(self, run: Run[Any] | str) -> Run[Any]:
        """Return the newest run of the chain of reruns that a run is in; see `jetflow.Client.newest`."""
        portal, run_id = self._portal, run if isinstance(run, str) else run.id
        return Run(portal, portal.call(lambda here: here.newest(run_id)))

    def newest_of(self, workflow: Workflow[Any, Any] | str, key: str) -> Run[Any]:
        """Return the run that a key names, or the newest of its reruns; see `jetflow.Client.newest_of`."""
        portal = self._portal
        return Run(portal, portal.call(lambda here: here.newest_of(workflow, key)))

    def chain(self, run_id: str) -> list[str]:
        """Return the ids of the chain of reruns that a run is in, the first one first."""
        return self._portal.call(lambda here: here.chain(run_id))

    def publish(
        self,
        topic: str,
        payload: Any = None,
        *,
        key: str | None = None,
        id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        level: str | None = None,
    ) -> PublishedEvent:
        """Publish an event; see `jetflow.Client.publish`.

        Raises:
            InvalidInput: the topic, the key or the id is none, or the payload cannot be written as JSON.
            PayloadTooLarge: it is larger than a message may be.
            BrokerTimeout: the broker did not take it in time.
        """
        return self._portal.call(
            lambda here: here.publish(topic, payload, key=key, id=id, metadata=metadata, level=level)
        )

    def signal(self, run_id: str, name: str, payload: Any = None, *, id: str | None = None) -> PublishedEvent:
        """Send a signal to a run; see `jetflow.Client.signal`."""
        return self._portal.call(lambda here: here.signal(run_id, name, payload, id=id))

    def publish_many(
        self,
        topic: str,
        payloads: Iterable[Any],
        *,
        key: Callable[[Any], str | None] | None = None,
        id: Callable[[Any], str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        level: str | None = None,
    ) -> list[PublishedEvent]:
        """Publish many events of one topic; see `jetflow.Client.publish_many`.

        Raises:
            The same as `publish`.
        """
        given = list(payloads)  # in this thread, as those of `trigger_many`
        return self._portal.call(
            lambda here: here.publish_many(topic, given, key=key, id=id, metadata=metadata, level=level)
        )

    def events(
        self, topic: str = ">", *, key: str | None = None, after: int = 0, limit: int = 100
    ) -> list[PublishedEvent]:
        """Return stored events, the oldest first; see `jetflow.Client.events`."""
        return self._portal.call(lambda here: here.events(topic, key=key, after=after, limit=limit))

    def runs_of_event(self, event: PublishedEvent | str) -> dict[str, str]:
        """Return the ids of the runs that an event has started, by workflow."""
        return self._portal.call(lambda here: here.runs_of_event(event))

    def storage(self) -> Storage:
        """Return how much the namespace stores, by stream, and about how much of the server's memory that takes."""
        return self._portal.call(lambda here: here.storage())

    def drift(self) -> list[Difference]:
        """Return in what the namespace's streams differ from what they have to be: `jetflow setup` mends that."""
        return self._portal.call(lambda here: here.drift())

    def workflows(self) -> list[str]:
        """Return the names of all workflows that are declared in the namespace."""
        return self._portal.call(lambda here: here.workflows())


def connect(
    server: Server = None,
    *,
    namespace: str | None = None,
    timeout: float = 5.0,
    replicas: int | None = None,
    max_bytes: int | None = None,
    placement: Placement | None = None,
    auth: Auth | None = None,
    domain: str | None = None,
    inbox_prefix: str | None = None,
    context: str | None = None,
    ensure: bool = True,
    lazy: bool = False,
) -> Client:
    """Connect to a namespace from plain code: ``with jetflow.sync.connect() as client:``.

    All arguments are those of `jetflow.connect`. A ``lazy`` client connects when it is first used: one that stands at
    the top level of a module does not need a server at import.

    It raises what `jetflow.connect` raises.

    Raises:
        InvalidConnection: also for a connected client, which has an event loop of its own.
    """
    portal = Portal(
        lambda: jetflow.client.connect(
            server,
            namespace=namespace,
            timeout=timeout,
            replicas=replicas,
            max_bytes=max_bytes,
            placement=placement,
            auth=auth,
            domain=domain,
            inbox_prefix=inbox_prefix,
            context=context,
            ensure=ensure,
        )
    )
    if not lazy:
        portal.open()
    return Client(portal)
