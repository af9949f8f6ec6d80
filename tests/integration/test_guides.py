"""The programs of the guides in docs/: each block runs, and the table of measures is the code's."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from jetflow.server import NatsServer
from jetflow.telemetry.catalogue import CATALOGUE
from tests.integration.test_examples import BOUND, ROOT, python_blocks

WORKER_BESIDE: Final = """
import asyncio
import threading

from flows import count_lines, count_tree
from jetflow import Worker

ready = threading.Event()


async def main() -> None:
    async with Worker([count_tree, count_lines]):
        ready.set()
        await asyncio.Event().wait()


threading.Thread(target=asyncio.run, args=[main()], daemon=True).start()
assert ready.wait(30)
"""

LOGGED: Final = """
import jetflow.logs
jetflow.logs.install()
jetflow.logs.current.set(jetflow.logs.InStep("the-run", "r", "w", "s", 1))
"""


def run(directory: Path, program: str, server: str) -> subprocess.CompletedProcess[str]:
    flows = next(block for block in python_blocks(ROOT / "README.md") if block.startswith("# flows.py"))
    (directory / "flows.py").write_text(flows)
    (directory / "program.py").write_text(program)
    return subprocess.run(
        [sys.executable, "program.py"],
        check=False,
        cwd=directory,
        env={**os.environ, "NATS_URL": server},
        capture_output=True,
        text=True,
        timeout=BOUND,
    )


def test_plain_programs(nats_server: NatsServer, tmp_path: Path) -> None:
    whole, flask = python_blocks(ROOT / "docs/sync.md")
    asked = (
        "\nanswer = app.test_client().post('/count')\nprint(answer.status_code, 'run' in answer.json)\nclient.close()\n"
    )
    for program, expected in ((WORKER_BESIDE + whole, " lines of Python in ."), (flask + asked, "202 True")):
        ran = run(tmp_path, program, nats_server.url)
        assert ran.returncode == 0, ran.stderr
        assert expected in ran.stdout


ASKED: Final = """

async def ask() -> None:
    import httpx

    async with app.router.lifespan_context(app) as state:

        async def served(scope, receive, send):
            await app({**scope, "state": dict(state)}, receive, send)

        async with httpx.AsyncClient(transport=httpx.ASGITransport(served), base_url="http://here") as http:
            run = (await http.post("/count", params={"root": "."})).json()["run"]
            await client_of_state(state).run(run).result(30)
            print((await http.get(f"/runs/{run}")).json()["output"])


def client_of_state(state):
    return next(value for value in state.values())


import asyncio

asyncio.run(ask())
"""
"""Asks the service of the page as a browser would."""


def test_embedding(nats_server: NatsServer, tmp_path: Path) -> None:
    shares, service, notebook = python_blocks(ROOT / "docs/embedding.md")
    direct = "\nimport asyncio\nprint(asyncio.run(store({'a': 'b'}, None, Pool())))\n"
    for program, expected in ((shares + direct, "1\n"), (service + ASKED, " lines of Python in .\n")):
        ran = run(tmp_path, program, nats_server.url)
        assert ran.returncode == 0, ran.stderr
        assert ran.stdout.endswith(expected)
    compile(notebook, "cells", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)  # test_interactive.py runs such cells


@pytest.mark.parametrize(
    ("block", "says"),
    [
        (0, "import logging\nlogging.getLogger('a').warning('slow')"),
        (1, "structlog.get_logger().warning('slow')"),
        (2, "logger.warning('slow')"),
    ],
    ids=["logging", "structlog", "loguru"],
)
def test_log_records_by_each_library(nats_server: NatsServer, tmp_path: Path, block: int, says: str) -> None:
    program = python_blocks(ROOT / "docs/observability.md")[block]
    ran = run(tmp_path, f"{program}\n{LOGGED}\n{says}\n", nats_server.url)
    assert ran.returncode == 0, ran.stderr
    said = ran.stdout + ran.stderr
    assert "the-run" in said
    assert "slow" in said


def test_spans(nats_server: NatsServer, tmp_path: Path) -> None:
    ran = run(tmp_path, python_blocks(ROOT / "docs/observability.md")[3], nats_server.url)
    assert ran.returncode == 0, ran.stderr


def test_each_measure_is_on_the_page_with_its_unit_and_labels() -> None:
    page = (ROOT / "docs/observability.md").read_text()
    rows = re.findall(r"^\| `(jetflow\.[a-z.]+)` \| (\S+) \| `(\w+)` \| ([a-z, ]*)\| (\w+): ", page, re.MULTILINE)
    told = {name: (unit, shown, labels.strip(), kind) for name, unit, shown, labels, kind in rows}
    assert told == {
        one.name: (
            one.unit,
            one.prometheus_name + ("_total" if one.kind == "counter" else ""),
            ", ".join(one.labels),
            one.kind,
        )
        for one in CATALOGUE
    }
