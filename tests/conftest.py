"""The fixtures that every test may use: one real nats-server a session, one fresh namespace a test.

Event loops: each test has a loop of its own (``asyncio_default_test_loop_scope`` in pyproject.toml), so that
what a test leaves running is found at its own end. A session fixture needs ``loop_scope="session"``, and
hands out only what is tied to no loop: the server is a process and a URL. Open connections in the test, or in
a fixture of function scope. ``JETFLOW_TEST_LOOP=uvloop`` runs the whole suite on uvloop, as workers do.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncGenerator, Callable, Mapping

import pytest
import pytest_asyncio

from jetflow.server import NatsServer


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    if os.environ.get("JETFLOW_TEST_LOOP") == "uvloop":
        import uvloop  # noqa: PLC0415  uvloop does not exist on Windows

        return {"uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def nats_server() -> AsyncGenerator[NatsServer]:
    """The session's server. A test that stops or kills one starts its own."""
    async with NatsServer() as server:
        yield server


@pytest.fixture
def namespace() -> str:
    """A namespace that no other test uses."""
    return f"t{secrets.token_hex(4)}"
