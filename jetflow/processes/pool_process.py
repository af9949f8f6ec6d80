"""One process of a worker's pool, as the worker sees it: it is started, called, and killed when it has to end.

All of it runs on the worker's event loop. The process leads a group of its own, which is killed with it: what a step
has started goes with the step. It ends with the worker; see `jetflow.processes.pool_link`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable
from multiprocessing.spawn import get_executable
from typing import Any, Final

from jetflow import forks
from jetflow.errors import ProcessDied, StepEnded
from jetflow.processes import pool_logging
from jetflow.processes.pool_errors import RaisedThere, crossed
from jetflow.processes.pool_hosting import Hosting
from jetflow.processes.pool_memory import OutOfMemory
from jetflow.processes.pool_messages import (
    Ask,
    Began,
    Call,
    Drop,
    End,
    Frames,
    Logged,
    Prepare,
    Raised,
    Ready,
    Refused,
    Returned,
    Spoken,
    ToChild,
    ToWorker,
    framed,
    read_by_worker,
)

PROGRAM: Final = "import sys; sys.path[:] = sys.argv[1:-2]; from jetflow.worker.in_process import main; main()"
"""What the process runs: it is given the worker's ``sys.path`` first, so that it finds what the worker has found."""

START_TIMEOUT: Final = 60.0
"""Seconds in which the process must have imported everything."""

LAST_WORDS: Final = 0.5
"""Seconds in which what the process has said before its death must have come."""

KILLED_WITHIN: Final = 2.0
"""Seconds after which a process that was killed is not waited for any more: the kernel has it."""


