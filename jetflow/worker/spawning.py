"""Spawning children from a running step: identity, dedup, attaching to what exists."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterable, Callable, Iterable, Sequence
from operator import attrgetter
from time import time
from typing import Any, Final, NamedTuple

import msgspec

from jetflow import hooks
from jetflow.broker.ingest import BATCH, Ingest
from jetflow.broker.item import Item
from jetflow.broker.publisher import Receipt
from jetflow.broker.session import Session
from jetflow.broker.store import Stored
from jetflow.children import ChildGroup
from jetflow.engine.identity import checked_key, child_id, child_ids
from jetflow.engine.joins import ID_BYTES, distinct_ids
from jetflow.engine.levels import checked_level
from jetflow.engine.policies import JoinPolicy
from jetflow.engine.tasks import StepAddress, Task
from jetflow.errors import DepthExceeded, KeyConflict, RunCancelled, TreeTooLarge
from jetflow.runs import points
from jetflow.runs.targets import Target, resolve, root_task, start_root
from jetflow.runs.values import SMALL, check_size, is_large, put
from jetflow.telemetry.catalogue import SPAWNED
from jetflow.wire.headers import Header
from jetflow.wire.metadata import Told, handed_on
from jetflow.wire.records import header_block, shown_key
from jetflow.worker.adopting import Adopting
from jetflow.worker.pace import AT_ONCE, BATCH_BYTES, Pace, paced
from jetflow.worker.planned import Planned
from jetflow.workflow import Workflow

BATCHES_UNDER_WAY: Final = 8
"""Batches of one bulk spawn that may wait for their acknowledgement; with `BATCH_BYTES`, bounds what it holds."""

TRACES: Final = 32
"""Spans of spawns that are remembered for the joins behind them, the newest."""

TREE: Final = "_tree"
"""Stands for the step in the name of the counter of a tree's descendants."""


_TOLD: Final[set[tuple[str, str, str]]] = set()
"""The steps, and what they spawn, of which this process has said that equal inputs are one child."""

_log = logging.getLogger("jetflow.worker")


class Limits(NamedTuple):
    """How deep a tree may be, and how many descendants a root run may have.

    ``full`` holds the roots of the trees that this worker knows to have more: each run of a tree may spawn a few, and
    is over before the counter answers.
    """

    max_depth: int
    max_descendants: int
    full: set[str]


_body_of: Final = attrgetter("item.body")


class _Counter(msgspec.Struct):
    """What the message of a counter holds."""

    val: str = "0"


