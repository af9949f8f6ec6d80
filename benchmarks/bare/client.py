"""Starts bare runs from outside, and waits for their results."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg

from benchmarks.bare.publisher import BarePublisher
from benchmarks.bare.wire import ROOT, Node, decode_result, encode, live_results, make_streams, task_subject


class BareClient:
    """Triggers runs: publishes their task with a message id, and listens for their result."""

    def __init__(self, client: Client) -> None:
        self.nats = client
        self._publisher = BarePublisher(client)
        self._waiting: dict[str, asyncio.Future[int]] = {}
        self._next = 0

    async def start(self) -> None:
        """Make the streams, and begin to listen."""
        await make_streams(self.nats)
        await self._publisher.start()
        await self.nats.subscribe(live_results(ROOT), cb=self._on_result, pending_msgs_limit=0, pending_bytes_limit=0)

    async def run(self, node: Node) -> int:
        """Trigger a run, and return its result."""
        return await (await self.trigger(node))

    async def trigger(self, node: Node) -> asyncio.Future[int]:
        """Trigger a run; the future gives its result."""
        self._next += 1
        run = f"r{self._next}"
        result: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        # each step but the last passes the run on under a name that is one dash longer
        self._waiting[run + "-" * (node.steps - 1)] = result
        await self._publisher.publish(task_subject(ROOT, run), encode(node), f"{ROOT}.{run}", None)
        return result

    async def room(self) -> None:
        """Wait until there is room for more triggers."""
        await self._publisher.room()

    async def _on_result(self, message: Msg) -> None:
        waiting = self._waiting.pop(message.subject.rpartition(".")[2])
        waiting.set_result(decode_result(message.data))


@asynccontextmanager
async def bare_client(url: str) -> AsyncIterator[BareClient]:
    """Connect a client."""
    connection = await nats.connect(url, pending_size=256 * 1024 * 1024)
    try:
        client = BareClient(connection)
        await client.start()
        yield client
    finally:
        await connection.close()
