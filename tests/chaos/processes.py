"""Worker processes: started again whenever they end, until the run is over."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.chaos import diary
from tests.chaos.progress import say
from tests.chaos.proxy import Proxy
from tests.processes import children_of, command_of

ROOT = Path(__file__).parents[2]
FLEET = Path(__file__).parent / "fleet"

FLEETS = {"python": ("python",), "mixed": ("python", "go", "typescript")}
"""The languages of the workers, in turn."""

OTHERS = {"go": [f"{FLEET}/go/build/worker"], "typescript": ["node", f"{FLEET}/typescript/build/worker.js"]}
"""What starts a worker that is not in Python. It is built by ``make chaos-fleet``."""


def missing(fleet: str) -> list[str]:
    """Return the languages of a fleet whose workers are not built."""
    return [language for language in FLEETS[fleet] if language in OTHERS and not Path(OTHERS[language][-1]).exists()]


class WorkerProcess:
    """One worker's place: its proxy, its files, and the process that runs in it at the moment."""

    def __init__(
        self,
        number: int,
        language: str,
        proxy: Proxy,
        directory: Path,
        namespace: str,
        options: dict[str, Any],
        log: Path,
    ) -> None:
        self.number = number
        self.language = language
        self.pids: set[int] = set()
        self.proxy = proxy
        self.kills = 0
        self.poisoned = 0
        self.crashes = 0
        self.pause = 0.0
        self._directory = directory
        self._namespace = namespace
        self._options = options
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._generation = 0
        self.deadly_diaries: list[Path] = []
        self._expected = False
        self._over = False
        self._exited: asyncio.Future[None] | None = None
        self._keeper: asyncio.Task[None] | None = None

    @property
    def counts_files(self) -> list[Path]:
        return sorted(self._directory.glob(f"counts-{self.number}-*.json"))

    @property
    def pid(self) -> int | None:
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def processes(self) -> list[int]:
        """Return the processes that it runs steps in."""
        return [pid for pid in children_of(self.pid) if b"in_process" in command_of(pid)]

    def guards(self) -> list[int]:
        """Return the process that watches it, if there is one."""
        return [pid for pid in children_of(self.pid) if b"processes.guard" in command_of(pid)]

    def start(self) -> None:
        self._keeper = asyncio.get_running_loop().create_task(self._keep_running())

    async def _keep_running(self) -> None:
        while not self._over:
            self._launch()
            while self._process is not None and self._process.poll() is None:  # noqa: ASYNC110  it sets no Event
                await asyncio.sleep(0.05)
            assert self._process is not None
            code = self._process.returncode
            if code:  # whatever it was in the middle of has died with it
                self.deadly_diaries.append(self._diary)
            if not self._expected and code == -signal.SIGKILL:
                self.poisoned += 1
            elif not self._expected and not self._over:
                self.crashes += 1
                say(f"worker {self.number} ended by itself with exit code {code}")
            self._expected = False
            await asyncio.sleep(self.pause)
            self.pause = 0.0

    def _launch(self) -> None:
        self._generation += 1
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command(),
                cwd=ROOT,
                env=os.environ | self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.pids.add(self._process.pid)

    def _command(self) -> list[str]:
        if self.language in OTHERS:
            return [sys.executable, "-m", "tests.chaos.leash", str(os.getpid()), *OTHERS[self.language]]
        counts = self._directory / f"counts-{self.number}-{self._generation}.json"
        return [
            *(sys.executable, "-m", "tests.chaos.worker", ",".join(self.proxy.urls)),
            *("--namespace", self._namespace),
            *("--options", json.dumps(self._options)),
            *("--counts", str(counts)),
            *("--parent", str(os.getpid())),
        ]

    def _environment(self) -> dict[str, str]:
        if self.language in OTHERS:
            told = {"SLOTS": self._options["slots"], "PARK_AFTER": self._options["park_after"]}
            return {"NATS_URL": ",".join(self.proxy.urls), "NAMESPACE": self._namespace} | {
                name: str(value) for name, value in told.items()
            }
        return {diary.VARIABLE: str(self._diary)}

    @property
    def _diary(self) -> Path:
        return self._directory / f"diary-{self.number}-{self._generation}.txt"

    def signal(self, number: signal.Signals, *, expected_exit: bool = False) -> bool:
        """Send a signal, if a process runs."""
        pid = self.pid
        if pid is None:
            return False
        self._expected = self._expected or expected_exit
        os.kill(pid, number)
        return True

    def kill(self, pause: float) -> None:
        self.pause = pause
        if self.signal(signal.SIGKILL, expected_exit=True):
            self.kills += 1

    def kill_guard(self, *, with_worker: bool, pause: float = 0.0) -> None:
        """Kill the guard of the worker, which it replaces; or both, so that nobody gives back what it holds."""
        guards = self.guards()
        for guard in guards if with_worker else ():
            os.kill(guard, signal.SIGSTOP)  # it is not to see the death that comes first
        if with_worker:
            self.kill(pause)
        for guard in guards:
            os.kill(guard, signal.SIGKILL)

    def terminate(self) -> bool:
        return self.signal(signal.SIGTERM, expected_exit=True)

    async def close(self, *, grace: float) -> None:
        """End the process, and start none again."""
        self._over = True
        self._expected = True
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        until = asyncio.get_running_loop().time() + grace
        while self.pid is not None and asyncio.get_running_loop().time() < until:  # noqa: ASYNC110  it sets no Event
            await asyncio.sleep(0.05)
        self.destroy()
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)

    def destroy(self) -> None:
        """Leave no process behind. Does not wait for anything but the kernel."""
        self._over = True
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
