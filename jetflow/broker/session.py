"""One process's way to the broker: a connection with its publishers, readers and registry, started as one."""

from __future__ import annotations

import os
from types import TracebackType
from typing import Final

from jetflow.broker.atomic import AtomicBatches
from jetflow.broker.attendance import Attendance
from jetflow.broker.connection import Connection, Server
from jetflow.broker.grouping import GroupCommit
from jetflow.broker.ingest import Ingest
from jetflow.broker.publisher import Publisher
from jetflow.broker.registry import Registry
from jetflow.broker.store import Store
from jetflow.broker.topology import Retention, ensure_streams
from jetflow.wire.subjects import Subjects

DEFAULT_SERVER: Final = "nats://127.0.0.1:4222"


class Session:
    """Everything that clients and workers need of the broker, for one namespace."""

    def __init__(self, connection: Connection, names: Subjects, *, durable: bool = False) -> None:
        self._atomic = AtomicBatches(connection) if durable else None
        self.connection = connection
        self.names = names
        self.publisher: Publisher = Publisher(connection)
        self.ingest: Ingest = Ingest(connection, self._atomic)
        self.records: GroupCommit = GroupCommit(names.records_stream, connection, self.publisher, self.ingest)
        self.tasks: GroupCommit = GroupCommit(names.tasks_stream, connection, self.publisher, self.ingest)
        self.store: Store = Store(connection)
        self.registry: Registry = Registry(self.store, self.publisher, names)
        self.attendance: Attendance = Attendance(connection, names)

    @classmethod
    async def open(
        cls,
        server: Server,
        namespace: str,
        *,
        timeout: float = 5.0,
        retention: Retention | None = None,
        durable: bool = False,
    ) -> Session:
        """Connect, and make the namespace's streams. ``timeout`` is seconds.

        A ``durable`` session publishes in atomic batches: for servers that flush before they acknowledge.

        Raises:
            ServerUnreachable, ServerTooOld, JetStreamUnavailable: see `Connection.open`.
            InvalidName: the namespace does not fit the token rule.
        """
        names = Subjects(namespace)
        connection = await Connection.open(server_or_default(server), timeout=timeout)
        session = cls(connection, names, durable=durable)
        try:
            await ensure_streams(connection, names, retention or Retention())
            if session._atomic is not None:
                await session._atomic.start()
            await session.publisher.start()
            await session.ingest.start()
            await session.store.start()
        except BaseException:
            await connection.close()
            raise
        return session

    async def close(self) -> None:
        """Wait for what is under way, and close. Safe to call twice."""
        if self.connection.is_closed:
            return
        await self.attendance.stop()
        await self.publisher.stop()
        await self.ingest.stop()
        await self.connection.close()

    async def __aenter__(self) -> Session:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def server_or_default(server: Server) -> Server:
    """Return ``server``, or what ``NATS_URL`` names, or the local default."""
    if server is not None:
        return server
    named = os.environ.get("NATS_URL", "")
    return [url.strip() for url in named.split(",") if url.strip()] or [DEFAULT_SERVER]
