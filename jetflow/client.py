"""Triggering runs and following them, from outside any step."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Final, NoReturn, TypeVar, overload

from jetflow.broker.access import Server, access_of
from jetflow.broker.auth import Auth
from jetflow.broker.layout import Difference, changes_of
from jetflow.broker.session import Session
from jetflow.broker.topology import Placement, Retention
from jetflow.engine.identity import check_name
from jetflow.engine.policies import JoinPolicy
from jetflow.errors import UnknownRun
from jetflow.limiting import Limits
from jetflow.rerunning import Rerunning
from jetflow.runs.cancelling import cancel_run
from jetflow.runs.delays import forget
from jetflow.runs.deleting import delete_tree
from jetflow.runs.loosening import LoosenedJoin, loosen
from jetflow.runs.performer import Performer
from jetflow.runs.publishing import Publishing
from jetflow.runs.query.stored import check_id
from jetflow.runs.storage import Storage, read_storage
from jetflow.scheduling import Schedules
from jetflow.settings import value_of
from jetflow.step import Step
from jetflow.triggering import Run
from jetflow.wire.codec import ANY
from jetflow.workflow import Workflow

I = TypeVar("I")  # noqa: E741 - the input of a workflow, as O is its output
O = TypeVar("O")  # noqa: E741
O_co = TypeVar("O_co", covariant=True)

_ENTERED: Final = "write `async with jetflow.connect(...) as client:`"


class Client(Rerunning, Publishing):
    """Triggers runs, follows them, and answers what is asked about them (`Queries`). Made by `connect`.

    All methods raise `ClientClosed` after the end of its block, and `WrongEventLoop` where another event loop runs.
    """

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._performer = Performer(session)

    @property
    def schedules(self) -> Schedules:
        """The schedules of the namespace."""
        return Schedules(self._session)

    @property
    def limits(self) -> Limits:
        """The limits of the namespace."""
        return Limits(self._session)

    @property
    def namespace(self) -> str:
        """The namespace that this client works in."""
        return self._session.names.namespace

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
        joins the run gets it as a cancelled child. One that has not begun is forgotten, and its key is free again.

        Raises:
            UnknownRun: no run with this id is stored.
        """
        check_id(run_id)
        session = self._session.usable()
        try:
            return await cancel_run(session, self._performer.run, run_id, tree=tree)
        except UnknownRun:
            if await forget(session, run_id):
                return True
            return await cancel_run(session, self._performer.run, run_id, tree=tree)

    async def loosen(
        self, run: Run[Any] | str, *, policy: JoinPolicy, step: Step[..., Any, Any] | str | None = None
    ) -> LoosenedJoin:
        """Give the join at which a run waits a looser policy: it goes on at once if what has ended meets that.

        It is the join of a step that has returned, or one that is parked, of ``ctx.join(policy=...)``. ``step`` is
        needed where several wait. A time limit (`JoinPolicy.within`) stays what it is. Each later attempt of the step
        goes by the looser policy. The same call again changes nothing, and does what may be missing where one has
        raised.

        Raises:
            UnknownRun: no run with this id is stored.
            NothingToLoosen: no such step waits, several do, or the code that waits does not know of loosening.
            TighterPolicy: the policy asks for more than the one that the join has.
            BrokerTimeout, PermissionDenied: the broker did not take it.
        """
        run_id = run if isinstance(run, str) else run.id
        check_id(run_id)
        name = step.name if isinstance(step, Step) else step
        if name is not None:
            check_name("step", name)
        return await loosen(self._session.usable(), run_id, policy, name)

    async def delete(self, run_id: str) -> None:
        """Cancel a root run that is under way, and delete all that is stored of it and its descendants.

        Raises:
            UnknownRun: no root run with this id is stored.
        """
        check_id(run_id)
        session = self._session.usable()
        try:
            await delete_tree(session, run_id)
        except UnknownRun:
            if not await forget(session, run_id):
                await delete_tree(session, run_id)

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
