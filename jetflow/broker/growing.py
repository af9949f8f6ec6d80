"""Reading a filter as it grows, when somebody asks: at each time all that was stored since the time before.

A consumer remembers how far was read, so that nothing is counted again, and nothing is sent before it is asked for.
Where none may be made, it is read in pages.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Final

from jetflow.broker.connection import Connection
from jetflow.broker.scanning import Scan
from jetflow.broker.store import Store, Stored, stored_of
from jetflow.errors import PermissionDenied

PAGE: Final = 5000
"""Messages in one page: each has the server count what is left."""


class Growing:
    """What one filter holds, of what was stored ``since`` a time (seconds since the epoch). `let_go` in the end.

    Without ``bodies`` those may stay behind.
    """

    def __init__(
        self,
        connection: Connection,
        store: Store,
        stream: str,
        subject: str,
        *,
        bodies: bool,
        since: float | None = None,
    ) -> None:
        self._store = store
        self._stream = stream
        self._filter = subject
        self._scan: Scan | None = Scan(connection, stream, subject, subjects_only=not bodies, stay=True, since=since)
        self._after = 0
        self._since = since
        self.read: int = 0
        self.expected: int = 0

    async def more(self) -> AsyncGenerator[list[Stored]]:
        """Yield pages of what was stored since the last time. Of ``expected`` messages ``read`` are read."""
        if self._scan is not None:
            try:
                async for page in self._scan.pages():
                    self.expected = max(self.expected, self.read + self._scan.expected)
                    yield self._taken([stored_of(message) for message in page])
            except PermissionDenied:
                self._scan = None
        if self._scan is None:
            while True:
                since = None if self._after else self._since
                found, left = await self._store.page(
                    self._stream, self._filter, after=self._after, size=PAGE, since=since
                )
                self.expected = self.read + len(found) + left
                if found:
                    yield self._taken(found)
                if not found or not left:
                    return

    def _taken(self, page: list[Stored]) -> list[Stored]:
        self._after = page[-1].sequence
        self.read += len(page)
        return page

    def let_go(self) -> None:
        """Have the server forget it."""
        if self._scan is not None:
            self._scan.let_go()
