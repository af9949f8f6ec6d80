"""The pytest plugin, as users have it: the tests of `docs/testing.md`, in a directory of their own, run by pytest."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
BOUND: Final = 90.0

FUNCTION: Final = ("-o", "asyncio_default_fixture_loop_scope=function")

ON_ASYNCIO: Final = """
import pytest


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
"""

ISOLATED: Final = """
import pytest
from flows import count_lines

seen: list[str] = []


@pytest.mark.parametrize("turn", [1, 2])
def test_a_namespace_is_empty(turn, jetflow_sync_client, jetflow_server) -> None:
    assert jetflow_sync_client.workflows() == []
    jetflow_sync_client.trigger(count_lines, "a", key="k")
    seen.append(jetflow_sync_client.namespace)
    seen.append(jetflow_server.url)


def test_the_server_is_the_same_and_the_namespace_another() -> None:
    assert seen[0] != seen[2]
    assert seen[1] == seen[3]


def test_what_a_test_has_stored_is_deleted(jetflow_server) -> None:
    import asyncio
    import nats

    async def streams() -> int:
        async with await nats.connect(jetflow_server.url) as connection:
            return len(await connection.jetstream().streams_info())

    assert asyncio.run(streams()) == 0
"""


def _blocks(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE)


def _run(directory: Path, *arguments: str) -> str:
    flows = next(block for block in _blocks("README.md") if block.startswith("# flows.py"))
    (directory / "flows.py").write_text(flows)
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", *arguments],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=BOUND,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def _marked(text: str, mark: str) -> str:
    """Return tests on a real server, with a mark on the one that is asynchronous."""
    return text.replace("async def test", f"import pytest\n\n\n{mark}\nasync def test")


@pytest.mark.parametrize(
    ("arguments", "mark", "others"),
    [
        (("-o", "asyncio_mode=auto", *FUNCTION), "", ""),
        (("-o", "asyncio_mode=strict", *FUNCTION), "@pytest.mark.asyncio", ""),
        (("-p", "no:asyncio"), "@pytest.mark.anyio", ON_ASYNCIO),
    ],
    ids=["asyncio", "asyncio-strict", "anyio"],
)
def test_what_the_page_shows_runs(tmp_path: Path, arguments: tuple[str, ...], mark: str, others: str) -> None:
    function, step, run, clock = _blocks("docs/testing.md")
    for name, text in (
        ("function", function),
        ("step", step),
        ("run", _marked(run, mark)),
        ("clock", _marked(clock, mark)),
    ):
        (tmp_path / f"test_{name}.py").write_text(text)
    (tmp_path / "conftest.py").write_text(others)
    assert "8 passed" in _run(tmp_path, *arguments)


NOTHING_WAITS: Final = """
import pytest
from flows import count_lines

from jetflow.testing import NothingWaits


def test_nothing_waits(jetflow_sync_client, jetflow_sync_clock, jetflow_worker) -> None:
    with jetflow_worker([count_lines]):
        assert jetflow_sync_client.trigger(count_lines, __file__).result(timeout=30) > 0
        with pytest.raises(NothingWaits, match="0 of 1 timers are armed in namespace 't[0-9a-f]+' after 0.1 s: "):
            jetflow_sync_clock.advance(60, within=0.1)
    with pytest.raises(ValueError, match="above 0"):
        jetflow_sync_clock.advance(0)
"""


def test_a_clock_that_has_nothing_to_move_says_so(tmp_path: Path) -> None:
    (tmp_path / "test_nothing.py").write_text(NOTHING_WAITS)
    assert "1 passed" in _run(tmp_path, *FUNCTION)


def test_each_test_has_a_namespace_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "test_isolated.py").write_text(ISOLATED)
    assert "4 passed" in _run(tmp_path, *FUNCTION)
