"""Runs what a page shows, in a directory of its own: workflows by triggering them, programs by starting them."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import jetflow
from jetflow import Workflow
from tests.docs.blocks import ROOT, Block, blocks_of

BOUND = 60.0


def written(page: str, directory: Path) -> list[Block]:
    """Write the files that a page names, and return its blocks."""
    blocks = blocks_of(ROOT / page)
    for block in blocks:
        if block.file and block.title in ("", "jetflow"):
            (directory / block.file).parent.mkdir(parents=True, exist_ok=True)
            (directory / block.file).write_text(block.text)
    return blocks


def run(directory: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("NATS_", "JETFLOW_"))}
    return subprocess.run(
        [sys.executable, *command],
        cwd=directory,
        env=clean | {"PYTHONPATH": f"{directory}:{ROOT}"} | environment,
        capture_output=True,
        text=True,
        timeout=BOUND,
        check=False,
    )


async def ends(modules: list[str], wanted: list[tuple[str, Any]], programs: list[str]) -> list[Any]:
    """Trigger workflows of modules, and return their outputs, or the messages of their errors.

    Programs are run beside the worker, in a thread.
    """
    declared: dict[str, Workflow[Any, Any]] = {}
    for module in modules:
        for value in vars(importlib.import_module(module)).values():
            if isinstance(value, Workflow):
                declared[value.name] = value
    found: list[Any] = []
    async with jetflow.Worker(list(declared.values())), jetflow.connect() as client:
        for name, given in wanted:
            run = await client.trigger(name, given)
            try:
                found.append(await run.result(BOUND))
            except jetflow.RunFailed as failed:
                found.append(f"{failed.error_type}: {failed.error_message}")
        for program in programs:
            await asyncio.to_thread(runpy.run_path, program, run_name="__main__")
    return found


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(ends(*json.loads(sys.argv[1])))))