class Spawner:
    """The children of one execution of one step. They are ``shared`` if another step of the run may spawn them too."""

    def __init__(
        self,
        session: Session,
        task: Task,
        *,
        limits: Limits,
        counted: bool,
        policy: JoinPolicy,
        shared: bool,
        cancelled: Callable[[], bool],
        adopting: Adopting | None,
    ) -> None:
        self._session = session
        self._ingest: Ingest = session.ingest
        self._task = task
        self._limits = limits
        self.counted: bool = counted
        self._policy = policy
        self._shared = shared
        self._cancelled = cancelled
        self._adopting = adopting
        self.groups: list[ChildGroup] = []
        self.streamed: int = 0
        self.borrowed: dict[bytes, str] = {}
        self.traces: deque[str] = deque(maxlen=TRACES)

    def owned(self) -> bytes:
        """Return the ids of the children that this step spawned, each once, without the borrowed ones."""
        asked = b"".join(group.ids for group in self.groups)
        ids = distinct_ids(asked)
        if len(ids) < len(asked):
            self._tell_of_equal_inputs()
        if not self.borrowed:
            return ids
        return b"".join(ids[at : at + 16] for at in range(0, len(ids), 16) if ids[at : at + 16] not in self.borrowed)

    def _tell_of_equal_inputs(self) -> None:
        """Say once, of each step and its children, that equal inputs are one child: it surprises."""
        for workflow in {group.workflow for group in self.groups if not group.keyed}:
            asked = b"".join(group.ids for group in self.groups if group.workflow == workflow and not group.keyed)
            inputs, children = len(asked) // ID_BYTES, len(distinct_ids(asked)) // ID_BYTES
            case = (self._task.workflow, self._task.step, workflow)
            if children < inputs and case not in _TOLD:
                _TOLD.add(case)
                _log.info(
                    "step %r of %r has spawned %r with %d inputs, %d %s: equal inputs are one child; "
                    "give key= if each is to have its own",
                    self._task.step,
                    self._task.workflow,
                    workflow,
                    inputs,
                    children,
                    "child" if children == 1 else "children",
                )

    def owner_of(self, child: bytes) -> str:
        """Return the step under which a child's outcome is stored."""
        return self.borrowed.get(child, self._task.step)

    async def spawn_one(
        self,
        workflow: Workflow[Any, Any] | str,
        value: Any,
        key: str | None,
        *,
        detached: bool = False,
        delay: float | None = None,
        level: str | None = None,
        told: Told = None,
    ) -> ChildGroup:
        """Spawn one child. See `Context.spawn_workflow`."""
        begins = None if delay is None else time() + delay
        if key is not None:
            checked_key("a child", key)
        target = await self._resolve(workflow)
        level = self._level(target, level)
        with hooks.spawning(target.workflow) as opened:
            opened.children = 1
            if hooks.meters:
                hooks.add(SPAWNED, 1, {"workflow": target.workflow})
            if detached:
                return await self._spawn_detached(target, value, key, opened.trace, begins, level, told)
            planner = self._planner(target, opened.trace, keyed=key is not None, begins=begins, level=level, told=told)
            return await self._spawn_attached(target, value, key, planner)

    async def _spawn_attached(self, target: Target, value: Any, key: str | None, planner: _Planner) -> ChildGroup:
        planned = await planner.settled(planner.plan(value, key))
        self._check_tree()
        self._count(1)
        if self._adopting is not None:
            if await self._adopting.send(target, [planned]):
                await self._attach(target, [planned])
            return self._add(target, bytearray(planned.id), keyed=key is not None)
        points.before("spawn_one")
        receipt = await self._session.publisher.store(planned.item.subject, planned.item.body, planned.item.headers)
        points.after("spawn_one")
        if not receipt.stored and not receipt.sequence:  # refused by its subject, not recognised by its message id
            await self._attach(target, [planned])
        return self._add(target, bytearray(planned.id), keyed=key is not None)

    async def _spawn_detached(
        self,
        target: Target,
        value: Any,
        key: str | None,
        trace: str | None,
        begins: float | None,
        level: str | None,
        told: Told,
    ) -> ChildGroup:
        """Spawn a root run under a child's id: it belongs to nobody's join, and to no tree but its own."""
        task = self._task
        body = target.input.encode(value)
        digest = target.input.digest(body)
        child = child_id(task.run, target.workflow, key=key, digest=digest)
        if self._adopting is not None and (elder := await self._adopting.detached(target, key, digest)) is not None:
            return ChildGroup(target.workflow, target.output, bytearray.fromhex(elder))
        metadata = task.metadata if told is None else _handed_on(task, told, value)
        root = root_task(target, body, key=key, metadata=metadata, run=child, trace=trace or task.trace)
        root = msgspec.structs.replace(root, depth=task.depth + 1, not_before=begins, level=level)
        if begins is not None and root.deadline is not None:
            root = msgspec.structs.replace(root, deadline=root.deadline + begins - time())
        points.before("spawn_detached")
        await start_root(self._session, root, timeout=None)
        points.after("spawn_detached")
        return ChildGroup(target.workflow, target.output, bytearray.fromhex(child))

    async def spawn(
        self,
        workflow: Workflow[Any, Any] | str,
        inputs: Iterable[Any] | AsyncIterable[Any],
        key: Callable[[Any], str] | None,
        *,
        delay: float | None = None,
        level: str | None = None,
        told: Told = None,
    ) -> ChildGroup:
        """Spawn a child for each input. See `Context.spawn_workflows`."""
        begins = None if delay is None else time() + delay
        target = await self._resolve(workflow)
        level = self._level(target, level)
        group = self._add(target, bytearray(), keyed=key is not None)
        with hooks.spawning(target.workflow) as opened:
            try:
                planner = self._planner(
                    target, opened.trace, keyed=key is not None, begins=begins, level=level, told=told
                )
                await self._spawn_all(target, group, inputs, key, planner)
            finally:
                opened.children = len(group.ids) // ID_BYTES
                if hooks.meters:
                    hooks.add(SPAWNED, opened.children, {"workflow": target.workflow})
        return group

    async def by_pages(
        self, workflow: Workflow[Any, Any] | str, *, keyed: bool, level: str | None, tells: bool
    ) -> SpawnedPages:
        """Return what spawns children of a stream page by page, and ``tells`` them more. Their ids are not kept."""
        target = await self._resolve(workflow)
        told = _nothing_more if tells else None  # what each is told comes with it
        planner = self._planner(target, None, keyed=keyed, level=self._level(target, level), told=told)
        return SpawnedPages(self, target, planner)

    async def store_page(self, target: Target, page: list[Planned]) -> list[Planned]:
        """Store the tasks of some children, and return those that were there before."""
        self._check_cancelled()
        self._check_tree()
        points.before("spawn_batch_sent")
        stored = self._ingest.publish([planned.item for planned in page])
        points.after("spawn_batch_sent")
        points.before("spawn_batch")
        existing = [page[at] for at in await stored]
        points.after("spawn_batch")
        if existing:
            await self._attach(target, existing)
        self.streamed += len(page)
        if hooks.meters:
            hooks.add(SPAWNED, len(page), {"workflow": target.workflow})
        return existing

    async def tree_size(self, added: int) -> int | None:
        """Count children in their tree, and return how many descendants it has; None if nobody knows."""
        subject = self._tree_counter()
        if added:
            receipt: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()

            def on_size(counted: Receipt) -> None:
                self._on_tree_size(counted)
                if not receipt.done():
                    receipt.set_result(counted.value)

            self._session.publisher.count(subject, added, on_size)
            return await receipt
        points.before("read_tree_size")
        stored = await self._session.store.leader_last(self._session.names.counters_stream, subject)
        points.after("read_tree_size")
        return 0 if stored is None else int(msgspec.json.decode(stored.body, type=_Counter).val)

    def _tree_counter(self) -> str:
        root = self._task.root
        return self._session.names.counter("tree", StepAddress(root, root, TREE))

    async def _spawn_all(
        self,
        target: Target,
        group: ChildGroup,
        inputs: Iterable[Any] | AsyncIterable[Any],
        key: Callable[[Any], str] | None,
        planner: _Planner,
    ) -> None:
        under_way: deque[tuple[list[Planned], asyncio.Future[list[int]]]] = deque()
        batch: list[Planned] = []
        size, pace = 0, Pace()
        try:
            async for values in paced(inputs, pace):
                planned = [planner.plan(value, None if key is None else key(value)) for value in values]
                if planner.large:
                    planned = [await planner.settled(one) for one in planned]
                batch += planned
                size += (added := sum(map(len, map(_body_of, planned))))
                nothing_more = len(values) < pace.at_once
                if len(batch) > BATCH - AT_ONCE or size >= BATCH_BYTES or nothing_more:
                    under_way.append(self._send(target, batch))
                    batch, size = [], 0
                pace.set(added, len(values))
                if len(under_way) == BATCHES_UNDER_WAY:
                    await self._confirm(target, group, *under_way.popleft())
                else:
                    await asyncio.sleep(0)
            if batch:
                under_way.append(self._send(target, batch))
        finally:
            while under_way:
                await self._confirm(target, group, *under_way.popleft())

    def _send(self, target: Target, batch: list[Planned]) -> tuple[list[Planned], asyncio.Future[list[int]]]:
        """Send a batch, and return it with the future of its acknowledgement."""
        self._check_cancelled()
        self._check_tree()
        self._count(len(batch))
        if self._adopting is not None:
            return batch, asyncio.ensure_future(self._adopting.send(target, batch))
        points.before("spawn_batch_sent")
        stored = self._ingest.publish([planned.item for planned in batch])
        points.after("spawn_batch_sent")
        return batch, stored

    def _level(self, target: Target, level: str | None) -> str | None:
        """Return the level of children, which is that of this run where nothing else is said.

        Raises:
            UnknownLevel: their workflow does not declare it.
        """
        return self._task.level if level is None else checked_level(target.workflow, target.levels, level)

    def _planner(
        self,
        target: Target,
        trace: str | None,
        *,
        keyed: bool,
        level: str | None,
        begins: float | None = None,
        told: Told = None,
    ) -> _Planner:
        """Return a planner of children that are spawned in a span, if there is one."""
        task = self._task
        if trace is not None:
            self.traces.append(trace)
            task = msgspec.structs.replace(task, trace=trace)
        common_task = task
        if told is not None:  # what is told of each stands in the headers of each
            metadata = None if callable(told) else handed_on(task.metadata, told)
            common_task = msgspec.structs.replace(task, metadata=metadata)
        common = _common_headers(common_task, target, self._policy, shared=self._shared, begins=begins, level=level)
        return _Planner(self._session, task, target, common, keyed=keyed, told=told if callable(told) else None)

    async def _resolve(self, workflow: Workflow[Any, Any] | str) -> Target:
        points.before("resolve")
        target = await resolve(self._session, workflow)
        points.after("resolve")
        if self._task.depth + 1 > self._limits.max_depth:
            raise DepthExceeded(target.workflow, self._task.depth + 1, self._limits.max_depth)
        self._check_cancelled()
        return target

    def _check_cancelled(self) -> None:
        if self._cancelled():
            raise RunCancelled(f"run {self._task.run} was cancelled: it spawns nothing more")

    def _count(self, spawned: int) -> None:
        """Count children in their tree. A later attempt, which finds most of them spawned, is not counted again."""
        if self.counted:
            self.count_in_tree(spawned)

    def count_in_tree(self, added: int) -> None:
        """Count children that were not there before."""
        if added:
            self._session.publisher.count(self._tree_counter(), added, self._on_tree_size)

    def _on_tree_size(self, receipt: Receipt) -> None:
        if receipt.value is not None and receipt.value > self._limits.max_descendants:
            self._limits.full.add(self._task.root)

    def _check_tree(self) -> None:
        if self._task.root in self._limits.full:
            raise TreeTooLarge(self._task.root, self._limits.max_descendants)

    def _add(self, target: Target, ids: bytearray, *, keyed: bool) -> ChildGroup:
        group = ChildGroup(target.workflow, target.output, ids, keyed=keyed)
        self.groups.append(group)
        return group

    async def _confirm(
        self, target: Target, group: ChildGroup, batch: list[Planned], done: asyncio.Future[list[int]]
    ) -> None:
        """Wait until a batch is stored. Children that the server did not take are not waited for."""
        points.before("spawn_batch")
        existing = await done
        points.after("spawn_batch")
        group.ids += b"".join(planned.id for planned in batch)
        if existing:
            await self._attach(target, [batch[at] for at in existing])

    async def _attach(self, target: Target, refused: list[Planned]) -> None:
        """Check children that exist: with the same input they are ours, or another step's; else the key is taken."""
        store, stream = self._session.store, self._session.names.tasks_stream
        found: dict[str, Stored] = {}
        points.before("attach")
        async for page in store.many(stream, [planned.item.subject for planned in refused]):
            found.update((stored.subject, stored) for stored in page)
        conflict: KeyConflict | None = None
        for planned in refused:
            stored = found.get(planned.item.subject) or await store.leader_last(stream, planned.item.subject)
            while stored is None:  # refused for the sake of one that was then lost with its leader
                item = planned.item
                receipt = await self._session.publisher.store(item.subject, item.body, item.headers)
                if receipt.stored or receipt.sequence:
                    break
                stored = await store.leader_last(stream, planned.item.subject)
            if stored is None:
                continue
            owner = stored.headers.get(Header.PARENT_STEP, self._task.step)
            if owner != self._task.step:
                self.borrowed[planned.id] = owner
            digest = stored.headers.get(Header.DIGEST, "")
            if planned.key is not None and digest != planned.digest:
                conflict = KeyConflict(target.workflow, planned.key, planned.id.hex(), digest, planned.digest)
        points.after("attach")
        if conflict is not None:  # raised last: a step that goes on after it waits for the others where they count
            raise conflict


