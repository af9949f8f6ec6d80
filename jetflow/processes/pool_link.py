"""A process's end of the socket to its worker: a thread reads, and whoever has something to say writes.

The process ends with its worker, whatever it is at. The kernel sees to that where it can: the worker holds one end of a
pipe, and has the group of processes killed when that end closes, though a C call should hold the interpreter's lock.
Elsewhere, and besides, the thread that reads does the same when the socket has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import select
import signal
import socket
import threading
from collections.abc import Awaitable
from itertools import count
from queue import SimpleQueue
from typing import Any

from jetflow import forks
from jetflow.processes.pool_errors import raised
from jetflow.processes.pool_messages import (
    LENGTH,
    Answer,
    Ask,
    Call,
    Drop,
    End,
    Prepare,
    Refused,
    ToChild,
    ToWorker,
    framed,
    read_by_child,
)


class Link:
    """Messages to and from the worker. ``prepare`` is its first; ``calls`` brings steps to run, and None at the end."""

    def __init__(self, descriptor: int, lifeline: int) -> None:
        os.set_inheritable(descriptor, False)
        os.set_inheritable(lifeline, False)
        tie_to(lifeline)
        self._socket = socket.socket(fileno=descriptor)
        self._file = self._socket.makefile("rb")
        self._writing = threading.Lock()
        self._numbers = count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._starting = threading.Lock()
        self.calls: SimpleQueue[Call | None] = SimpleQueue()
        self.prepare: Prepare = self._first()
        forks.in_child(self, Link._leave)
        threading.Thread(target=self._read, name="jetflow-link", daemon=True).start()

    def send(self, message: ToWorker) -> None:
        """Say something to the worker."""
        frame = framed(message)
        with self._writing:
            self._socket.sendall(frame)

    async def ask(self, call: int, what: str, *given: Any) -> Any:
        """Ask the worker, and wait for its answer, on whichever event loop this is."""
        number = next(self._numbers)
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        try:
            self.send(Ask(call, number, what, list(given)))
            return await answer
        except asyncio.CancelledError:
            self.send(Drop(number))
            raise
        finally:
            del self._waiting[number]

    def block_on(self, awaitable: Awaitable[Any]) -> Any:
        """Run an awaitable on the event loop that this process has for it, and wait for its result."""

        async def outcome() -> Any:
            return await awaitable

        return asyncio.run_coroutine_threadsafe(outcome(), self._running_loop()).result()

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        with self._starting:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name="jetflow-loop", daemon=True).start()
        return self._loop

    # --- reading

    def _first(self) -> Prepare:
        message = self._next()
        if not isinstance(message, Prepare):
            raise RuntimeError(f"a process of a worker's pool is told {type(message).__name__} before Prepare")
        return message

    def _next(self) -> ToChild:
        head = self._file.read(LENGTH)
        body = self._file.read(int.from_bytes(head, "little")) if len(head) == LENGTH else b""
        if not body:
            end_group()
        return read_by_child(body)

    def _read(self) -> None:
        while not isinstance(message := self._next(), End):
            if isinstance(message, Call):
                self.calls.put(message)
            elif isinstance(message, Answer | Refused):
                self._settle_soon(message)
        self.calls.put(None)
        self._next()  # which is the end of the worker, should it come before that of this process

    def _settle_soon(self, message: Answer | Refused) -> None:
        answer = self._waiting.get(message.ask)
        if answer is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody waits
                answer.get_loop().call_soon_threadsafe(_settle, answer, message)

    def _leave(self) -> None:
        """In a forked child: let go of what is the parent's."""
        forks.close_here(self._socket.fileno())


def _settle(answer: asyncio.Future[Any], message: Answer | Refused) -> None:
    if answer.done():
        return
    if isinstance(message, Answer):
        answer.set_result(message.body)
    else:
        answer.set_exception(raised(message.error))


def tie_to(lifeline: int) -> None:
    """Have the kernel kill this group of processes when the other end of a pipe is closed; where it can, on Linux."""
    if not hasattr(fcntl, "F_SETSIG"):
        return
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, -os.getpgrp())
    fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
    if select.select([lifeline], [], [], 0)[0]:  # it was closed before that
        end_group()


def end_group() -> None:
    """End this process, and all that it has started."""
    os.killpg(os.getpgrp(), signal.SIGKILL)
    os._exit(1)
