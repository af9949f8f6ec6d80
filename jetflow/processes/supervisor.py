"""The supervisor of `jetflow worker`: a small process above its worker processes, which starts those again that die.

The command becomes this by ``exec``, and nothing of jetflow is imported here: it is about processes alone, and as the
first process of a container it also takes the ends of processes whose parents are gone. Signals are passed on: the
first tells the workers to stop, the second ends their grace time, the third kills them. Each worker is in a session of
its own, and its stdin is one end of a socket pair: it says there that it has started, and stops when the other end is
gone.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from types import FrameType

FIRST_PAUSE = 0.5
"""Seconds before a worker that has died again, soon, is started; doubled each time. The first time there is none."""

LONGEST_PAUSE = 30.0
"""Seconds up to which they are doubled; a worker that has lived for longer did not die soon."""

STATUS = "JETFLOW_STATUS_FD"
"""The environment variable that names where the guard of a worker is told how that has ended."""

INDEX = "JETFLOW_PROCESS_INDEX"
"""The environment variable that numbers its workers, from 0."""

COMMAND = (sys.executable, "-m", "jetflow.cli")

_TELLING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Worker:
    """One worker process, and those that follow it."""

    def __init__(self, arguments: list[str], index: int = 0) -> None:
        self._arguments = arguments
        self._index = index
        self._process: subprocess.Popen[bytes] | None = None
        self._pause = 0.0
        self._began = 0.0
        self._status = -1
        self.line: socket.socket | None = None
        self.due: float | None = 0.0
        self.has_started: bool = False

    @property
    def pid(self) -> int | None:
        """The process id, while it runs."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start the process."""
        ours, its = socket.socketpair()
        told, self._status = os.pipe()
        self._process = subprocess.Popen(
            [*COMMAND, *self._arguments, "--supervised"],
            stdin=its.fileno(),
            pass_fds=[told],
            env=os.environ | {STATUS: str(told), INDEX: str(self._index)},
            start_new_session=True,
        )
        its.close()
        os.close(told)
        self.line, self.due, self.has_started, self._began = ours, None, False, time.monotonic()

    def send(self, number: int) -> None:
        """Send a signal, if it runs."""
        if self.pid is not None:
            os.kill(self.pid, number)

    def on_line(self) -> None:
        """Read what the process says: that it has started."""
        if self.line is not None and self.line.recv(64):
            self.has_started = True
        else:
            self._hang_up()

    def on_end(self, status: int) -> None:
        """Tell the guard how the process has ended, and forget it."""
        if self._process is not None:
            self._process.returncode = status
        self._process = None
        with suppress(BrokenPipeError):  # it had no guard
            os.write(self._status, str(status).encode())
        os.close(self._status)
        self._hang_up()

    def _hang_up(self) -> None:
        if self.line is not None:
            self.line.close()
        self.line = None

    def start_again(self) -> float:
        """Have it started again soon, and return in how many seconds."""
        now = time.monotonic()
        if now - self._began > LONGEST_PAUSE:
            self._pause = 0.0
        pause, self._pause = self._pause, min(max(FIRST_PAUSE, 2 * self._pause), LONGEST_PAUSE)
        self.due = now + pause
        return pause


class Supervisor:
    """Runs some worker processes until it is told to stop. ``tied`` is a descriptor whose end tells that, too."""

    def __init__(self, workers: list[Worker], tied: int | None) -> None:
        self._workers = workers
        self._tied = tied
        self._told = 0
        self._status = 0
        self._signals, wakes = os.pipe()
        os.set_blocking(self._signals, False)
        os.set_blocking(wakes, False)
        for number in (*_TELLING, signal.SIGCHLD):
            signal.signal(number, _only_wake)
        signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)

    def run(self) -> int:
        """Run until all have ended; return the exit status."""
        while True:
            now = time.monotonic()
            for worker in self._workers:
                if worker.due is not None and worker.due <= now:
                    worker.start()
            if all(worker.pid is None and worker.due is None for worker in self._workers):
                return self._status
            self._wait(min((worker.due for worker in self._workers if worker.due is not None), default=None))

    def _wait(self, until: float | None) -> None:
        lines = {worker.line.fileno(): worker for worker in self._workers if worker.line is not None}
        watched = [self._signals, *lines, *([] if self._tied is None else [self._tied])]
        timeout = None if until is None else max(0.0, until - time.monotonic())
        for ready in select.select(watched, [], [], timeout)[0]:
            if ready in lines:
                lines[ready].on_line()
            elif ready == self._tied:
                if not os.read(ready, 64):
                    self._tied = None
                    self._stop()
            else:
                for number in os.read(self._signals, 256):
                    if number in _TELLING:
                        _say("INFO", f"{signal.Signals(number).name}: the workers {_HOW_FAR[min(self._told + 1, 3)]}")
                        self._stop()
        self._reap()

    def _stop(self) -> None:
        """Pass on that all shall stop: sooner each time."""
        self._told += 1
        for worker in self._workers:
            worker.due = None
            worker.send(signal.SIGTERM if self._told < 3 else signal.SIGKILL)

    def _reap(self) -> None:
        """Take the ends of all children; some are those of processes whose parents have ended before them."""
        while True:
            try:
                pid, how = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            for worker in self._workers:
                if worker.pid == pid:
                    worker.on_end(os.waitstatus_to_exitcode(how))
                    self._on_end(worker, pid, os.waitstatus_to_exitcode(how))

    def _on_end(self, worker: Worker, pid: int, status: int) -> None:
        if self._told:
            self._status = self._status or (128 - status if status < 0 else status)
        elif status > 0 and not worker.has_started:  # it has said why, and another time it would say the same
            self._status = status
            self._stop()
        else:
            pause = worker.start_again()
            _say("ERROR", f"worker process {pid} {_how(status)}: another one starts {_when(pause)}")


def _only_wake(number: int, frame: FrameType | None) -> None:
    """Handle a signal: its number is written to the descriptor that `Supervisor` waits for."""


_HOW_FAR = {1: "stop", 2: "stop without their grace time", 3: "are killed"}


def _how(status: int) -> str:
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"


def _when(pause: float) -> str:
    return f"in {pause:g} s" if pause else "at once"


def _say(level: str, text: str) -> None:
    now = time.time()
    moment = f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(now))},{int(now * 1000) % 1000:03}"
    sys.stderr.write(f"{moment} {level:<7} jetflow.supervisor: {text}\n")
    sys.stderr.flush()


def main(arguments: list[str]) -> int:
    """Run: ``PROCESSES TIED ARGUMENTS...``, where TIED is a descriptor or -1, and the arguments are jetflow's."""
    processes, tied, *given = arguments
    workers = [Worker(given, index) for index in range(int(processes))]
    return Supervisor(workers, None if int(tied) < 0 else int(tied)).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
