"""A short chaos run, and that it leaves no process behind, however it ends."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path

import pytest

from tests.chaos.load import TREES
from tests.chaos.plan import DECIDES, GRAPHS, Node, decided, ending, leaves, statuses, subtrees
from tests.chaos.processes import ROOT


def test_the_model_is_a_function_of_the_input() -> None:
    first = [ending(kind, {"seed": seed, "depth": 2}) for kind in ("branch", "scatter") for seed in range(30)]
    assert first == [ending(kind, {"seed": seed, "depth": 2}) for kind in ("branch", "scatter") for seed in range(30)]
    assert {status for status, _ in first} == {"succeeded", "failed"}
    assert all(subtrees("branch", Node(seed, 1)) for seed in range(30))
    assert any(name == "poison" for name, _, _ in leaves("branch", Node(1, 0, poisoned=True)))


def test_the_model_knows_the_graphs() -> None:
    for kind, steps in GRAPHS.items():
        assert [(node.name, node.after) for node in TREES[kind].graph.nodes] == list(steps.items())
    ended = [statuses("several", Node(seed)) for seed in range(100)]
    assert {status for steps in ended for status in steps.values()} == {"succeeded", "failed", "timed_out", "cancelled"}
    assert any(list(steps.values()).count("failed") > 1 for steps in ended)


def test_the_model_knows_what_conditions_decide() -> None:
    assert {ending(DECIDES, {"seed": seed})[0] for seed in range(30)} == {"succeeded", "cancelled"}
    ended = {status for seed in range(30) for status in decided(seed).values()}
    assert ended == {"succeeded", "skipped", "cancelled"}


async def start(*options: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.chaos", *options),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


def processes_of(parent: int) -> list[int]:
    """Return the processes of this machine that were started for a chaos run by ``parent``."""
    found: list[int] = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            line = (directory / "cmdline").read_bytes()
        except OSError:
            continue
        if b"tests.chaos.worker" in line and f"--parent\0{parent}\0".encode() in line:
            found.append(int(directory.name))
    return found


@pytest.mark.chaos
async def test_nothing_is_lost_in_a_short_run() -> None:
    process = await start("--seconds", "8", "--seed", "7", "--workers", "2")
    async with asyncio.timeout(90):
        output, said = await process.communicate()
    assert process.returncode == 0, said.decode()[-3000:]
    report = json.loads(output)
    assert [report[name] for name in ("lost", "doubled", "early", "stuck", "wrong")] == [0, 0, 0, 0, 0]
    assert report["children"] > 0
    assert report["looks_at_totals"] > 0
    assert report["decisions"].keys() <= {"run", "skip", "cancel"}
    assert processes_of(process.pid) == []


@pytest.mark.chaos
@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
async def test_no_process_is_left_behind(how: signal.Signals) -> None:
    process = await start("--seconds", "60", "--seed", "8", "--workers", "2")
    async with asyncio.timeout(60):
        assert process.stderr is not None
        await process.stderr.readline()  # the first line of progress: workers run
        assert len(processes_of(process.pid)) > 0
        process.send_signal(how)
        await process.communicate()
        while processes_of(process.pid):  # noqa: ASYNC110  no event tells that another process has ended
            await asyncio.sleep(0.05)
