"""Triggering runs and following them, from outside any step."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Coroutine, Generator, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Final, Generic, Literal, NoReturn, TypeAlias, TypeVar, overload

from msgspec.structs import replace

from jetflow import hooks
from jetflow.broker.access import Server, access_of
from jetflow.broker.auth import Auth
from jetflow.broker.layout import Difference, changes_of
from jetflow.broker.session import Session
from jetflow.broker.topology import Placement, Retention
from jetflow.children import errors_of
from jetflow.context import check_bulk
from jetflow.engine.tasks import Status, Task
from jetflow.errors import InvalidInput, RunFailed
from jetflow.runs.cancelling import cancel_run
from jetflow.runs.deleting import delete_tree
from jetflow.runs.describing import read_trace
from jetflow.runs.following import Following
from jetflow.runs.hearing import Hearing
from jetflow.runs.located import locate
from jetflow.runs.performer import Performer
from jetflow.runs.publishing import Publishing
from jetflow.runs.query.queries import Queries
from jetflow.runs.query.stored import check_id
from jetflow.runs.storage import Storage, read_storage
from jetflow.runs.targets import Target, resolve, root_task, trigger_root
from jetflow.runs.values import with_output
from jetflow.settings import value_of
from jetflow.telemetry.catalogue import TRIGGERED
from jetflow.wire.codec import ANY, Codec
from jetflow.wire.events import PublishedEvent
from jetflow.workflow import Workflow

I = TypeVar("I")  # noqa: E741 - the input of a workflow, as O is its output
O = TypeVar("O")  # noqa: E741
O_co = TypeVar("O_co", covariant=True)

RunStatus: TypeAlias = Literal["queued", "running"] | Status

_ENTERED: Final = "write `async with jetflow.connect(...) as client:`"

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

    def through(self, client: Client) -> Run[O_co]:
        """Return the same run, followed through another client."""
        return Run(client.session, self.id, self._codec, self._task, created=self.created)

    async def signal(self, name: str, payload: Any = None, *, id: str | None = None) -> PublishedEvent:
        """Send a signal to the run, for a step that waits for it: see `Client.signal`."""
        return await Publishing(self._session).signal(self.id, name, payload, id=id)

    async def status(self) -> RunStatus:
        """Return where the run stands.

        Raises:
            UnknownRun: no run with this id is stored.
        """
        session = self._session.usable()
        trace = await read_trace(session, await locate(session, self.id), values=False)
        return trace.status

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


class Client(Queries, Publishing):
    """Triggers runs, follows them, and answers what is asked about them (`Queries`). Made by `connect`.

    All methods raise `ClientClosed` after the end of its block, and `WrongEventLoop` where another event loop runs.
    """

    def __init__(self, session: Session) -> None:
        Queries.__init__(self, session)
        self._performer = Performer(session)

    @property
    def session(self) -> Session:
        """Its way to the broker; not part of what stays the same between versions."""
        return self._session

    @property
    def namespace(self) -> str:
        """The namespace that this client works in."""
        return self._session.names.namespace

    @overload
    async def trigger(
        self,
        workflow: Workflow[I, O],
        input: I,
        *,
        key: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Run[O]: ...
    @overload
    async def trigger(
        self,
        workflow: Workflow[None, O],
        input: None = None,
        *,
        key: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Run[O]: ...
    @overload
    async def trigger(
        self,
        workflow: str,
        input: Any = None,
        *,
        key: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Run[Any]: ...
    async def trigger(
        self,
        workflow: Workflow[Any, Any] | str,
        input: Any = None,
        *,
        key: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Run[Any]:
        """Start a root run. The same key of the same workflow is the same run.

        ``metadata`` is JSON; every descendant of the run sees it as ``ctx.metadata``. For a user who may not store
        tasks, but ask for runs (``jf.<namespace>.in.trigger.*``), a worker starts it, and alone knows of key conflicts.

        Raises:
            PermissionDenied: this user may do neither.
            InvalidInput: the input, or the metadata, does not fit.
            UnknownWorkflow: nobody has declared a workflow of this name.
            KeyConflict: the key was used with another input.
            PayloadTooLarge: the input is larger than the server accepts.
            BrokerTimeout: the broker did not take it in time.
        """
        target = await resolve(self._session.usable(), workflow, timeout=TRIGGER_TIMEOUT)
        body = target.input.encode(input)
        with hooks.triggering(target.workflow) as opened:
            opened.children = 1
            task = root_task(target, body, key=key, metadata=_encoded(metadata), trace=opened.trace)
            return await self._started(target, task)

    async def _started(self, target: Target, task: Task) -> Run[Any]:
        created = await trigger_root(self._session, task, timeout=TRIGGER_TIMEOUT)
        if hooks.meters and (created or task.key is None):
            hooks.add(TRIGGERED, 1, {"workflow": target.workflow})
        known = replace(task, input=b"")  # whoever follows it needs no input
        return Run(self._session, task.run, target.output, known, created=True if task.key is None else created)

    @overload
    async def trigger_many(
        self,
        workflow: Workflow[I, O],
        inputs: Iterable[I] | AsyncIterable[I],
        *,
        key: Callable[[I], str] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> list[Run[O]]: ...
    @overload
    async def trigger_many(
        self,
        workflow: str,
        inputs: Iterable[Any] | AsyncIterable[Any],
        *,
        key: Callable[[Any], str] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> list[Run[Any]]: ...
    async def trigger_many(
        self,
        workflow: Workflow[Any, Any] | str,
        inputs: Iterable[Any] | AsyncIterable[Any],
        *,
        key: Callable[[Any], str] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> list[Run[Any]]:
        """Start a root run for each input, many at once, and return them in the order of the inputs.

        ``key`` is a function of the input. These are runs of their own, with nothing to join them: for that, have one
        run spawn children. An error ends it, and what was triggered before stays: with keys, the same call once more
        finds those runs, and triggers the rest.

        Raises:
            The same as `trigger`.
        """
        check_bulk(inputs, key, call="trigger_many", for_one="trigger")
        target = await resolve(self._session.usable(), workflow, timeout=TRIGGER_TIMEOUT)
        told, runs, batch, size = _encoded(metadata), list[Run[Any]](), list[Task](), 0
        with hooks.triggering(target.workflow) as opened:
            async for value in _each(inputs):
                body, own = target.input.encode(value), None if key is None else key(value)
                batch.append(root_task(target, body, key=own, metadata=told, trace=opened.trace))
                size += len(body)
                if len(batch) == AT_ONCE or size >= BYTES_AT_ONCE:
                    runs += await self._all_started(target, batch)
                    batch, size = [], 0
            runs += await self._all_started(target, batch)
            opened.children = len(runs)
        return runs

    async def _all_started(self, target: Target, batch: Iterable[Task]) -> list[Run[Any]]:
        """Start runs, and wait for all of them, also where one fails."""
        started = await asyncio.gather(*(self._started(target, task) for task in batch), return_exceptions=True)
        runs: list[Run[Any]] = []
        for one in started:
            if isinstance(one, BaseException):
                raise one
            runs.append(one)
        return runs

    @overload
    def run(self, run_id: str, workflow: Workflow[Any, O]) -> Run[O]: ...
    @overload
    def run(self, run_id: str, workflow: None = None) -> Run[Any]: ...
    def run(self, run_id: str, workflow: Workflow[Any, Any] | None = None) -> Run[Any]:
        """Return an existing run. ``workflow`` types its output.

        Raises:
            UnknownRun: ``run_id`` is not the id of any run.
        """
        check_id(run_id)
        return Run(self._session, run_id, ANY if workflow is None else workflow.output)

    async def cancel(self, run_id: str, *, tree: bool = True) -> bool:
        """Cancel a run, and all its descendants unless ``tree`` is false. Returns False if it had ended already.

        Queued tasks of the tree never start, running async steps get ``asyncio.CancelledError``, and a parent that
        joins the run gets it as a cancelled child.

        Raises:
            UnknownRun: no run with this id is stored.
        """
        check_id(run_id)
        return await cancel_run(self._session.usable(), self._performer.run, run_id, tree=tree)

    async def delete(self, run_id: str) -> None:
        """Cancel a root run that is under way, and delete all that is stored of it and its descendants.

        Raises:
            UnknownRun: no root run with this id is stored.
        """
        check_id(run_id)
        await delete_tree(self._session.usable(), run_id)

    async def storage(self) -> Storage:
        """Return how much the namespace stores, by stream, and about how much of the server's memory that takes."""
        return await read_storage(self._session.usable())

    async def drift(self) -> list[Difference]:
        """Return in what the namespace's streams differ from what they have to be: `jetflow setup` mends that.

        Ages, sizes and replicas are an operator's to choose, and no difference.
        """
        session = self._session.usable()
        return await changes_of(session.connection, session.names)

    async def workflows(self) -> list[str]:
        """Return the names of all workflows that are declared in the namespace."""
        return await self._session.usable().registry.workflows()

    async def close(self) -> None:
        """Close the connection, at the end of what `connect` was awaited for. Safe to call twice."""
        await self._session.close()


