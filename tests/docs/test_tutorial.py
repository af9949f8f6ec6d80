"""docs/tutorial.md, as it stands there: its files are written, its commands run, a worker is killed by its words.

What the page shows as printed is waited for, line by line: below a command in what that one prints, elsewhere in what
any of them does. ``…`` stands for anything. Numbers that are others on each machine (`OTHERS`) are learned where they
are printed for the first time, and put into the commands that use them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shlex
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.docs.blocks import ROOT, Block, blocks_of
from tests.integration.commands import Command

PAGE: Final = ROOT / "docs" / "tutorial.md"

OTHERS: Final = {
    "4222": r"\d+",
    "4280": r"\d+",
    "11346": r"\d+",
    "11712": r"\d+",
    "01a21cd425d9717daeb0019cd3179dff": "[0-9a-f]{32}",
    "vm-": r"\S+-",
}
"""What is another one on each machine: ports, processes, a run's id, the host."""

_PARTS: Final = re.compile("(" + "|".join(map(re.escape, (*OTHERS, "…"))) + ")")


class Reader:
    """Does what the page says, in a directory of its own."""

    def __init__(self, directory: Path, stack: contextlib.AsyncExitStack) -> None:
        self._directory = directory
        self._stack = stack
        self._known: dict[str, str] = {}
        self._terminals: list[Command] = []
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("NATS_", "JETFLOW_"))}
        self._environment = clean | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "COLUMNS": "200"}

    async def run(self, block: Block) -> Command:
        """Run a command. It goes on while the reader reads on."""
        command = _PARTS.sub(lambda part: self._known.get(part[0], part[0]), block.text.strip())
        if command.startswith("jetflow dev"):
            command += " --port 0 --dashboard-port 0"  # others may listen here already
        running = Command(
            await asyncio.create_subprocess_exec(
                *shlex.split(command),
                cwd=self._directory,
                env=self._environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
        )
        self._stack.push_async_callback(_leave, running)
        self._terminals.append(running)
        return running

    async def see(self, block: Block, terminal: Command | None) -> None:
        """Wait for each line, in one terminal or in any."""
        for line in block.text.splitlines():
            pattern = re.compile("".join(map(self._part, _PARTS.split(line))))
            watched = self._terminals if terminal is None else [terminal]
            looks = [asyncio.ensure_future(one.matching(pattern)) for one in watched]
            ended, others = await asyncio.wait(looks, return_when=asyncio.FIRST_COMPLETED)
            for look in others:
                look.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            try:
                found = ended.pop().result()
            except TimeoutError:
                pytest.fail(f"{block.place}: {line!r} was not printed: {[one.output for one in self._terminals]}")
            for part in _PARTS.findall(line):
                if part in OTHERS and part not in self._known:
                    self._known[part] = found[_group(part)]

    def _part(self, part: str) -> str:
        if part == "…":
            return ".*"
        if part in self._known or part not in OTHERS:
            return re.escape(self._known.get(part, part))
        return f"(?P<{_group(part)}>{OTHERS[part]})"


def _group(part: str) -> str:
    return "n" + re.sub(r"\W", "_", part)


async def _leave(command: Command) -> None:
    """Press Ctrl-C in its terminal."""
    if command.process.returncode is None:
        command.interrupt()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(command.process.wait(), 20)
    await command.close()


async def test_the_tutorial_is_true(tmp_path: Path) -> None:
    install, *blocks = blocks_of(PAGE)
    assert "pip install" in install.text  # tests/installing does that
    async with contextlib.AsyncExitStack() as stack:
        reader = Reader(tmp_path, stack)
        terminal = None
        for block in blocks:
            match block.language:
                case "python":
                    (tmp_path / block.file).write_text(block.text)
                case "sh":
                    terminal = await reader.run(block)
                    if block.text.startswith("kill"):
                        assert (await terminal.ended()).status == 0
                        terminal = None
                case "text":
                    await reader.see(block, terminal)
                    terminal = None
                case other:
                    pytest.fail(f"{block.place}: a reader cannot do {other!r}")
    assert not (tmp_path / ".jetflow" / "dev.json").exists()
