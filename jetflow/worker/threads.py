"""The threads that plain ``def`` steps run in.

A thread cannot be stopped. So these are daemon threads, which Python does not wait for at its end, and as many as there
are calls: one that never returns takes no place from the others.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any

from jetflow import forks


class Call:
    """One call in a thread: ``thread`` by its ident. ``has_ended`` says that it has returned, or was never called."""

    __slots__ = ("function", "has_ended", "loop", "result", "thread")

    def __init__(self, function: Callable[[], Any]) -> None:
        self.function: Callable[[], Any] = function
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self.result: asyncio.Future[Any] = self.loop.create_future()
        self.has_ended: bool = False
        self.thread: int = 0

    @property
    def is_hung(self) -> bool:
        """Whether it goes on though nobody waits for it."""
        return self.result.cancelled() and not self.has_ended

    def make(self) -> tuple[Any, BaseException | None]:
        """Call the function, unless nobody waits for it, and return its value or its error."""
        if self.result.cancelled():
            return None, None
        self.thread = threading.get_ident()
        try:
            return self.function(), None
        except StopIteration as stop:  # which no future takes; a generator turns it into this, too
            error = RuntimeError("the function raised StopIteration")
            error.__cause__ = stop
            return None, error
        except BaseException as error:  # whatever it is, it is how the call has ended
            return None, error

    def end(self, value: Any, error: BaseException | None) -> None:
        """Tell the event loop what came of it."""
        self.has_ended = True
        with suppress(RuntimeError):  # the loop is closed, and nobody waits
            self.loop.call_soon_threadsafe(self._settle, value, error)

    def _settle(self, value: Any, error: BaseException | None) -> None:
        if self.result.done():
            return
        if error is None:
            self.result.set_result(value)
        else:
            self.result.set_exception(error)


class Threads:
    """Calls functions in threads. `close` lets those go that have nothing to do."""

    def __init__(self) -> None:
        self._born = forks.generation()
        self._calls: SimpleQueue[Call | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._idle = 0
        self._started = 0
        self._under_way: set[Call] = set()

    def has_hung(self, more_than: int) -> bool:
        """Tell whether so many threads go on though nobody waits for them any more."""
        under_way = self._under_way
        return len(under_way) > more_than and sum(call.is_hung for call in list(under_way)) > more_than

    def call(self, function: Callable[[], Any]) -> Call:
        """Call a function in a thread of its own."""
        call = Call(function)
        self._under_way.add(call)
        with self._lock:
            starts = self._idle == 0
            if starts:
                self._started += 1
            else:
                self._idle -= 1
        self._calls.put(call)
        if starts:
            name = f"jetflow-step_{self._started}"
            threading.Thread(target=self._serve, name=name, daemon=True).start()
        return call

    def close(self) -> None:
        """Let the idle threads go; the others end behind what they are at."""
        for _ in range(self._started):
            self._calls.put(None)

    def _serve(self) -> None:
        while (call := self._calls.get()) is not None:
            value, error = call.make()
            if forks.is_child(self._born):  # the function has forked, and this is the child's return from it
                forks.end_child()
            self._under_way.discard(call)
            with self._lock:
                self._idle += 1  # before anybody hears of the end, and calls again
            call.end(value, error)
            del call, value, error
