"""The dashboard's client: one that was handed over, or one that is connected when it is first needed.

Most hosts do not run the lifespan of what is mounted in them. So a request connects where nobody has; those that come
meanwhile wait for the same attempt, and one that failed is not made again for a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from time import monotonic
from typing import Final, TypeAlias

from jetflow.client import Client, connect
from jetflow.errors import BrokerError

AGAIN_AFTER: Final = 1.0
"""Seconds for which an attempt that failed stands for those that follow."""

Source: TypeAlias = str | Sequence[str] | Client | Callable[[], AbstractAsyncContextManager[Client]] | None
"""Where the dashboard's client comes from: URLs, a client, what opens one, or None for ``NATS_URL``."""


class Connecting:
    """Holds the client, and closes it if it has opened it."""

    def __init__(self, source: Source, namespace: str) -> None:
        self._source = source
        self._namespace = namespace
        self._lock = asyncio.Lock()
        self._stack = AsyncExitStack()
        self._client: Client | None = source if isinstance(source, Client) else None
        self._failed: tuple[float, BrokerError] | None = None

    @property
    def client_now(self) -> Client | None:
        """The client, if there is one."""
        return self._client

    async def client(self) -> Client:
        """Return the client, connected.

        Raises:
            BrokerError: no server answers, or it refuses.
        """
        if self._client is not None:
            return self._client
        async with self._lock:
            if self._client is None:
                if self._failed is not None and monotonic() - self._failed[0] < AGAIN_AFTER:
                    raise self._failed[1]
                try:
                    self._client = await self._stack.enter_async_context(self._opened())
                except BrokerError as error:
                    self._failed = monotonic(), error
                    raise
            return self._client

    def _opened(self) -> AbstractAsyncContextManager[Client]:
        source = self._source
        if callable(source):
            return source()
        assert not isinstance(source, Client)
        return connect(source, namespace=self._namespace, ensure=False)

    async def close(self) -> None:
        """Close what was opened. Safe to call twice."""
        async with self._lock:
            if not isinstance(self._source, Client):
                self._client = None
            await self._stack.aclose()
