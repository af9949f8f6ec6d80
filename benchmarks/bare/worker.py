"""The worker process of the floor: ``python -m benchmarks.bare.worker URL``. It spawns, works and joins, as jetflow's.

One asyncio loop under uvloop; a task is a few callbacks, never an asyncio task. Only a node that has children to
publish gets one.
"""

from __future__ import annotations

import asyncio
import sys
from functools import partial
from typing import Final

import msgspec
import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from benchmarks.bare.publisher import BarePublisher
from benchmarks.bare.spawn import answer_ingest
from benchmarks.bare.wire import (
    CONSUMER,
    ECHO,
    RESULTS,
    TASKS,
    Node,
    ask,
    decode_node,
    decode_result,
    encode,
    live_results,
    result_subject,
    task_subject,
)
from benchmarks.processes import serve

PULL: Final = 250
PULLS: Final = 4
READ_FROM: Final = 100
"""Children from which on a parent counts what is stored, and then reads it; below, it listens."""

LOOK_EVERY: Final = 0.005
"""Seconds between two looks at how many results are stored."""


class BareWorker:
    """Pulls tasks, runs them, and joins what they spawned."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._publisher = BarePublisher(client)
        self._inbox = client.new_inbox()
        self._asked = 0
        self._joins: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Begin to pull, and to answer echo requests and requests for a bulk publish."""
        await self._publisher.start()
        await self._client.subscribe(ECHO, cb=self._echo)
        await answer_ingest(self._client)
        await self._client.subscribe(f"{self._inbox}.*", cb=self._on_task, pending_msgs_limit=0, pending_bytes_limit=0)
        for _ in range(PULLS):
            await self._pull()

    async def _echo(self, message: Msg) -> None:
        await self._client.publish(message.reply, message.data)

    async def _pull(self) -> None:
        self._asked += PULL
        request = {"batch": PULL, "expires": 300_000_000_000}
        await self._client.publish(
            f"$JS.API.CONSUMER.MSG.NEXT.{TASKS}.{CONSUMER}", encode(request), f"{self._inbox}.{self._asked}"
        )

    async def _on_task(self, message: Msg) -> None:
        self._asked -= 1
        if self._asked <= PULL * (PULLS - 1):
            await self._pull()
        _, _, parent, run = message.subject.split(".")
        node = decode_node(message.data)
        if node.level == 0:
            await self._finish(message.reply, parent, run, node, node.index)
        else:
            join = asyncio.create_task(self._spawn_and_join(message.reply, parent, run, node))
            self._joins.add(join)
            join.add_done_callback(self._joins.discard)

    async def _finish(self, ack: str, parent: str, run: str, node: Node, result: int) -> None:
        if node.steps > 1:
            subject = result_subject(f"{parent}-step", run)
            stored = partial(self._next_step, ack, parent, run, node)
        else:
            subject = result_subject(parent, run)
            stored = partial(self._client.publish, ack, b"+ACK")
        await self._publisher.publish(subject, encode(result), None, stored)

    async def _next_step(self, ack: str, parent: str, run: str, node: Node) -> None:
        following = msgspec.structs.replace(node, steps=node.steps - 1)
        next_run = f"{run}-"
        stored = partial(self._client.publish, ack, b"+ACK")
        await self._publisher.publish(task_subject(parent, next_run), encode(following), f"{parent}.{next_run}", stored)

    async def _spawn_and_join(self, ack: str, parent: str, run: str, node: Node) -> None:
        listens = node.collect and node.width < READ_FROM
        join = await self._listen(run, node.width) if listens else None
        stored_before = 0 if listens else await self._stored_results()
        publish = self._publisher.publish
        for index in range(node.width):
            child = f"{run}-{index}"
            body = encode(Node(index, node.level - 1, node.width if node.level > 1 else 0))
            await publish(task_subject(run, child), body, f"{run}.{child}", None)
            if index % 100 == 99:
                await self._publisher.room()
        if join is None:
            while await self._stored_results() < stored_before + node.width:  # noqa: ASYNC110 - a look is a request
                await asyncio.sleep(LOOK_EVERY)
            join = await self._read(run, node.width) if node.collect else None
        result = node.width if join is None else await join.close()
        await self._finish(ack, parent, run, node, result)

    async def _listen(self, run: str, width: int) -> _Join:
        join = _Join(width)
        join.subscription = await self._client.subscribe(
            live_results(run), cb=join.add, pending_msgs_limit=0, pending_bytes_limit=0
        )
        return join

    async def _read(self, run: str, width: int) -> _Join:
        """Read the stored results of many children: cheaper than to be told of each."""
        join = _Join(width)
        inbox = self._client.new_inbox()
        join.subscription = await self._client.subscribe(
            inbox, cb=join.add, pending_msgs_limit=0, pending_bytes_limit=0
        )
        config = {"deliver_subject": inbox, "filter_subject": result_subject(run, "*"), "ack_policy": "none"}
        await ask(self._client, f"CONSUMER.CREATE.{RESULTS}", {"stream_name": RESULTS, "config": config})
        return join

    async def _stored_results(self) -> int:
        return int((await ask(self._client, f"STREAM.INFO.{RESULTS}"))["state"]["messages"])


class _Join:
    """Sums the results of a parent's children."""

    subscription: Subscription

    def __init__(self, missing: int) -> None:
        self.total: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._missing = missing
        self._sum = 0

    async def add(self, message: Msg) -> None:
        self._sum += decode_result(message.data)
        self._missing -= 1
        if not self._missing:
            self.total.set_result(self._sum)

    async def close(self) -> int:
        """Wait for all, and return their sum."""
        total = await self.total
        await self.subscription.unsubscribe()
        return total


async def _main(url: str) -> None:
    client = await nats.connect(url, pending_size=256 * 1024 * 1024)
    try:
        await BareWorker(client).start()
        await serve()
    finally:
        await client.close()


if __name__ == "__main__":
    import uvloop

    uvloop.run(_main(sys.argv[1]))