class SpawnedPages:
    """Spawns the children of one stream. Those that were there before belong to it as well."""

    def __init__(self, spawner: Spawner, target: Target, planner: _Planner) -> None:
        self._spawner = spawner
        self._planner = planner
        self.target = target

    async def plan(
        self, values: Sequence[Any], keys: Sequence[str] | None, told: Sequence[bytes] | None
    ) -> list[Planned]:
        """Return the messages that spawn children. ``told`` are metadata of each."""
        given = keys if keys is not None else [None] * len(values)
        if told is None:
            planned = [self._planner.plan(value, key) for value, key in zip(values, given, strict=True)]
        else:
            planned = [self._planner.plan(*each) for each in zip(values, given, told, strict=True)]
        return [await self._planner.settled(one) for one in planned] if self._planner.large else planned

    async def store(self, page: list[Planned]) -> list[Planned]:
        """Store the tasks of some children, and return those that were there before."""
        return await self._spawner.store_page(self.target, page)


class _Planner:
    """Turns inputs of one workflow into messages; what all of them share is built once."""

    def __init__(
        self,
        session: Session,
        task: Task,
        target: Target,
        common: dict[str, str],
        *,
        keyed: bool,
        told: Callable[[Any], bytes] | None = None,
    ) -> None:
        self._session = session
        self._target = target
        self._inherited = task.metadata
        self._told = told
        self._root = task.root
        self._step = task.step
        self._id_of = child_ids(task.run, target.workflow, keyed=keyed)
        self._subject = session.names.child_tasks(target.workflow, target.first, task.root, task.run)
        self._common = header_block(common)[:-2]
        self.large: bool = False

    def plan(self, value: Any, key: str | None, told: bytes | None = None) -> Planned:
        """Return the message that spawns a child. ``told`` are metadata that it alone is told.

        One with a large input has to be `settled` before it is sent.
        """
        body = self._target.input.encode(value)
        digest = self._target.input.digest(body)
        if key is None:
            child = self._id_of(digest)
            run = child.hex()
            own = f"{Header.MESSAGE_ID}: {run}.{self._step}\r\n\r\n"  # the id tells the digest
        else:
            child = self._id_of(key if type(key) is str else checked_key("a child", key))
            run = child.hex()
            own = (
                f"{Header.MESSAGE_ID}: {run}.{self._step}.{digest}\r\n{Header.DIGEST}: {digest}\r\n"
                f"{Header.KEY}: {shown_key(key)}\r\n\r\n"
            )
        if self._told is not None:
            metadata = handed_on(self._inherited, self._told(value) if told is None else told).decode()
            own = f"{Header.METADATA}: {metadata}\r\n{own}"
        if len(body) > SMALL and is_large(self._session, body):
            self.large = True
        before, after = self._subject
        return Planned(child, key, digest, Item(f"{before}{run}{after}", self._common + own.encode(), body))

    async def settled(self, planned: Planned) -> Planned:
        """Return the message with a large input stored, and only referred to."""
        item = planned.item
        if not is_large(self._session, item.body):
            return planned
        check_size(f"the input of a child run of {self._target.workflow!r}", item.body)
        points.before("store_input")
        value = await put(self._session, self._root, item.body)
        points.after("store_input")
        headers = item.headers[:-2] + f"{Header.VALUE}: {value}\r\n\r\n".encode()
        return msgspec.structs.replace(planned, item=Item(item.subject, headers, b""))


