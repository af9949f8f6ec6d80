"""What the tests of commands share: a directory with workflows, in which commands are started."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path

import pytest
import pytest_asyncio

import jetflow
from jetflow import Client
from jetflow.server import NatsServer
from tests.integration.commands import CONNECTING, FLOWS, Command, Start


@pytest.fixture
def start(tmp_path: Path, nats_server: NatsServer, namespace: str) -> Start:
    """Starts a command in a directory that holds ``flows.py``, with NATS_URL and the test's namespace."""
    (tmp_path / "flows.py").write_text(FLOWS)

    @contextlib.asynccontextmanager
    async def start(
        *arguments: str,
        server: str | None = nats_server.url,
        stdin: bytes | None = None,
        program: str = "",
        environment: Mapping[str, str] | None = None,
    ) -> AsyncGenerator[Command]:
        if arguments[0] in CONNECTING:
            arguments += ("--namespace", namespace)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *(("-c", program) if program else ("-m", "jetflow.cli")),
            *arguments,
            cwd=tmp_path,
            env={**os.environ, "COLUMNS": "200", "NATS_URL": server or "", **(environment or {})},
            stdin=asyncio.subprocess.DEVNULL if stdin is None else asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        if stdin is not None:
            assert process.stdin is not None
            process.stdin.write(stdin)
            process.stdin.close()
        command = Command(process)
        try:
            yield command
        finally:
            await command.close()

    return start


@pytest_asyncio.fixture
async def client(nats_server: NatsServer, namespace: str) -> AsyncGenerator[Client]:
    """A client of the test's namespace."""
    async with jetflow.connect(nats_server.url, namespace=namespace) as client:
        yield client
