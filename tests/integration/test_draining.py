"""A worker process that is told to stop: what runs is finished, what waits is parked, and nothing is done twice."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from pathlib import Path
from time import monotonic

import pytest

import jetflow
from jetflow.server import NatsServer
from tests.endings.stored import until
from tests.integration.commands import Start

GRACE = 20
COUNT = 50

FLOWS = """
import asyncio
import os
from pathlib import Path

from jetflow import Context, workflow

DIARY = os.open("diary", os.O_CREAT | os.O_APPEND | os.O_WRONLY)


def note(what: str, who: int) -> None:
    os.write(DIARY, f"{what} {who}\\n".encode())


@workflow("holds")
async def holds(who: int) -> int:
    note("begins", who)
    while not Path("go").exists():
        await asyncio.sleep(0.01)
    note("ends", who)
    return who


@workflow("waits")
async def waits(who: int, ctx: Context) -> int:
    held = await (await ctx.spawn_workflow(holds, who)).result()
    note("goes on", who)
    return held
"""


class Diary:
    """What the steps have written down, by kind and number."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "diary"

    def count(self, what: str) -> Counter[int]:
        lines = self._path.read_text().splitlines() if self._path.exists() else []
        return Counter(int(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{what} "))

    async def has(self, what: str, number: int) -> None:
        async def holds() -> bool:
            return self.count(what).total() >= number

        await until(holds)


@pytest.mark.parametrize("processes", [1, 4])
async def test_what_runs_and_what_waits_when_it_is_told_to_stop(
    start: Start, nats_server: NatsServer, namespace: str, tmp_path: Path, processes: int
) -> None:
    """50 steps run, 50 wait for them, and 20 are queued behind them where there are no slots left."""
    (tmp_path / "draining.py").write_text(FLOWS)
    diary = Diary(tmp_path)
    command = ("worker", "draining", "--grace", str(GRACE), "--slots", str(COUNT), "--processes", str(processes))
    queued = 20 if processes == 1 else 0  # four processes have slots for all
    async with jetflow.connect(nats_server.url, namespace=namespace) as client:
        async with start(*command) as worker:
            await worker.line(" runs ", times=processes)
            runs = await client.trigger_many("waits", range(COUNT))
            await diary.has("begins", COUNT)
            late = await client.trigger_many("holds", range(COUNT, COUNT + queued))
            worker.process.send_signal(signal.SIGTERM)
            began = monotonic()
            await worker.line(" stops", times=processes)
            (tmp_path / "go").touch()
            ended = await worker.ended()
            assert ended.status == 0, ended.errors
            assert monotonic() - began < GRACE
            assert "Traceback" not in ended.errors
        assert diary.count("ends") == diary.count("begins") == Counter(range(COUNT))
        async with start(*command[:-1], "1") as worker:
            assert await asyncio.gather(*(run.result(60) for run in runs)) == list(range(COUNT))
            await asyncio.gather(*(run.result(60) for run in late))
            worker.process.send_signal(signal.SIGTERM)
            assert (await worker.ended()).status == 0
    assert diary.count("begins") == diary.count("ends") == Counter(range(COUNT + queued))
    assert diary.count("goes on") == Counter(range(COUNT))
