"""One process's way to the broker: a connection with its publishers, readers and registry, started as one."""

from __future__ import annotations

from types import TracebackType

from jetflow.broker.access import Access, Server
from jetflow.broker.atomic import AtomicBatches
from jetflow.broker.attendance import Attendance
from jetflow.broker.connection import Connection
from jetflow.broker.grouping import GroupCommit
from jetflow.broker.holders import Holders
from jetflow.broker.ingest import Ingest
from jetflow.broker.item import Item
from jetflow.broker.optional import OptionalStreams
from jetflow.broker.publisher import Publisher
from jetflow.broker.registry import Registry
from jetflow.broker.store import Store
from jetflow.broker.topology import Retention, check_streams, ensure_streams
from jetflow.wire.subjects import Subjects

_ROOTS = 10_000  # of so many child runs the tree is kept in mind; two megabytes


class Session:
    """Everything that clients and workers need of the broker, for one namespace."""

    def __init__(
        self,
        connection: Connection,
        names: Subjects,
        *,
        durable: bool = False,
        retention: Retention | None = None,
    ) -> None:
        self._atomic = AtomicBatches(connection) if durable else None
        self._closed = False
        self._together: AtomicBatches | None = None
        self.takes_large: bool = True
        self.only_asks: bool = False
        """Whether this user may not store tasks, as it has turned out: it asks workers for root runs."""
        self.kept: float | None = None
        """For how many seconds tasks and records are kept, once somebody has asked; 0 for ever."""
        self.roots: dict[str, str] = {}
        """The root of each child run that was looked up, up to some thousands."""
        self.connection = connection
        self.names = names
        self.publisher: Publisher = Publisher(connection)
        self.ingest: Ingest = Ingest(connection, self._atomic)
        self.records: GroupCommit = GroupCommit(names.records_stream, connection, self.publisher, self.ingest)
        self.tasks: GroupCommit = GroupCommit(names.tasks_stream, connection, self.publisher, self.ingest)
        self.timers: GroupCommit = GroupCommit(names.timers_stream, connection, self.publisher, self.ingest)
        self.store: Store = Store(connection)
        self.registry: Registry = Registry(self.store, self.publisher, names)
        self.attendance: Attendance = Attendance(connection, names)
        self.holders: Holders = Holders(connection, names)
        self.optional: OptionalStreams = OptionalStreams(connection, names, retention or Retention())

    @classmethod
    async def open(
        cls,
        server: Server | Access,
        namespace: str,
        *,
        timeout: float = 5.0,
        retention: Retention | None = None,
        durable: bool = False,
        patient: bool = False,
        ensure: bool = True,
    ) -> Session:
        """Connect, and make the namespace's streams. ``timeout`` is seconds.

        A ``durable`` session publishes in atomic batches: for servers that flush before they acknowledge. One that does
        not ``ensure`` the streams works with those that are there.

        Raises:
            InvalidConnection, AccessDenied, ServerUnreachable, ServerTooOld, JetStreamUnavailable: see
                `Connection.open`; so is ``patient``.
            PermissionDenied: this user may not do what is needed.
            UnknownNamespace: it does not exist, and is not to be made.
            InvalidName: the namespace does not fit the token rule.
        """
        names = Subjects(namespace)
        connection = await Connection.open(server, timeout=timeout, patient=patient)
        session = cls(connection, names, durable=durable, retention=retention)
        try:
            if ensure:
                session.takes_large = await ensure_streams(connection, names, retention or Retention())
            else:
                session.takes_large = await check_streams(connection, names)
            if session._atomic is not None:
                await session._atomic.start()
            await session.publisher.start()
            await session.ingest.start()
            await session.store.start()
        except BaseException:
            await connection.close()
            raise
        return session

    async def store_together(self, items: list[Item]) -> bool:
        """Store messages of one stream, all or none; tell whether they are. False may be an answer that was lost."""
        if self._together is None:
            self._together = AtomicBatches(self.connection)
            await self._together.start()
        return await self._together.publish(items)

    def remember_root(self, run: str, root: str) -> None:
        """Keep in mind of which tree a child run is."""
        if len(self.roots) >= _ROOTS:
            self.roots.clear()
        self.roots[run] = root

    def usable(self) -> Session:
        """Return the session itself, if it is open and its event loop is the one that runs.

        Raises:
            ClientClosed, WrongEventLoop: it is not.
        """
        self.connection.check_usable()
        return self

    async def close(self) -> None:
        """Wait for what is under way, and close. Safe to call twice."""
        if self._closed:
            return
        self._closed = True
        await self.attendance.stop()
        self.holders.stop()
        await self.publisher.stop()
        await self.ingest.stop()
        await self.connection.close()

    async def __aenter__(self) -> Session:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
