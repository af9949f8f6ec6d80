"""docs/tutorial.md, as it stands there: jetflow is installed, files are written, commands run, a worker is killed.

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
import subprocess
import sys
import zipfile
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


def clean() -> dict[str, str]:
    """Return the environment without what it says of jetflow, or of the tests' Python."""
    return {name: value for name, value in os.environ.items() if not re.match("PYTHON|VIRTUAL|NATS_|JETFLOW_", name)}


class Reader:
    """Does what the page says, in a directory of its own."""

    def __init__(self, directory: Path, installed: Path, stack: contextlib.AsyncExitStack) -> None:
        self._directory = directory
        self._stack = stack
        self._known: dict[str, str] = {}
        self._terminals: list[Command] = []
        self._environment = clean() | {"PATH": f"{installed / 'bin'}:{os.environ['PATH']}", "COLUMNS": "200"}

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


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that the page's first block has made, with the wheel in place of what is on PyPI."""
    directory = tmp_path_factory.mktemp("reader")
    here = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    of_pip = {"PIP_FIND_LINKS": str(wheel.parent), "PIP_CONSTRAINT": str(ROOT / "requirements.lock")}
    done = subprocess.run(
        ["sh", "-ec", blocks_of(PAGE)[0].text],
        cwd=directory,
        env=clean() | of_pip | {"PATH": here},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return directory / ".venv"


def test_its_first_block_names_what_the_wheel_has(wheel: Path) -> None:
    [asked] = re.findall(r'pip install "jetflow-nats\[([\w,]+)\]"', blocks_of(PAGE)[0].text)
    with zipfile.ZipFile(wheel) as archive:
        [metadata] = [archive.read(name).decode() for name in archive.namelist() if name.endswith("/METADATA")]
    assert set(asked.split(",")) <= set(re.findall(r"^Provides-Extra: (\w+)$", metadata, re.MULTILINE))


def test_its_first_block_installs_the_command(installed: Path) -> None:
    command = [installed / "bin" / "jetflow", "--version"]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.startswith("jetflow ")


async def test_what_it_says_happens(installed: Path, tmp_path: Path) -> None:
    async with contextlib.AsyncExitStack() as stack:
        reader = Reader(tmp_path, installed, stack)
        terminal = None
        for block in blocks_of(PAGE)[1:]:
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
