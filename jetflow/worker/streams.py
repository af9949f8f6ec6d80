"""Streams of children in the worker: spawned while the window has room, and forgotten when they have ended.

What is held of a stream is its window (`jetflow.engine.windows`): the ids of the children that are open. How far it has
come is stored as pages, write-once under how many were spawned; whoever goes on reads the newest. A page is stored only
behind the tasks that it tells of. A child is listened for before its task is stored.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeAlias

import msgspec

from jetflow.broker.session import Session
from jetflow.children import Streamed
from jetflow.engine.identity import once_token
from jetflow.engine.policies import ALL_SUCCEED
from jetflow.engine.tasks import Outcome, Task
from jetflow.engine.windows import PAGE, AskedStream, Page, Window
from jetflow.errors import MalformedRecord, SourceChanged
from jetflow.runs import points
from jetflow.runs.values import LostValue, get, is_large, put, with_readable_output
from jetflow.wire.codec import Codec
from jetflow.wire.records import decode_page, encode
from jetflow.worker.spawning import SpawnedPages, Spawner
from jetflow.worker.waiting import Waiting
from jetflow.worker.waits import Wait
from jetflow.workflow import Workflow

AT_ONCE: Final = 250
"""Children of a stream that are planned and stored at a time, at most."""

CancelOpen: TypeAlias = Callable[[set[bytes]], Awaitable[None]]

_log = logging.getLogger("jetflow.worker")


class ChildStream:
    """One stream of children of a running step; see `jetflow.host.ChildStream`."""

    def __init__(
        self,
        session: Session,
        task: Task,
        spawner: Spawner,
        waiting: Waiting,
        asked: AskedStream,
        cancel_open: CancelOpen,
        *,
        look_out: Callable[[str, int], None],
    ) -> None:
        self._session = session
        self._task = task
        self._spawner = spawner
        self._waiting = waiting
        self._asked = asked
        self._cancel_open = cancel_open
        self._look_out = look_out
        self._token = once_token(asked.name)
        self._descendants: int | None = None
        self._pages: SpawnedPages
        self._window: Window
        self._wait: Wait
        self._found_below = 0
        self._taken: list[Outcome] = []
        self._is_closed = False
        self._ends = False

    async def open(self, workflow: Workflow[Any, Any] | str) -> None:
        """Go on from the newest page that is stored, or begin."""
        self._pages = await self._spawner.by_pages(
            workflow, keyed=self._asked.keyed, level=self._asked.level, tells=self._asked.tells
        )
        self._window = window = Window(self._asked.window, await self._newest_page())
        self._spawner.streamed += window.spawned
        self._wait = await self._waiting.open_stream()
        again = window.spawned > 0 or not self._spawner.counted
        self._found_below = window.spawned + max(PAGE, window.size) if again else 0
        self._ends = bool(window.stopped)
        self._waiting.widen(self._wait, list(window.open), unread=True)

    @property
    def workflow(self) -> str:
        """The name of the children's workflow."""
        return self._pages.target.workflow

    @property
    def codec(self) -> Codec[Any]:
        """How their outputs are read."""
        return self._pages.target.output

    @property
    def spawned(self) -> int:
        """How many were spawned."""
        return self._window.spawned

    @property
    def last(self) -> str:
        """The id of the last of them."""
        return self._window.last

    @property
    def position(self) -> bytes:
        """Behind which position the source goes on, as JSON."""
        return bytes(self._window.position)

    @property
    def state(self) -> bytes:
        """What was folded, as JSON."""
        return bytes(self._window.state)

    @property
    def is_over(self) -> bool:
        """Whether nothing more is spawned."""
        return bool(self._window.stopped)

    async def places(self) -> int:
        """Wait for room, and return how many children may be spawned; 0 if the stream spawns nothing more."""
        window = self._window
        while not window.stopped and not window.room:
            await self._take(max(1, len(window.open) // 2))
        if not window.stopped and self._wait.arrived:
            await self._take(1)
        if window.stopped:
            return 0
        places = min(window.room, AT_ONCE)
        if self._asked.budget is not None:
            if self._descendants is None:
                self._descendants = await self._spawner.tree_size(0)
            places = min(places, self._asked.budget - (self._descendants or 0))
            if places <= 0:
                window.stopped = "budget"
                return 0
        return places

    async def taken(self) -> list[Outcome]:
        """Return those that have ended well since it was asked last, of a stream that folds them."""
        taken, self._taken = self._taken, []
        return [
            one if one.value is None else await with_readable_output(self._session, self._task.root, one)
            for one in taken
        ]

    async def put(
        self,
        values: Sequence[Any],
        keys: Sequence[str] | None,
        position: bytes | None,
        state: bytes | None,
        told: Sequence[bytes] | None,
    ) -> None:
        """Spawn a child for each of some inputs, for which there are places. All that were taken are in ``state``."""
        planned = await self._pages.plan(values, keys, told)
        window = self._window
        ids = [one.id for one in planned]
        may_be_found = window.spawned < self._found_below
        window.spawn(ids)
        self._waiting.widen(self._wait, ids, unread=may_be_found)
        existing = await self._pages.store(planned)
        if existing:
            self._waiting.widen(self._wait, [one.id for one in existing], unread=True)
        if position is not None:
            window.position = msgspec.Raw(position)
        self._look_out(self.workflow, len(planned))
        await self._count(len(planned) - len(existing))
        if state is not None:
            window.state = msgspec.Raw(state)
        if window.is_page_due:
            await self._store_page()

    async def _count(self, added: int) -> None:
        size = await self._spawner.tree_size(added) if self._asked.budget is not None else None
        if self._asked.budget is None:
            self._spawner.count_in_tree(added)
        else:
            self._descendants = size if size is not None else (self._descendants or 0) + added

    async def check(self, value: Any, key: str | None) -> None:
        """Refuse a source whose last input that was taken before is another one now.

        Raises:
            SourceChanged: it is.
        """
        [planned] = await self._pages.plan([value], None if key is None else [key], None)
        if planned.id.hex() != self._window.last:
            raise SourceChanged(self.workflow, self.spawned, self._window.last, planned.id.hex())

    async def drain(self, state: bytes | None) -> bool:
        """Wait until another child has ended, and tell whether there was one. Nothing more is spawned from now on."""
        window = self._window
        window.stopped = window.stopped or "source"
        if not self._ends:
            self._ends = True
            if state is not None:
                window.state = msgspec.Raw(state)
            if window.spawned:
                await self._store_page("-stopped")
        if window.stopped == "failure" or not window.open:
            return False
        await self._take(len(window.open))
        return True

    async def finish(self) -> Streamed:
        """Tell what became of a stream that is drained. Those that a failure has left open are cancelled."""
        window = self._window
        policy = self._asked.policy or ALL_SUCCEED
        if window.stopped == "failure" and window.open:
            points.before("cancel_open")
            await self._cancel_open(set(window.open))
            points.after("cancel_open")
        verdict = policy.verdict(window.spawned, window.spawned - window.failed, window.spawned)
        return Streamed(
            spawned=window.spawned,
            failed=window.failed,
            met=verdict == "met" and window.stopped != "failure",
            stopped=window.stopped or "source",
            failures=tuple(window.failures),
        )

    def close(self) -> None:
        """Wait for nothing more. Safe to call twice."""
        if not self._is_closed:
            self._is_closed = True
            self._waiting.close_stream(self._wait)

    async def _take(self, parks_for: int) -> None:
        """Wait until some have ended."""
        for child, outcome in await self._waiting.some_of(self._wait, parks_for):
            well = outcome.status == "succeeded"
            times = self._window.end(child, well=well)
            if well and self._asked.folds:
                self._taken += [outcome] * times
            if child in self._spawner.borrowed:
                self._waiting.joined.add(child)
        policy = self._asked.policy
        if policy is not None and policy.early and self._window.failed > policy.tolerated and not self.is_over:
            self._window.stopped = "failure"

    # --- pages

    async def _store_page(self, suffix: str = "") -> None:
        """Store how far the stream is. One that is stored already under the same number is as true."""
        window, session = self._window, self._session
        subject = session.names.page(self._task.join, self._token, f"{window.spawned}{suffix}")
        body = encode(window.page())
        if is_large(session, body):
            body = encode(Page(spawned=window.spawned, whole=await put(session, self._task.root, body)))
        points.before("store_page")
        await session.publisher.store(subject, body)
        points.after("store_page")

    async def _newest_page(self) -> Page:
        """Return the page to go on from. One that cannot be read is none: what was spawned is found again."""
        if self._spawner.counted:
            return Page()
        session = self._session
        points.before("read_page")
        subject = session.names.page(self._task.join, self._token, "*")
        stored = await session.store.leader_last(session.names.records_stream, subject)
        points.after("read_page")
        if stored is None:
            return Page()
        try:
            page = decode_page(stored.body)
            return page if page.whole is None else decode_page(await get(session, self._task.root, page.whole))
        except (MalformedRecord, LostValue) as error:
            _log.warning("run %s: a stream of step %r begins anew: %s", self._task.run, self._task.step, error)
            return Page()
