"""One worker of the chaos run: ``python -m tests.chaos.worker URLS ...``.

It writes its counts to a file twice a second, so that they outlive a SIGKILL, and dies with the process that started
it, whatever happens to that.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import logging
import sys
from pathlib import Path

import msgspec
import uvloop

from jetflow import Worker, WorkerOptions
from jetflow.errors import BrokerError
from tests.chaos.leash import die_with_parent


async def write_counts(worker: Worker, path: Path) -> None:
    temporary = path.with_suffix(".new")
    while True:
        await asyncio.sleep(0.5)
        temporary.write_bytes(msgspec.json.encode(worker.counts))
        temporary.replace(path)


async def main(given: argparse.Namespace) -> None:
    workflows = importlib.import_module(given.load).WORKFLOWS
    counting: asyncio.Task[None] | None = None
    while True:
        worker = Worker(
            workflows,
            server=given.urls.split(","),
            namespace=given.namespace,
            options=msgspec.json.decode(given.options, type=WorkerOptions),
        )
        try:
            await worker.start()
            break
        except BrokerError as error:  # the servers are down at this moment
            logging.warning("the worker could not start: %s", error)
            await asyncio.sleep(0.3)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    counting = asyncio.create_task(write_counts(worker, given.counts))
    await worker.run()
    counting.cancel()
    given.counts.write_bytes(msgspec.json.encode(worker.counts))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("urls")
    parser.add_argument("--namespace", required=True)
    parser.add_argument("--options", default="{}")
    parser.add_argument("--counts", type=Path, required=True)
    parser.add_argument("--load", default="tests.chaos.load")
    parser.add_argument("--parent", type=int, required=True)
    given = parser.parse_args()
    die_with_parent(given.parent)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.INFO)
    uvloop.run(main(given))
