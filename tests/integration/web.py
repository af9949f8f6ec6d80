"""A web server as a process, for tests, and how it is asked."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any, Final

from tests.integration.commands import Command, Ended

EXAMPLES: Final = Path(__file__).parents[2] / "examples"
BOUND: Final = 30.0
"""Seconds that an answer may take."""


class Web:
    """A web server that runs. ``stop`` ends it by SIGTERM, and returns its exit status and what it has said."""

    def __init__(self, command: Command, url: str) -> None:
        self.command = command
        self.url = url

    async def get(self, path: str) -> tuple[int, Any]:
        return await asyncio.to_thread(_asked, self.url + path, None)

    async def post(self, path: str, body: Any) -> tuple[int, Any]:
        return await asyncio.to_thread(_asked, self.url + path, json.dumps(body).encode())

    async def until(self, path: str, member: str, value: Any) -> Any:
        """Ask again and again, until a member of the answer has a value."""
        async with asyncio.timeout(BOUND):
            while True:
                _, answer = await self.get(path)
                if answer[member] == value:
                    return answer
                await asyncio.sleep(0.02)

    async def stop(self) -> tuple[int, str]:
        self.command.process.terminate()
        ended = await self.command.ended()
        return ended.status, ended.output + ended.errors


@contextlib.asynccontextmanager
async def serving(
    *program: str, environment: Mapping[str, str], ready: str, cwd: Path = EXAMPLES
) -> AsyncGenerator[Web]:
    """Run ``python -m PROGRAM...`` until the end of the block; it is ``ready`` when a line matches, with its port."""
    command = await _started(*program, environment=environment, cwd=cwd)
    try:
        line = await command.line(ready)
        port = re.search(r"127\.0\.0\.1:(\d+)", line)
        assert port is not None, line
        yield Web(command, f"http://127.0.0.1:{port[1]}")
    finally:
        await command.close()


async def run_to_end(*program: str, environment: Mapping[str, str], cwd: Path = EXAMPLES) -> Ended:
    """Run ``python -m PROGRAM...`` until it ends by itself."""
    command = await _started(*program, environment=environment, cwd=cwd)
    try:
        return await command.ended()
    finally:
        await command.close()


async def _started(*program: str, environment: Mapping[str, str], cwd: Path) -> Command:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", *program),
        cwd=cwd,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    return Command(process)


def _asked(url: str, body: bytes | None) -> tuple[int, Any]:
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url, body, headers)
    try:
        with urllib.request.urlopen(request, timeout=BOUND) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())
