"""A dashboard for browser tests, in a process of its own: worker, runs of all kinds, and HTTP on a free port.

``python -m tests.dashboard.browser.serve URL NAMESPACE [OPTION ...]`` prints one line of JSON when all stands: where it
listens, and the ids of the runs. An option is ``empty``, ``read-only`` or ``very-large``. It ends with its standard
input.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import sys
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta

import uvicorn

import jetflow
from jetflow import Client, Worker, WorkerOptions
from jetflow.dashboard import Access, Dashboard
from tests.dashboard.browser import flows


async def schedule(client: Client) -> None:
    """Make schedules of all kinds, two of which have had ticks."""
    schedules = client.schedules
    await schedules.create("report", flows.tick, 1, every=3600, catch_up="all")
    await schedules.create("sums", flows.tick, -1, every=7200, overlap="skip")
    await schedules.create("nightly", flows.tick, 2, cron="30 3 * * 1-5", tz="Europe/Berlin", jitter=60)
    await schedules.create("held", flows.tick, 3, cron="0 9 1 * *")
    await schedules.pause("held")
    now = datetime.now(UTC)
    runs = [run for name in ("report", "sums") for run in await schedules.backfill(name, now - timedelta(hours=6), now)]
    await asyncio.gather(*(run.result(timeout=60) for run in runs), return_exceptions=True)


async def publish(client: Client, run: str) -> None:
    """Publish events, some of which start runs."""
    await client.publish("order.seen", {"page": "/docs", "tags": [flows.HOSTILE]}, key="ann")
    for amount in (5, 12, 700):
        await client.publish("order.paid", {"amount": amount, "items": ["a", "b"]}, key=f"customer-{amount}")
    await client.signal(run, "hurry", {"by": "ann"})


async def fill(client: Client) -> dict[str, str]:
    """Begin the runs, and wait until those that end have ended."""
    site = await client.trigger(
        flows.index_tree, flows.Job("site", flows.CHILDREN), key="site", metadata={"customer": "acme"}
    )
    broken = await client.trigger(flows.index_tree, flows.Job("broken", 20, "broken"), key="broken")
    deep = await client.trigger(flows.level, 4, key="deep")
    large = await client.trigger(flows.large, 2_000_000, key="large")
    hostile = await client.trigger(flows.index_tree, flows.Job(flows.HOSTILE, 1, "broken"), key=flows.HOSTILE)
    many = await client.trigger(flows.many_steps, 1, key="many")
    wavering = await client.trigger(flows.wavering, "docs", key="wavering")
    ended = [site, broken, deep, large, hostile, many, wavering]
    waiting = [
        await client.trigger(flows.sell, "o-17", key="sell"),
        await client.trigger(flows.doze, 2, key="doze"),
        await client.trigger(flows.patient, 1, key="patient"),
        await client.trigger(flows.stubborn, "later", key="stubborn"),
        await client.trigger("unserved", 1, key="unserved"),
        await client.trigger(flows.stuck, 3, key="stuck"),
    ]
    await schedule(client)
    await publish(client, waiting[0].id)
    cancelled = await client.trigger(flows.patient, 2, key="cancelled")
    await client.cancel(cancelled.id)
    for run in (*ended, cancelled):
        await asyncio.gather(run.result(timeout=60), return_exceptions=True)
    return {(await client.describe(run.id, children=0)).key or "": run.id for run in (*ended, *waiting, cancelled)}


async def main(url: str, namespace: str, *options: str) -> None:
    """Serve until the standard input ends."""
    logging.disable(logging.ERROR)
    runs: dict[str, str] = {}
    options_of_worker = WorkerOptions(slots=40, grace=0.1)
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(jetflow.connect(url, namespace=namespace))
        if "empty" not in options:
            async with Worker([flows.unserved], server=url, namespace=namespace):
                pass  # declared, and nobody pulls any more
            await stack.enter_async_context(
                Worker(flows.SERVED, server=url, namespace=namespace, options=options_of_worker)
            )
            if "very-large" in options:
                run = await client.trigger(flows.large, flows.VERY_LARGE - 2, key="very-large")
                await run.result(timeout=120)
                runs = {"very-large": run.id}
            else:
                runs = await fill(client)
        access = Access() if "read-only" in options else Access.full("tester")
        dashboard = await stack.enter_async_context(Dashboard(client, access=access))
        listener = socket.create_server(("127.0.0.1", 0))
        server = uvicorn.Server(
            uvicorn.Config(dashboard, log_level="error", lifespan="off", timeout_graceful_shutdown=1)
        )
        serving = asyncio.create_task(server.serve([listener]))
        sys.stdout.write(json.dumps({"url": f"http://127.0.0.1:{listener.getsockname()[1]}/", "runs": runs}) + "\n")
        sys.stdout.flush()
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        server.should_exit = True
        await serving


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
