"""What one running step says: chunks, progress and log lines, on their way to the broker.

Nobody who reads holds up a step. Chunks wait only for the broker, and only where a thousand of them are not yet
acknowledged; progress and lines never do, and are dropped where there are too many. What cannot be stored is told of
once, in the worker's log, and fails no step.

Chunks are written on the event loop's thread; `Voice.progress` and `Voice.log` may be called from any.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping
from functools import partial
from time import time
from typing import Any, Final, TypeAlias

from jetflow.broker.publisher import Receipt
from jetflow.broker.session import Session
from jetflow.engine.output import LARGEST_CHUNK, Bounds, Writing, wait_before_next
from jetflow.engine.tasks import Task
from jetflow.errors import BrokerError, InvalidInput, PayloadTooLarge, StepEnded
from jetflow.runs import points
from jetflow.wire.codec import written
from jetflow.wire.output import (
    LOG,
    OUT,
    PROGRESS,
    OutputNames,
    Place,
    WrittenLine,
    WrittenProgress,
    headers_of,
    line_of,
    written_lines,
)
from jetflow.wire.records import encode

Loop: TypeAlias = asyncio.AbstractEventLoop

CHUNKS_ON_THEIR_WAY: Final = 1000
"""Chunks of one step that may be without an acknowledgement."""

BYTES_ON_THEIR_WAY: Final = 4 * 1024 * 1024
"""Bytes of them."""

LINES_WAITING: Final = 1000
"""Log lines of one step that may wait for being sent; later ones are dropped, and counted."""

LINES_AT_ONCE: Final = 200
"""Log lines in one message."""

LINES_EVERY: Final = 0.05
"""Seconds for which log lines gather."""

LINES_IN_ALL: Final = 10_000
"""Log lines of one attempt that are kept."""

LINE_BYTES_IN_ALL: Final = 8 * 1024 * 1024
"""Bytes of their messages."""

GIVEN_UP_AFTER: Final = 30.0
"""Seconds after which what the broker has not taken is given up: the attempt then says nothing any more."""

SAID_WITHIN: Final = 5.0
"""Seconds in which what a step has said last must be stored before its end is recorded."""

_log = logging.getLogger("jetflow.worker")


class Voice:
    """What one attempt of a step says. `close` it when its body has ended."""

    def __init__(
        self, session: Session, names: OutputNames, task: Task, attempt: int, delivery: int, loop: Loop
    ) -> None:
        self._session = session
        self._names = names
        self.task: Task = task
        self._place = Place(attempt, Writing(task.turn, delivery))
        self._loop = loop
        self._silent = False  # since something could not be stored
        self._closed = False
        self._making: asyncio.Task[None] | None = None
        self._room = Bounds(CHUNKS_ON_THEIR_WAY, BYTES_ON_THEIR_WAY)
        self._moved = asyncio.Event()
        self._open = 0  # messages without an acknowledgement
        self._index = 0
        self._lock = threading.Lock()  # of what other threads write
        self._lines: list[WrittenLine] = []
        self._lines_left = Bounds(LINES_IN_ALL, LINE_BYTES_IN_ALL)
        self._dropped = 0
        self._batches = 0
        self._telling_lines = False
        self._newest: WrittenProgress | None = None
        self._values = 0
        self._told_at: float | None = None
        self._telling = False
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._asked: set[str] = set()

    # --- chunks

    async def chunk(self, value: Any) -> None:
        """See `Context.stream`."""
        raw = bytes(value) if isinstance(value, bytes | bytearray) else None
        body = written(value, "a chunk") if raw is None else raw
        await self.written_chunk(body, raw is not None)

    async def written_chunk(self, body: bytes, is_raw: bool) -> None:
        """Store a chunk that is written already: as JSON, or, if it ``is_raw``, bytes as they are."""
        if len(body) > LARGEST_CHUNK:
            raise PayloadTooLarge(f"a chunk of step {self.task.step!r}", len(body), LARGEST_CHUNK)
        self._check_open()
        await self._made()
        while self._room.is_used_up and not self._silent:
            self._moved.clear()
            await self._moved.wait()
        self._check_open()
        if self._silent:
            return
        index, self._index = self._index, self._index + 1
        self._room.take(len(body))
        points.before("store_chunk")
        self._send(OUT, str(index), body, partial(self._room.give, len(body)), index=index, is_raw=is_raw)
        points.after("store_chunk")

    # --- progress

    def progress(self, fraction: float, text: str = "") -> None:
        """See `Context.progress`."""
        self._check_open()
        if not 0 <= fraction <= 1:
            raise InvalidInput(f"ctx.progress({fraction!r}): from 0 to 1")
        with self._lock:
            self._newest = WrittenProgress(float(fraction), str(text)[:1000].encode(errors="replace").decode())
        self._soon(PROGRESS)

    def _tell_progress(self) -> None:
        if self._telling or self._newest is None:
            return
        now = self._loop.time()
        wait = 0.0 if self._closed else wait_before_next(now, self._told_at)
        if wait:
            self._later(PROGRESS, wait)
            return
        with self._lock:
            newest, self._newest = self._newest, None
        self._told_at, self._telling = now, True
        self._values += 1

        def done() -> None:
            self._telling = False
            self._tell_progress()

        self._send(PROGRESS, f"p{self._values}", encode(newest), done)

    # --- log lines

    def log(
        self,
        level: str,
        message: str,
        *,
        logger: str = "",
        fields: Mapping[str, Any] | None = None,
        at: float | None = None,
    ) -> None:
        """See `Context.log`. What is too much is dropped; a later line says how much it was."""
        line = line_of(time() if at is None else at, level, message, logger, dict(fields or {}))
        with self._lock:
            is_full = len(self._lines) >= LINES_WAITING or self._lines_left.is_used_up
            if self._closed or self._silent or is_full:
                self._dropped += 1
                return
            self._lines_left.take(len(line.message))
            self._lines.append(line)
        self._soon(LOG)

    def _tell_lines(self) -> None:
        """Send the lines that have gathered, one message at a time."""
        if self._telling_lines:
            return
        with self._lock:
            lines, self._lines = self._lines[:LINES_AT_ONCE], self._lines[LINES_AT_ONCE:]
            dropped = 0
            if not self._lines:
                dropped, self._dropped = self._dropped, 0
        if dropped:
            told = f"{dropped} more lines of this step were dropped: there were too many"
            lines.append(WrittenLine(at=time(), level="warning", message=told, logger="jetflow"))
        if not lines:
            return
        self._batches += 1
        self._telling_lines = True

        def done() -> None:
            self._telling_lines = False
            self._tell_lines()

        self._send(LOG, f"l{self._batches}", written_lines(lines), done)

    # --- sending

    def _soon(self, what: str) -> None:
        """Have something told, from whichever thread."""
        with self._lock:
            if what in self._asked:
                return
            self._asked.add(what)
        self._loop.call_soon_threadsafe(self._later, what, LINES_EVERY if what == LOG else 0.0)

    def _later(self, what: str, wait: float) -> None:
        if what not in self._timers:
            self._timers[what] = self._loop.call_later(wait, self._tell, what)

    def _tell(self, what: str) -> None:
        self._timers.pop(what, None)
        with self._lock:
            self._asked.discard(what)
        if self._silent:
            return
        if self._making is None or not self._making.done():
            self._begin_making().add_done_callback(lambda _: self._tell(what))
        elif what == LOG:
            self._tell_lines()
        else:
            self._tell_progress()

    def _begin_making(self) -> asyncio.Task[None]:
        if self._making is None:
            self._making = self._loop.create_task(self._make())
        return self._making

    async def _made(self) -> None:
        """Wait until the stream is there; the step's own cancellation is no reason to stop making it."""
        making = self._begin_making()
        if not making.done():
            await asyncio.shield(making)

    async def _make(self) -> None:
        try:
            async with asyncio.timeout(GIVEN_UP_AFTER):
                await self._session.optional.ensure(self._names.stream)
        except (BrokerError, TimeoutError) as error:
            self._fall_silent(error)

    def _fall_silent(self, error: BaseException) -> None:
        if not self._silent:
            task = self.task
            _log.warning(
                "run %s: what step %r of %r says is not kept any more: %s",
                task.run,
                task.step,
                task.workflow,
                error or "the broker does not take it",
            )
        self._silent = True
        self._session.optional.forget(self._names.stream)
        self._moved.set()

    def _send(
        self,
        kind: str,
        number: str,
        body: bytes,
        done: Callable[[], None],
        *,
        index: int | None = None,
        is_raw: bool = False,
    ) -> None:
        task, writing = self.task, self._place.writing
        message_id = f"{task.run}.{task.step}.{writing.turn}.{writing.delivery}.{number}"
        headers = headers_of(self._place, message_id, index=index, is_raw=is_raw)
        self._open += 1

        def settled(receipt: Receipt) -> None:
            self._open -= 1
            if receipt.error is not None:
                self._fall_silent(receipt.error)
            done()
            self._moved.set()

        subject = self._names.said(kind, task.join)
        self._session.publisher.publish(subject, body, headers, settled, timeout=GIVEN_UP_AFTER)

    # --- its end

    def _check_open(self) -> None:
        if self._closed:
            raise StepEnded(self.task.step, self.task.run)

    async def close(self) -> None:
        """Wait until all is stored, ``SAID_WITHIN`` seconds at most: readers find it all when the run has ended."""
        self._closed = True
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        points.before("say_last")
        try:
            async with asyncio.timeout(SAID_WITHIN):
                if self._lines or self._dropped or self._newest is not None:
                    await self._made()
                    if not self._silent:
                        self._tell_progress()
                        self._tell_lines()
                while self._open and not self._silent:
                    self._moved.clear()
                    await self._moved.wait()
        except TimeoutError:
            self._fall_silent(TimeoutError(f"not stored within {SAID_WITHIN:g} s of the step's end"))
        points.after("say_last")
