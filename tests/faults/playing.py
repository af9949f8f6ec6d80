"""Planting a fault in a copied tree, and running the tests that must notice it."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Final

from tests.model.planting import replaced_once

ROOT: Final = Path(__file__).parents[2]
COPIED: Final = ("jetflow", "tests", "conformance", "examples", "docs", "pyproject.toml", "README.md")

PATIENCE: Final = "40"
"""Seconds that one test may take in a tree with a fault: many wait for what never comes."""

BOUND: Final = 180.0
"""Seconds that the tests of one fault may take together."""

BROKEN: Final = re.compile(
    r"^E? *(NameError|SyntaxError|UnboundLocalError|ImportError|IndentationError)\b", re.MULTILINE
)
"""What a fault says that does not do what it is named for."""


@dataclass(frozen=True)
class Fault:
    """A piece of a module of the shell, what stands there with the fault, and the tests that must notice it."""

    name: str
    module: str
    old: str
    new: str
    noticed_by: tuple[str, ...]


@dataclass(frozen=True)
class Played:
    """How the tests of a fault ended: ``verdict`` is ``caught``, ``SURVIVED`` or ``BROKEN``."""

    fault: Fault
    verdict: str
    said: str
    seconds: float


def planted(fault: Fault, root: Path = ROOT) -> str:
    """Return the source of a module with its fault.

    Raises:
        ValueError: the module has changed, so that the fault cannot be planted there any more.
        SyntaxError: what would stand there is no Python.
    """
    path = root / "jetflow" / fault.module
    source = replaced_once(path.read_text(), fault.old, fault.new, f"{fault.name}: {fault.module}")
    compile(source, str(path), "exec")
    return source


async def play(fault: Fault, gate: asyncio.Semaphore) -> Played:
    """Run the tests of a fault in a tree of its own."""
    async with gate:
        began = monotonic()
        with tempfile.TemporaryDirectory(prefix="jetflow-fault-") as place:
            tree = copied(Path(place))
            source = planted(fault, tree)
            (tree / "jetflow" / fault.module).write_text(source)
            status, said = await run_tests(tree, fault.noticed_by)
        if status == 0:
            verdict = "SURVIVED"
        else:
            verdict = "caught" if status in (1, None) and not BROKEN.search(said) else "BROKEN"
        return Played(fault, verdict, said, monotonic() - began)


async def sound(tests: Iterable[str]) -> str:
    """Run tests in a tree without a fault; return what they said if any fails: it could not tell a fault."""
    with tempfile.TemporaryDirectory(prefix="jetflow-sound-") as place:
        status, said = await run_tests(copied(Path(place)), sorted(set(tests)), bound=None)
    return "" if status == 0 else said


def copied(place: Path) -> Path:
    """Copy what the tests need, and return where it is."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, place / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, place / name)
    return place


async def run_tests(tree: Path, tests: Iterable[str], *, bound: float | None = BOUND) -> tuple[int | None, str]:
    """Return pytest's exit status, None if it had to be ended, and what it said."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--no-header", *tests),
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree), "JETFLOW_TEST_SECONDS": PATIENCE},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), bound)
    except TimeoutError:
        return None, f"not done after {bound:g} s"
    finally:
        if process.returncode is None:
            os.killpg(process.pid, 9)
            await process.wait()
    return process.returncode, output.decode(errors="replace")
