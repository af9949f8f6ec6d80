"""A session with an event loop that runs all the time, as in a notebook: cells that are awaited one by one."""

from __future__ import annotations

import os
import subprocess
import sys

from jetflow.server import NatsServer

CELLS = """
import asyncio, jetflow, jetflow.sync
from jetflow import Worker, workflow

@workflow("double")
async def double(number: int) -> int:
    return 2 * number

worker = Worker([double])
await worker.start()
client = await jetflow.connect()
run = await client.trigger(double, 4)
print("awaited:", await run.result(timeout=30))
plain = jetflow.sync.connect()
run = plain.trigger(double, 5)
print("in a thread:", await asyncio.to_thread(run.result, 30))
plain.close()
await client.close()
await worker.stop()
print("tasks left:", len(asyncio.all_tasks() - {asyncio.current_task()}))
"""


def test_a_worker_and_a_client_in_cells(nats_server: NatsServer) -> None:
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-m", "asyncio"],
        input=CELLS,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "NATS_URL": nats_server.url},
    )
    assert ran.returncode == 0, ran.stderr
    assert "awaited: 8\n" in ran.stdout.replace(">>> ", "")
    assert "in a thread: 10\n" in ran.stdout.replace(">>> ", "")
    assert "tasks left: 0\n" in ran.stdout.replace(">>> ", ""), ran.stdout
    assert "Traceback" not in ran.stderr
