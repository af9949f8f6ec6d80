"""The process that is tested: started with a command, spoken to on its standard input and output."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

READY: Final = "ready"
START_TIMEOUT: Final = 30.0
STOP_TIMEOUT: Final = 40.0
ANSWER_TIMEOUT: Final = 30.0


class NotReady(Exception):
    """The command did not print ``ready``."""


class Refused(Exception):
    """The client did not do what it was asked for; ``kind`` is the name of its error."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind = kind


class NotOffered(Exception):
    """The client does not cancel, or delete: it need not."""


OPTIONAL: Final = ("cancel", "delete")
"""What a client need not do."""


class Tested:
    """One run of the command. `start` it, `stop`, `kill`; ``settings`` are environment variables."""

    def __init__(self, command: Sequence[str], settings: dict[str, str]) -> None:
        self._command = command
        self._settings = settings
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._numbers = itertools.count(1)
        self._ready = asyncio.Event()
        self.said: deque[str] = deque(maxlen=40)

    async def start(self) -> None:
        """Start the command, and wait until it says that it is ready.

        Raises:
            NotReady: it ended, or took too long.
        """
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, **self._settings},
            start_new_session=True,
            limit=16 * 1024 * 1024,
        )
        self._reading = asyncio.create_task(self._read(self._process))
        ready = asyncio.create_task(self._ready.wait())
        await asyncio.wait({ready, self._reading}, timeout=START_TIMEOUT, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if not self._ready.is_set():
            await self.kill()
            last = "\n".join(self.said)
            raise NotReady(f"{' '.join(self._command)} did not print `{READY}`; the last it said:\n{last}")

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            text = line.decode(errors="replace").rstrip()
            if text == READY:
                self._ready.set()
            elif text.startswith("{"):
                self._on_answer(text)
            else:
                self.said.append(text)
        for waiting in self._answers.values():
            if not waiting.done():
                waiting.set_exception(NotReady("the command ended before it answered"))

    def _on_answer(self, text: str) -> None:
        with contextlib.suppress(ValueError):
            answer = json.loads(text)
            waiting = self._answers.pop(answer.get("id", 0), None)
            if waiting is not None and not waiting.done():
                waiting.set_result(answer)

    async def ask(self, do: str, **given: Any) -> dict[str, Any]:
        """Have the client of the kit do something, and return its answer.

        Raises:
            Refused: the answer is an error.
            NotOffered: the client does not do that, and need not.
        """
        process = self._process
        assert process is not None
        assert process.stdin is not None
        number = next(self._numbers)
        self._answers[number] = waiting = asyncio.get_running_loop().create_future()
        process.stdin.write(json.dumps({"id": number, "do": do, **given}).encode() + b"\n")
        await process.stdin.drain()
        answer = await asyncio.wait_for(waiting, ANSWER_TIMEOUT)
        if answer.get("error") == "UnknownCommand" and do in OPTIONAL:
            raise NotOffered
        if "error" in answer:
            raise Refused(answer["error"], answer.get("message", ""))
        return answer

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.returncode is None

    def strike(self) -> None:
        """Send SIGKILL, and do not wait: nothing that the process does after this call counts."""
        if self.running and self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    async def kill(self) -> None:
        """Kill the process."""
        self.strike()
        await self._ended()

    async def stop(self) -> None:
        """Ask the process to stop, by SIGTERM, and wait; kill it if it does not."""
        if self.running and self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self._ended(), STOP_TIMEOUT)
        except TimeoutError:
            await self.kill()

    async def _ended(self) -> None:
        if self._process is not None:
            await self._process.wait()
        if self._reading is not None:
            await asyncio.gather(self._reading, return_exceptions=True)
