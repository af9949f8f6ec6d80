"""The fixtures that every test may use: one real nats-server a session, one fresh namespace a test.

Event loops: each test has a loop of its own (``asyncio_default_test_loop_scope`` in pyproject.toml), so that
what a test leaves running is found at its own end. A session fixture is a plain one that hands out what is tied to
no loop, as the server is, a process and a URL: with `pytest_asyncio_loop_factories` in place pytest-asyncio makes its
session's loop, and so every async fixture of the session, anew for each test. Open connections in the test, or in a
fixture of function scope. ``JETFLOW_TEST_LOOP=uvloop`` runs the whole suite on uvloop, as workers do.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import sys
from collections.abc import Callable, Generator, Mapping

import pytest
from hypothesis import HealthCheck, settings

from jetflow.broker.connection import Connection
from jetflow.broker.topology import delete_streams
from jetflow.server import NatsServer
from jetflow.wire.subjects import Subjects

# Started in the background, a shell has its children ignore SIGINT, and they theirs: the programs that are tested must
# not. A signal that is handled here is not ignored there.
signal.signal(signal.SIGINT, signal.default_int_handler)


# A machine that has more to do is no failure: how long an example takes to be drawn, or to run, is not tested.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    if os.environ.get("JETFLOW_TEST_LOOP") == "uvloop":
        import uvloop  # noqa: PLC0415  uvloop does not exist on Windows

        return {"uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}


TEST_SECONDS = int(os.environ.get("JETFLOW_TEST_SECONDS", "100"))
"""The bound of a test. It is less than faulthandler_timeout, which knows neither the test nor its tasks."""


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call() -> Generator[None, object, object]:
    """Let a test that hangs fail by its name, with the place where it waits; then the other tests run."""
    signal.signal(signal.SIGALRM, _on_alarm)
    signal.alarm(TEST_SECONDS)
    try:
        return (yield)
    finally:
        signal.alarm(0)


def _on_alarm(*_: object) -> None:
    with contextlib.suppress(RuntimeError):  # no event loop is running
        for task in asyncio.all_tasks():
            task.print_stack(file=sys.stderr)
    pytest.fail(f"not done after {TEST_SECONDS} s")


@pytest.fixture(scope="session")
def nats_server() -> Generator[NatsServer]:
    """The session's server. A test that stops or kills one starts its own."""
    server = NatsServer()
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        runner.run(server.start())
        yield server
        runner.run(server.stop())


@pytest.fixture
def namespace(request: pytest.FixtureRequest) -> Generator[str]:
    """A namespace that no other test uses. What it holds on the session's server is deleted after the test."""
    name = f"t{secrets.token_hex(4)}"
    yield name
    if "nats_server" in request.fixturenames:
        with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
            runner.run(_delete(request.getfixturevalue("nats_server"), name))


async def _delete(server: NatsServer, namespace: str) -> None:
    async with await Connection.open(server.url) as connection:
        await delete_streams(connection, Subjects(namespace))
