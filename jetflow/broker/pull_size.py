"""How many bytes a pull request may bring, and what to ask for when the next message does not fit.

The server ends a request with "Message Size Exceeds MaxBytes" as soon as the next message does not fit into what is
left of its bytes. That is no error: the next request is made at once. Each may bring at least one message of any size
that the server takes; one that does not fit even so was stored when it took larger ones, and is asked for by itself.
Of a request that has brought all its messages, and could bring more bytes, the server says "Batch Completed".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from jetflow.broker.connection import Connection

_DOES_NOT_FIT: Final = "Message Size Exceeds MaxBytes"
_COMPLETED: Final = "Batch Completed"


class PullSize:
    """The size of the requests of one puller. ``share`` is how many bytes each may bring."""

    def __init__(self, connection: Connection, share: int) -> None:
        self._connection = connection
        self._one_of_any_size = False
        self.share: int = share

    def of(self, count: int) -> dict[str, int]:
        """Return what the next request for ``count`` messages asks for."""
        if self._one_of_any_size:
            self._one_of_any_size = False
            return {"batch": 1}
        return {"batch": count, "max_bytes": max(self.share, self._connection.largest_message)}

    def left(self, headers: Mapping[str, str]) -> int | None:
        """Return how many messages a request has not brought that has ended by its size; None for any other status."""
        description = headers.get("Description")
        if description == _COMPLETED:
            return 0
        if description != _DOES_NOT_FIT:
            return None
        self._one_of_any_size = int(headers.get("Nats-Pending-Bytes", "0")) >= self._connection.largest_message
        return int(headers.get("Nats-Pending-Messages", "0"))
