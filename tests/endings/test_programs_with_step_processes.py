"""Programs whose steps run in processes: scripts, modules, files for the command line, and what cannot be imported."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from jetflow import Client
from jetflow.server import NatsServer
from tests.endings.stored import PATIENCE, Stored, until

FLOWS = """
import os

import msgspec

from jetflow import Retry, workflow


class Pair(msgspec.Struct):
    left: int
    right: int


@workflow("summed", retry=Retry(attempts=1), runs_in="process")
def summed(pair: Pair) -> list[int]:
    return [pair.left + pair.right, os.getpid(), os.getppid()]
"""

RUNS = """
import asyncio
import sys

from jetflow import Worker


def main():
    asyncio.run(Worker(summed, server=sys.argv[1], namespace=sys.argv[2]).run())
"""

GUARDED = f'{FLOWS}{RUNS}\n\nif __name__ == "__main__":\n    main()\n'
NOT_GUARDED = f"{FLOWS}{RUNS}\n\nmain()\n"


@asynccontextmanager
async def program(*command: str, place: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = await asyncio.create_subprocess_exec(*command, cwd=place, env=environment, stdout=PIPE, stderr=STDOUT)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
            await asyncio.wait_for(process.wait(), PATIENCE)


@pytest.mark.parametrize("started", ["as a script", "by its name", "by the command line", "as a package"])
async def test_steps_are_found_however_a_program_was_started(
    nats_server: NatsServer, client: Client, namespace: str, tmp_path: Path, started: str
) -> None:
    where = [nats_server.url, namespace]
    (tmp_path / "flows.py").write_text(GUARDED)
    package = tmp_path / "package"
    package.mkdir()
    (package / "__main__.py").write_text(GUARDED)
    command = {
        "as a script": [str(tmp_path / "flows.py"), *where],
        "by its name": ["-m", "flows", *where],
        "as a package": ["-m", "package", *where],
        "by the command line": [
            *("-m", "jetflow.cli", "worker", str(tmp_path / "flows.py"), "--step-processes", "1"),
            *("--server", where[0], "--namespace", where[1]),
        ],
    }[started]
    async with program(sys.executable, *command, place=tmp_path) as process:
        await until(lambda: _is_declared(client))
        run = await client.trigger("summed", {"left": 1, "right": 2})
        total, child, worker = await run.result(PATIENCE)
    assert total == 3
    assert worker == process.pid or started == "by the command line"  # which starts a supervisor
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


async def test_a_program_that_starts_its_worker_when_it_is_imported_says_so(
    nats_server: NatsServer, client: Client, stored: Stored, namespace: str, tmp_path: Path
) -> None:
    """And starts no more of them."""
    (tmp_path / "flows.py").write_text(NOT_GUARDED)
    command = [sys.executable, str(tmp_path / "flows.py"), nats_server.url, namespace]
    async with program(*command, place=tmp_path):
        await until(lambda: _is_declared(client))
        run = await client.trigger("summed", {"left": 1, "right": 2})
        with pytest.raises(Exception, match="ProcessDied") as caught:
            await run.result(PATIENCE)
    assert "could not import what it was to run: RuntimeError: a worker is started by the import" in str(caught.value)
    assert 'start it behind if __name__ == "__main__":' in str(caught.value)


async def test_a_program_without_a_file_is_refused(tmp_path: Path) -> None:
    code = FLOWS + "\nfrom jetflow import Worker\nWorker(summed)\n"
    async with program(sys.executable, "-c", code, place=tmp_path) as process:
        output, _ = await process.communicate()
    assert b"it is declared in a program that has no file: write it to a module" in output


async def test_a_step_that_is_not_there_when_its_module_is_imported_is_named(
    nats_server: NatsServer, client: Client, namespace: str, tmp_path: Path
) -> None:
    added = (
        FLOWS + '\nfrom jetflow import Workflow\nlate = Workflow("late", input=int)\ndef add(number: int) -> int: ...\n'
    )
    (tmp_path / "flows.py").write_text(added)
    (tmp_path / "start.py").write_text(
        f'import flows\n{RUNS.replace("summed", "flows.late")}\nflows.late.step(runs_in="process")(flows.add)\nmain()\n'
    )
    command = [sys.executable, str(tmp_path / "start.py"), nats_server.url, namespace]
    async with program(*command, place=tmp_path):
        await until(lambda: _is_declared(client, "late"))
        run = await client.trigger("late", 1)
        with pytest.raises(Exception, match="ProcessDied") as caught:
            await run.result(PATIENCE)
    assert "step 'add' of workflow 'late' is not there when module 'flows' is imported" in str(caught.value)


async def _is_declared(client: Client, name: str = "summed") -> bool:
    try:
        await client._session.registry.find(name)
    except LookupError:
        return False
    return True