class PoolProcess:
    """A process that runs one step at a time. ``steps`` is how many it has run, ``memory`` what it held then, in MB.

    ``has_begun`` says that it has called the function of the last step that it was given.
    """

    def __init__(self, out_of_memory: OutOfMemory) -> None:
        self._loop = asyncio.get_running_loop()
        self._frames = Frames()
        self._result: asyncio.Future[Any] | None = None
        self._ready: asyncio.Future[Ready] = self._loop.create_future()
        self._gone: asyncio.Future[None] = self._loop.create_future()
        self._hosting: Hosting | None = None
        self._call: Call | None = None
        self._transport: asyncio.Transport | None = None
        self._has_exited = False
        self._is_cut_off = False
        self._killed_here = False
        self._out_of_memory = out_of_memory
        self.has_begun: bool = False
        self.steps: int = 0
        self.memory: float = 0.0
        self._spawn()

    # --- its life

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether it can be called, as far as this event loop has heard."""
        return not (self._has_exited or self._is_cut_off or self._killed_here)

    def has_died_unheard(self) -> bool:
        """Ask the kernel, whose word may not have come yet."""
        try:
            return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:  # somebody has waited for it already
            return True

    def _spawn(self) -> None:
        ours, theirs = socket.socketpair()
        lifeline, self._lifeline = os.pipe()
        self._socket = ours
        descriptors = (theirs.fileno(), lifeline)
        try:
            self._process = subprocess.Popen(
                _command(descriptors),
                pass_fds=descriptors,
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C in a terminal reaches the worker alone, which then ends this
            )
        except BaseException:
            ours.close()
            os.close(self._lifeline)
            raise
        finally:
            theirs.close()
            os.close(lifeline)
        forks.in_child(self, PoolProcess._leave)
        self._watch()

    def _watch(self) -> None:
        """Have `_on_exit` called when the process has ended."""
        try:
            self._pidfd = os.pidfd_open(self.pid)
            self._loop.add_reader(self._pidfd, self._on_exit)
        except (AttributeError, OSError):  # no Linux, or one that is old or hides it
            self._pidfd = -1
            threading.Thread(target=self._wait, name="jetflow-pool-wait", daemon=True).start()

    def _wait(self) -> None:
        self._process.wait()
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._on_exit)

    async def start(self, prepare: Prepare) -> None:
        """Wait until it has imported what it is to run.

        Raises:
            ProcessDied: it could not.
        """
        try:
            self._transport, _ = await self._loop.create_unix_connection(lambda: _Reading(self), sock=self._socket)
            self.send(prepare)
            async with asyncio.timeout(START_TIMEOUT):
                ready = await self._ready
            if ready.trouble:
                raise ProcessDied(f"could not import what it was to run: {ready.trouble}", pid=self.pid)
        except TimeoutError:
            await self.kill()
            raise ProcessDied(f"was not ready after {START_TIMEOUT:g} s", pid=self.pid) from None
        except BaseException:
            await self.kill()
            raise

    async def call(self, call: Call, hosting: Hosting | None) -> bytes:
        """Run a step, and return its output as JSON. When this is cancelled, the process is killed.

        Raises:
            RaisedThere: the step has raised an error.
            ProcessDied: the process has ended before the step did.
        """
        self._call, self._hosting, self.has_begun = call, hosting, False
        self._result = self._loop.create_future()
        if not self.is_alive:
            self._result.set_exception(self._death())
        try:
            self.send(call)
            return await self._result
        except asyncio.CancelledError:
            await self.kill()
            raise
        finally:
            self.steps += 1
            self._call = self._hosting = self._result = None
            if hosting is not None:
                await hosting.close()

    async def kill(self) -> None:
        """Kill it, with all that it has started, and wait until it is gone."""
        self._killed_here = True
        self._kill_group()
        await asyncio.wait([self._gone], timeout=KILLED_WITHIN)

    async def end(self, within: float) -> None:
        """Let it end by itself, as it has nothing to do; kill it after so many seconds."""
        self.send(End())
        await asyncio.wait([self._gone], timeout=within)
        await self.kill()

    def send(self, message: ToChild) -> None:
        """Say something to it."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(framed(message))

    def _kill_group(self) -> None:
        if not self._has_exited:  # else its number may be somebody else's by now
            with contextlib.suppress(ProcessLookupError, PermissionError):  # the last of the group has gone
                os.killpg(self.pid, signal.SIGKILL)

    def _leave(self) -> None:
        """In a forked child of the worker: let go of what is the worker's."""
        if not self._has_exited:  # else its numbers may be somebody else's by now
            forks.close_here(self._lifeline)
            forks.close_here(self._socket.fileno())

    # --- what it says

    def received(self, data: bytes) -> None:
        """Take what has come on its socket."""
        for body in self._frames.feed(data):
            self._on_message(read_by_worker(body))

    def _on_message(self, message: ToWorker) -> None:
        if isinstance(message, Returned):
            self.memory = message.memory
            self._settle(message.output, None)
        elif isinstance(message, Raised):
            self.memory = message.memory
            error = RaisedThere(message.failure, frames=message.frames, is_final=message.is_final, pause=message.pause)
            self._settle(None, error)
        elif isinstance(message, Began):
            self.has_begun = True
        elif isinstance(message, Ask):
            self._on_ask(message)
        elif isinstance(message, Drop):
            if self._hosting is not None:
                self._hosting.drop(message.ask)
        elif isinstance(message, Spoken):
            self._on_spoken(message)
        elif isinstance(message, Logged):
            pool_logging.hand_on(message)
        elif not self._ready.done():
            self._ready.set_result(message)

    def _on_ask(self, message: Ask) -> None:
        call, hosting = self._call, self._hosting
        if call is None or hosting is None or call.number != message.call:  # a thread of a step that has ended
            error = StepEnded("?", "?") if call is None else StepEnded(call.step, call.run)
            self.send(Refused(message.ask, crossed(error)))
        else:
            hosting.ask(message)

    def _on_spoken(self, message: Spoken) -> None:
        if self._call is not None and self._hosting is not None and self._call.number == message.call:
            self._hosting.hear(message)

    def _settle(self, output: bytes | None, error: BaseException | None) -> None:
        result = self._result
        if result is None or result.done():
            return
        if error is None:
            result.set_result(output)
        else:
            result.set_exception(error)

    # --- its death

    def cut_off(self) -> None:
        """Take note that its socket has ended, behind all that it has said. It dies, or is killed."""
        self._is_cut_off = True
        self._kill_group()
        self._go()

    def _on_exit(self) -> None:
        if self._pidfd >= 0:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._kill_group()  # what it has started, as long as its number is its own
        self._process.poll()
        self._has_exited = True
        os.close(self._lifeline)
        self._loop.call_later(LAST_WORDS, self._close)
        self._go()

    def _close(self) -> None:
        if self._transport is None:
            self._socket.close()
            self._is_cut_off = True
            self._go()
        else:
            self._transport.abort()

    def _go(self) -> None:
        """Tell those that wait, once it has exited and nothing more comes from it."""
        if not (self._has_exited and self._is_cut_off) or self._gone.done():
            return
        self._gone.set_result(None)
        death = self._death()
        self._settle(None, death)
        if not self._ready.done():
            self._ready.set_exception(death)
            self._ready.exception()  # it may be that nobody waits

    def _death(self) -> ProcessDied:
        status = self._process.returncode or 0
        if status >= 0:
            return ProcessDied(f"ended by itself with exit status {status}", pid=self.pid, status=status)
        number = -status
        by = f"was killed by signal {number} ({_name_of(number)})"
        out_of_memory = number == signal.SIGKILL and self._out_of_memory.has_struck()
        if out_of_memory:
            by += ": the kernel was out of memory"
        return ProcessDied(by, pid=self.pid, signal=number, out_of_memory=out_of_memory)


class _Reading(asyncio.Protocol):
    """Hands on what comes on the socket of a process."""

    def __init__(self, process: PoolProcess) -> None:
        self._process = process

    def data_received(self, data: bytes) -> None:
        self._process.received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._process.cut_off()


def _command(descriptors: Iterable[int]) -> list[str]:
    """Return the command line of a process: this interpreter with its flags, and all that `PROGRAM` needs."""
    python: Any = subprocess
    flags: list[str] = python._args_from_interpreter_flags()  # noqa: SLF001 - as multiprocessing does
    return [os.fsdecode(get_executable() or sys.executable), *flags, "-c", PROGRAM, *sys.path, *map(str, descriptors)]


def _name_of(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"
