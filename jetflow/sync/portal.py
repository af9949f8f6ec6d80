"""The way from plain code to an event loop: a thread that runs one, and is asked from any other thread.

Each process has its own: a forked one leaves its parent's thread, loop and connection alone, and starts anew when it is
first asked. All that is shared between threads is under one lock.
"""

from __future__ import annotations

import asyncio
import atexit
import threading
import warnings
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from concurrent.futures import CancelledError
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any, Final, Generic, TypeVar
from weakref import WeakSet

from jetflow import forks
from jetflow.errors import ClientClosed, WrongEventLoop

C = TypeVar("C")
T = TypeVar("T")

_END: Final[Any] = object()
_CLOSED: Final = "this client was closed: make another one with jetflow.sync.connect()"

_open: Final[WeakSet[Portal[Any]]] = WeakSet()
_left_behind: Final[list[object]] = []
"""What a forked process has of its parent's event loops: to let go of them would end what is the parent's."""


class Portal(Generic[C]):
    """Opens something on an event loop of its own, and calls it from other threads. `close` it at the end."""

    def __init__(self, opening: Callable[[], AbstractAsyncContextManager[C]]) -> None:
        self._opening = opening
        self._lock = threading.RLock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._held: AbstractAsyncContextManager[C] | None = None
        self._one: C | None = None
        self._is_closed = False
        self._born = forks.generation()
        forks.in_child(self, Portal[C].leave)
        _open.add(self)

    def open(self) -> C:
        """Return what is open, and open it first if need be.

        Raises:
            ClientClosed: it was closed.
        """
        with self._lock:
            if self._is_closed:
                raise ClientClosed(_CLOSED)
            if self._one is None:
                self._start()
                held = self._opening()
                try:
                    self._one = self._wait(held.__aenter__())
                except BaseException:
                    self._stop()
                    raise
                self._held = held
            return self._one

    def call(self, function: Callable[[C], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine of what is open, and return its result. What interrupts the wait cancels it."""
        return self._wait(function(self.open()))

    def each(self, function: Callable[[C], AsyncGenerator[T]]) -> Iterator[T]:
        """Yield what an asynchronous generator yields. It is closed when nobody asks for more."""
        items = function(self.open())
        try:
            while (item := self._wait(_next(items))) is not _END:
                yield item
        finally:
            with suppress(ClientClosed):
                self._wait(_close(items))

    def close(self) -> None:
        """Close what is open, and end the thread. Safe to call twice."""
        with self._lock:
            self._is_closed = True
            held, self._held, self._one = self._held, None, None
            try:
                if held is not None:
                    self._wait(_leave(held))
            finally:
                self._stop()

    def __del__(self) -> None:
        loop = self._loop
        if loop is not None and not forks.is_child(self._born):
            warnings.warn("a client of jetflow.sync was not closed", ResourceWarning, source=self, stacklevel=2)
            loop.call_soon_threadsafe(loop.stop)

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        loop, thread = self._loop, self._thread
        if loop is None or thread is None:  # another thread has closed it
            work.close()
            raise ClientClosed(_CLOSED)
        if thread is threading.current_thread():  # it would wait for itself
            work.close()
            raise WrongEventLoop("a sync client cannot be used from its own event loop: use jetflow.connect there")
        try:
            asked = asyncio.run_coroutine_threadsafe(work, loop)
        except RuntimeError as error:  # the loop was closed meanwhile
            work.close()
            raise ClientClosed(_CLOSED) from error
        try:
            return asked.result()
        except CancelledError:
            raise ClientClosed(_CLOSED) from None
        except BaseException:
            asked.cancel()
            raise

    def _start(self) -> None:
        loop = self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=_run, args=(loop,), name="jetflow-sync", daemon=True)
        self._thread.start()

    def _stop(self) -> None:
        loop, self._loop = self._loop, None
        thread, self._thread = self._thread, None
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()

    def leave(self) -> None:
        """In a forked child: forget what is the parent's. The lock may be held by a thread that is not here."""
        _left_behind.extend((self._loop, self._held, self._one))
        self._lock = threading.RLock()
        self._born = forks.generation()
        self._loop = self._thread = self._held = self._one = None


async def _next(items: AsyncGenerator[T]) -> T:
    return await anext(items, _END)


async def _close(items: AsyncGenerator[Any]) -> None:
    await items.aclose()


async def _leave(held: AbstractAsyncContextManager[Any]) -> None:
    await held.__aexit__(None, None, None)


def _run(loop: asyncio.AbstractEventLoop) -> None:
    """Run an event loop until it is stopped; then end what still runs on it, with an error for whoever waits."""
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()


@atexit.register
def _close_all() -> None:
    """Close at the end of the program what its user has left open, so that nothing is cut off in the middle."""
    for portal in list(_open):
        with suppress(Exception):
            portal.close()
