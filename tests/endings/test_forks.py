"""A step that forks: its worker lives, its child ends, and what belongs to the parent stays the parent's."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from jetflow import Client
from jetflow.server import NatsServer
from tests.endings import forking_worker
from tests.endings.forking_worker import (
    bounded,
    called,
    comes_back,
    comes_back_async,
    executed,
    pooled,
    said_in_a_child,
    spawns_in_child,
)
from tests.endings.stored import PATIENCE
from tests.processes import children_of, lives

ROUNDS = int(os.environ.get("JETFLOW_TEST_FORKS", "3"))


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_a_worker_outlives_the_forks_of_its_steps(
    nats_server: NatsServer, client: Client, namespace: str, loop: str
) -> None:
    worker = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", forking_worker.__name__, nats_server.url, namespace, loop)
    )
    try:
        begun: list[int] = []
        for number in range(ROUNDS):
            assert await (await client.trigger(pooled, 10)).result(PATIENCE) == 285
            assert await (await client.trigger(bounded)).result(PATIENCE) == -signal.SIGTERM
            assert await (await client.trigger(executed, 10)).result(PATIENCE) == 285
            assert await (await client.trigger(called)).result(PATIENCE) == "done"
            assert await (await client.trigger(comes_back)).result(PATIENCE) == 0
            assert await (await client.trigger(comes_back_async)).result(PATIENCE) == 0
            said = await (await client.trigger(spawns_in_child, 0)).result(PATIENCE)
            assert said.startswith("ForkedProcess: ctx belongs to the process that has forked this one")
            begun = begun or children_of(worker.pid)  # the guard, and what multiprocessing starts once
            assert children_of(worker.pid) == begun, f"round {number} has left processes"
        assert worker.returncode is None
        worker.send_signal(signal.SIGTERM)
        assert await worker.wait() == 0
        async with asyncio.timeout(PATIENCE):
            while any(map(lives, begun)):  # noqa: ASYNC110 - they tell nobody of their end
                await asyncio.sleep(0.02)
    finally:
        if worker.returncode is None:
            worker.kill()
            await worker.wait()


async def test_a_client_says_so_in_a_forked_child(client: Client) -> None:
    said = said_in_a_child(lambda: client.trigger(called).send(None))
    assert said == "ForkedProcess: this client belongs to the process that has forked this one: make one here"
    assert not said_in_a_child(lambda: None)
    await client.trigger(called)  # and here it goes on


async def test_a_child_holds_neither_the_connection_nor_the_servers_guard(tmp_path: Path) -> None:
    """The server ends with the program, though a forked child lives on."""
    program = tmp_path / "program.py"
    program.write_text(
        "import asyncio, os, signal, jetflow\n"
        "async def main():\n"
        "    async with jetflow.local_server() as server, jetflow.connect(server.url):\n"
        "        if (child := os.fork()) == 0:\n"
        "            signal.pause()\n"
        "        print(server.pid, child, flush=True)\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen([sys.executable, str(program)], stdout=subprocess.PIPE) as process:  # noqa: ASYNC220
        assert process.stdout is not None
        server, child = map(int, (await asyncio.to_thread(process.stdout.readline)).split())
    try:
        async with asyncio.timeout(PATIENCE):
            while lives(server):  # noqa: ASYNC110 - it tells nobody of its end
                await asyncio.sleep(0.02)
        assert lives(child)
    finally:
        os.kill(child, signal.SIGKILL)
