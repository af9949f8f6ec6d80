"""What is known of the NATS server that a connection leads to."""

from __future__ import annotations

from typing import Any

import msgspec

from jetflow.broker.connection import Connection


class ServerFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The NATS server that a client is connected to at this moment, or was last."""

    version: str
    name: str = ""
    cluster: str | None = None
    connected: bool = True


def server_facts(connection: Connection) -> ServerFacts:
    """Return what the server has told of itself when it was connected to."""
    untyped: Any = connection.client
    told: dict[str, Any] = untyped._server_info  # noqa: SLF001 - the client hands out the version alone
    return ServerFacts(
        version=str(told.get("version", "")),
        name=str(told.get("server_name", "")),
        cluster=told.get("cluster") or None,
        connected=connection.is_connected,
    )