def _nothing_more(_: Any) -> bytes:
    return b"{}"


def _handed_on(task: Task, told: bytes | Callable[[Any], bytes], value: Any) -> bytes:
    return handed_on(task.metadata, told(value) if callable(told) else told)


def _common_headers(
    task: Task, target: Target, policy: JoinPolicy, *, shared: bool, begins: float | None, level: str | None
) -> dict[str, str]:
    headers = {
        Header.PARENT_STEP: task.step,
        Header.VERSION: target.version,
        Header.DEPTH: str(task.depth + 1),
    }
    if task.metadata is not None:
        headers[Header.METADATA] = task.metadata.decode()
    if task.trace is not None:
        headers[Header.TRACE] = task.trace
    deadlines = [task.deadline] if task.deadline is not None else []
    if policy.seconds is not None:
        deadlines.append(time() + policy.seconds)
    if target.deadline is not None:  # it has all of it from when it begins
        deadlines.append((begins or time()) + target.deadline)
    if deadlines:
        headers[Header.DEADLINE] = f"{min(deadlines):.3f}"
    if task.places or task.held:
        headers[Header.HELD] = " ".join(one for one in (task.held, task.places) if one)
    if begins is not None:
        headers[Header.NOT_BEFORE] = f"{begins:.3f}"
    if policy.early:
        headers[Header.EAGER] = "1"
    if level is not None:
        headers[Header.LEVEL] = level
    if shared:
        headers[Header.SHARED] = "1"
    return headers