class Connecting(AbstractAsyncContextManager[Client]):
    """What `connect` returns. ``async with`` connects and gives the client; so does ``await``, for notebooks."""

    def __init__(self, opening: Callable[[], Coroutine[Any, Any, Client]]) -> None:
        self._opening = opening
        self._client: Client | None = None

    async def __aenter__(self) -> Client:
        self._client = await self._opening()
        return self._client

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._client is not None:
            await self._client.close()

    def __await__(self) -> Generator[Any, None, Client]:
        """Connect, and return a client that is left open: `Client.close` it."""
        return self._opening().__await__()

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"connect() has no {name!r} before it is entered: {_ENTERED}")


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
) -> Connecting:
    """Connect to a namespace, for triggering and following runs: ``async with jetflow.connect() as client:``.

    Where there is no block to write, as in a notebook: ``client = await jetflow.connect()``, ``await client.close()``.

    ``server`` is a URL, several, or a connected client. None of it, or of what follows, is what the settings say
    (``docs/configuration.md``): ``NATS_URL``, and at last ``nats://127.0.0.1:4222`` and the namespace ``default``.
    ``timeout`` is seconds. ``replicas``, ``max_bytes`` and ``placement`` are those of `WorkerOptions`, and count for
    streams that do not exist yet. ``auth`` says who connects, ``domain`` is a JetStream
    domain, ``inbox_prefix`` is where answers go (else ``_INBOX``), and ``context`` is one of the ``nats`` command line,
    by name or file: it says what is not said here. Without ``ensure`` nothing is made: for those who only look.

    Raises:
        InvalidConnection, InvalidSetting, MissingExtra: what was said of how to connect makes no sense.
        AccessDenied: the server refused who connects.
        ServerUnreachable: no server answered in time, or all refused.
        ServerTooOld: the server is older than jetflow needs.
        JetStreamUnavailable: the server runs without JetStream, or this account may not use it.
        UnknownNamespace: without ``ensure``: nothing was ever made of the namespace.
    """

    async def opening() -> Client:
        access = access_of(server, auth=auth, domain=domain, inbox_prefix=inbox_prefix, context=context)
        most = value_of("max_bytes", max_bytes)
        if most is not None and most <= 0:
            raise ValueError(f"max_bytes is {most!r}: above 0, or None")
        retention = Retention(
            replicas=value_of("replicas", replicas), max_bytes=most, placement=placement or Placement()
        )
        space = value_of("namespace", namespace)
        return Client(await Session.open(access, space, timeout=timeout, retention=retention, ensure=ensure))

    return Connecting(opening)


async def _each(inputs: Iterable[Any] | AsyncIterable[Any]) -> AsyncGenerator[Any]:
    if isinstance(inputs, AsyncIterable):
        async for value in inputs:
            yield value
    else:
        for value in inputs:
            yield value


def _encoded(metadata: Mapping[str, Any] | None) -> bytes | None:
    if metadata is None:
        return None
    if not isinstance(metadata, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance] - it comes from the user
        raise InvalidInput(f"metadata is a mapping with JSON values, not {type(metadata).__name__}")
    return ANY.named("metadata").encode(dict(metadata))
