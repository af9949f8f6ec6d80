"""Triggers roots while faults happen, follows them, and keeps a log of every trigger that was acknowledged."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from time import time
from typing import Any, NamedTuple
from uuid import uuid4

import msgspec
import nats.errors

import jetflow
from jetflow.engine.identity import keyed_root_id
from jetflow.errors import (
    BrokerError,
    KeyConflict,
    NothingToRerun,
    ResultTimeout,
    RunFailed,
    RunNotEnded,
    UnknownRun,
)
from tests.chaos.limited import LIMITS
from tests.chaos.load import LEAVES, TREES
from tests.chaos.mending import MENDING
from tests.chaos.moments import MOMENTS
from tests.chaos.plan import (
    CHOOSES,
    DECIDES,
    DOZES,
    FRAIL,
    LIMITED,
    LISTENS,
    MENDS,
    PACED,
    Leaf,
    Node,
    ending,
    sharing,
)
from tests.chaos.progress import say
from tests.chaos.sender import Sender
from tests.chaos.servers import Servers

HARD_LIMIT = 300.0
"""Seconds after which following a root is given up; the checker then says what became of it."""


class Acknowledged(NamedTuple):
    """A trigger that the servers have taken."""

    run: str
    workflow: str
    node: Node | Leaf
    cancelled: bool = False
    not_before: float = 0.0
    """Seconds since the epoch before which it must not begin."""
    again: bool = False
    """Whether it is a rerun."""


TRIGGERED = LEAVES | TREES | MOMENTS | LIMITS | MENDING


class Driver:
    """Keeps ``at_once`` roots open, until it is told to stop."""

    def __init__(self, servers: Servers, namespace: str, rng: random.Random, *, at_once: int, depth: int) -> None:
        self._servers = servers
        self._namespace = namespace
        self._rng = rng
        self._at_once = at_once
        self._depth = depth
        self._tasks: set[asyncio.Task[None]] = set()
        self._next = 0
        self.sender = Sender(random.Random(rng.random()))
        self._client: jetflow.Client | None = None
        self.client_class = jetflow.Client
        self.stopping = asyncio.Event()
        self.log: dict[str, Acknowledged] = {}
        self.keys: list[tuple[str, str, Node]] = []
        self.triggers = 0
        self.refused = 0
        self.cancels = 0
        self.problems: list[str] = []
        self.unexpected: dict[str, str] = {}
        self.open: set[str] = set()

    async def run(self, seconds: float) -> None:
        """Have schedules for some seconds, and trigger until told to stop; then follow every root to its end."""
        async with jetflow.connect(
            [server.url for server in self._servers.servers],
            namespace=self._namespace,
            replicas=self._servers.count,
            timeout=30,
        ) as client:
            self._client = client
            await self.sender.schedule(client, seconds)
            self.adopt(asyncio.create_task(self.sender.run(client, self.stopping)))
            gate = asyncio.Semaphore(self._at_once)
            while not self.stopping.is_set():
                await gate.acquire()
                task = asyncio.create_task(self._one())
                self.adopt(task)
                task.add_done_callback(lambda _: gate.release())
                await asyncio.sleep(self._rng.random() * 0.05)
            await asyncio.gather(*self._tasks)
            self._client = None

    def adopt(self, task: asyncio.Task[None]) -> None:
        """Wait for a task at the end."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _one(self) -> None:
        self._next += 1
        workflow = self._rng.choice(list(TREES))
        node = Node(self._rng.randrange(2**40), self._rng.randrange(self._depth + 1))
        way = self._rng.random()
        if self._rng.random() < 0.3:
            await self._moment(Leaf(node.seed))
        elif self._rng.random() < 0.3:
            await self._limited(Leaf(node.seed))
        elif self._rng.random() < 0.12:
            await self._mend(node)
        elif self._rng.random() < 0.2:
            await self._trigger(FRAIL, Leaf(node.seed), None)
        elif way < 0.1:
            await self._from_outside(workflow, node)
        elif way < 0.3:
            await self._trigger(workflow, node, None)
        else:
            key = f"root {self._next}"
            if await self._trigger(workflow, node, key):
                self.keys.append((key, workflow, node))

    async def _moment(self, leaf: Leaf) -> None:
        """Trigger what waits for a time or an event; some of it to begin later."""
        delay = self._rng.choice((None, None, 0.5 + 4 * self._rng.random()))
        await self._trigger(self._rng.choice((DOZES, LISTENS, CHOOSES, DECIDES)), leaf, None, delay=delay)

    async def _limited(self, leaf: Leaf) -> None:
        """Trigger some that need the same places, at once."""
        workflow = self._rng.choice((LIMITED, PACED))
        await asyncio.gather(*(self._trigger(workflow, Leaf(seed), None) for seed in sharing(leaf.seed)))

    async def _mend(self, node: Node) -> None:
        """Trigger what fails; then have it run again, by several at once, of whom each has to get the same run."""
        self._next += 1
        client, key = self._client, f"mends {self._next}"
        if client is None or not await self._trigger(MENDS, node, key):
            return
        first = keyed_root_id(MENDS, key)
        again: set[str] = set()
        while not again:
            asked = [client.rerun(first) for _ in range(self._rng.choice((1, 1, 3)))]
            for one in await asyncio.gather(*asked, return_exceptions=True):
                if isinstance(one, NothingToRerun | RunNotEnded):  # it was not permitted, or is not followed any more
                    return
                if isinstance(one, BaseException) and not isinstance(one, BrokerError):
                    raise one
                if not isinstance(one, BaseException):
                    again.add(one.id)
            await asyncio.sleep(0.3)
        if len(again) > 1:
            self.problems.append(f"run {first} was run again as {sorted(again)}")
        run = client.run(min(again))
        self.log[run.id] = Acknowledged(run.id, MENDS, node, again=True)
        await self._follow(run)

    async def poison(self) -> None:
        """Trigger a tree with a step that kills its worker, twice."""
        self._next += 1
        workflow = self._rng.choice(list(TREES))
        await self._trigger(workflow, Node(self._rng.randrange(2**40), 0, poisoned=True), f"poisoned {self._next}")

    async def duplicate(self) -> None:
        """Trigger keys again, some of them many times at once."""
        for key, workflow, node in self._rng.sample(self.keys, min(len(self.keys), 5)):
            times = self._rng.choice((1, 2, 8))
            await asyncio.gather(*(self._trigger(workflow, node, key, follow=False) for _ in range(times)))

    async def conflict(self) -> None:
        """Trigger a key again with another input: it must be refused."""
        if not self.keys or self._client is None:
            return
        key, workflow, node = self._rng.choice(self.keys)
        try:
            await self._client.trigger(TREES[workflow], Node(node.seed + 1, node.depth), key=key)
        except KeyConflict:
            self.refused += 1
        except BrokerError:
            pass
        else:
            self.problems.append(f"key {key!r} was taken with another input")

    async def cancel(self) -> None:
        """Cancel a root that is under way."""
        cancel: Any = getattr(self._client, "cancel", None)
        begun = sorted(
            run for run in self.open if not self.log[run].not_before and self.log[run].workflow != MENDS
        )  # what is cancelled before it breaks would break when it is run again
        if cancel is None or not begun:
            return
        run = self._rng.choice(begun)
        self.log[run] = self.log[run]._replace(cancelled=True)
        self.cancels += 1
        with contextlib.suppress(BrokerError, UnknownRun):  # a trigger from outside may not have been taken yet
            await cancel(run)

    async def _trigger(
        self,
        workflow: str,
        node: Node | Leaf,
        key: str | None,
        *,
        delay: float | None = None,
        follow: bool = True,
    ) -> bool:
        client = self._client
        if client is None:
            return False
        self.triggers += 1
        not_before = 0.0 if delay is None else time() + delay
        when: Any = {} if delay is None else {"delay": delay}
        try:
            run = await client.trigger(TRIGGERED[workflow], node, key=key, **when)
        except BrokerError:
            return False  # not acknowledged: nothing is promised
        self._acknowledge(run.id, workflow, node, not_before)
        following = [self._follow(run)] if follow else []
        if workflow == LISTENS:
            following.append(self.sender.signal(run, node.seed, lambda: self.log[run.id].cancelled))
        if workflow == DECIDES:
            following.append(self.sender.decide(run, node.seed, lambda: self.log[run.id].cancelled))
        await asyncio.gather(*following)
        return True

    async def _from_outside(self, workflow: str, node: Node) -> None:
        """Trigger as any NATS client may: a message into the inbox stream."""
        run = uuid4().hex
        self.triggers += 1
        client = await self._servers.connect() if self._client is None else self._client._session.connection.client
        try:
            await client.jetstream(timeout=5).publish(
                f"jf.{self._namespace}.in.trigger.{workflow}", msgspec.json.encode(node), headers={"Jf-Run": run}
            )
        except (nats.errors.Error, OSError):
            return
        self._acknowledge(run, workflow, node)
        assert self._client is not None
        await self._follow(self._client.run(run))

    def _acknowledge(self, run: str, workflow: str, node: Node | Leaf, not_before: float = 0.0) -> None:
        self.log.setdefault(run, Acknowledged(run, workflow, node, not_before=not_before))

    async def _follow(self, run: jetflow.Run[Any]) -> None:
        """Wait for the end of a run as a client does, and compare it with what the model says."""
        told = self.log[run.id]
        expected = ending(told.workflow, msgspec.to_builtins(told.node), again=told.again)
        until = asyncio.get_running_loop().time() + HARD_LIMIT
        self.open.add(run.id)
        try:
            while (left := until - asyncio.get_running_loop().time()) > 0:
                try:
                    got = "succeeded", msgspec.to_builtins(await run.result(timeout=left))
                except RunFailed as error:
                    got = error.status, None
                except (BrokerError, UnknownRun):  # the servers are away, or the trigger is not taken yet: ask again
                    await asyncio.sleep(0.5)
                    continue
                if told.workflow == FRAIL and got[0] == "failed":
                    return  # the checker knows whether it may
                if got != expected and not (got[0] == "cancelled" and self.log[run.id].cancelled):
                    self.unexpected[run.id] = f"the client got {got} of run {run.id}, and {expected} is right"
                return
        except ResultTimeout:
            say(f"run {run.id} has not ended after {HARD_LIMIT:g} s")
        finally:
            self.open.discard(run.id)

    def write_log(self, path: Any) -> None:
        with open(path, "w") as file:  # noqa: PTH123
            for told in self.log.values():
                file.write(json.dumps({**told._asdict(), "node": msgspec.to_builtins(told.node)}) + "\n")
