"""What a worker's user may not do: named with its subject, before anything runs where it can be known; never a loop."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
import pytest_asyncio

import jetflow
from jetflow import Client, Context, Retry, Worker, WorkerOptions, Workflow, workflow
from jetflow.errors import PermissionDenied
from jetflow.server import NatsServer, ServerOptions
from tests.endings.stored import GRACE, PATIENCE, Stored, until

OPTIONS = WorkerOptions(grace=GRACE, ack_wait=1)

USERS = """
authorization {
  users: [
    { user: operator, password: secret }
    { user: limited, password: secret, permissions: { publish: { allow: [">"], deny: [%s] } } }
  ]
}
"""


@workflow("square", retry=Retry(attempts=1))
async def square(number: int) -> int:
    return number * number


sum_of_squares = Workflow[int, int]("sum-of-squares", input=int, output=int)


@sum_of_squares.step
async def scatter(count: int, ctx: Context) -> None:
    await ctx.spawn_workflows(square, range(count))


@sum_of_squares.step(after=[scatter])
async def gather(_: int, ctx: Context) -> int:
    return sum([child.output async for child in ctx.children(scatter, square)])


class Guarded:
    """A server whose user ``limited`` may not publish on what is denied, and a client of its operator."""

    def __init__(self, server: NatsServer, client: Client) -> None:
        self._server = server
        self.client = client
        self.stored = Stored(client)

    def worker(self) -> Worker:
        """A worker of the limited user."""
        return Worker([square, sum_of_squares], server=url(self._server, "limited"), options=OPTIONS)

    async def deny(self, *subjects: str) -> None:
        """Change what the limited user may not do, while it is connected."""
        directory = self._server._scratch
        assert directory is not None
        before = self._reloads()
        assert self._server.pid is not None
        (directory / "nats-server.conf").write_text(denying(*subjects))
        os.kill(self._server.pid, signal.SIGHUP)
        await until(lambda: self._has_reloaded(before))

    async def _has_reloaded(self, before: int) -> bool:
        return self._reloads() > before

    def _reloads(self) -> int:
        return self._server.log_tail(1000).count("Reloaded server configuration")


def url(server: NatsServer, user: str) -> str:
    return server.url.replace("//", f"//{user}:secret@")


def denying(*subjects: str) -> str:
    return USERS % ", ".join(f'"{subject}"' for subject in subjects)


@pytest_asyncio.fixture
async def guarded(tmp_path: Path) -> AsyncGenerator[Guarded]:
    """All is allowed, and the operator has had the streams and consumers made."""
    server = NatsServer(tmp_path / "store", ServerOptions(config=denying()))
    async with server:
        async with Worker([square, sum_of_squares], server=url(server, "operator"), options=OPTIONS):
            pass
        async with jetflow.connect(url(server, "operator")) as client:
            yield Guarded(server, client)


async def logged(caplog: pytest.LogCaptureFixture, words: str, times: int = 1) -> None:
    async def is_there() -> bool:
        return caplog.text.count(words) >= times

    await until(is_there)


async def refused(guarded: Guarded, subject: str) -> None:
    """Start a worker that is refused by name, and runs nothing."""
    run = await guarded.client.trigger(square, 3)
    worker = guarded.worker()
    with pytest.raises(PermissionDenied) as caught:
        await asyncio.wait_for(worker.start(), PATIENCE)
    assert caught.value.subject == subject
    assert subject in str(caught.value)
    assert worker.counts.executed == 0
    await guarded.deny()
    async with guarded.worker():
        assert await run.result(PATIENCE) == 9


@pytest.mark.parametrize("kind", ["run", "step", "join", "mark", "try"])
async def test_a_worker_that_may_not_record_does_not_start(guarded: Guarded, kind: str) -> None:
    await guarded.deny(f"jf.default.{kind}.>")
    await refused(guarded, f"jf.default.{kind}.>")


async def test_a_worker_that_may_not_count_does_not_start(guarded: Guarded) -> None:
    await guarded.deny("$KV.jf_default_counters.>")
    await refused(guarded, "$KV.jf_default_counters.>")


async def test_a_worker_that_may_not_read_many_at_once_does_not_start(guarded: Guarded) -> None:
    """The server says so of a read that many messages answer, too: nobody waits for them."""
    subject = f"$JS.API.DIRECT.GET.{guarded.stored.names.timers_stream}"
    await guarded.deny(subject)
    await refused(guarded, subject)


@pytest.mark.parametrize("consumer", ["tasks.square=run", "inbox.workers", "timers.due"])
async def test_a_worker_that_may_not_pull_does_not_start(guarded: Guarded, consumer: str) -> None:
    subject = f"$JS.API.CONSUMER.MSG.NEXT.JF_default_{consumer}"
    await guarded.deny(subject)
    await refused(guarded, subject)


async def test_asking_what_a_user_may_stores_nothing(guarded: Guarded) -> None:
    async with guarded.worker():
        names = guarded.stored.names
        for stream in (names.records_stream, names.counters_stream):
            assert await guarded.stored.subjects(stream) == []


async def test_pulling_that_is_forbidden_later_is_said_once_and_tried_on(
    guarded: Guarded, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jetflow.broker.puller.DENIED_RETRY", 0.1)
    monkeypatch.setattr("jetflow.broker.puller.PULL_EXPIRES", 0.5)
    monkeypatch.setattr("jetflow.broker.puller.QUIET_EXPIRES", 0.5)
    monkeypatch.setattr("jetflow.broker.puller.IDLE_HEARTBEAT", 0.25)
    subject = "$JS.API.CONSUMER.MSG.NEXT.JF_default_tasks.square=run"
    async with guarded.worker():
        await guarded.deny(subject)
        await logged(caplog, f'permissions violation for publish to "{subject.lower()}"', times=3)
        run = await guarded.client.trigger(square, 3)
        assert caplog.text.count("consumer square=run gives no tasks to this worker") == 1
        assert f"may not publish on {subject}" in caplog.text
        await guarded.deny()
        assert await run.result(PATIENCE) == 9


async def test_acknowledgements_that_are_forbidden_are_said_once(
    guarded: Guarded, caplog: pytest.LogCaptureFixture
) -> None:
    """The broker gives the task again, and again: the worker asks for no more of them so soon, and runs none twice."""
    await guarded.deny("$JS.ACK.>")
    async with guarded.worker() as worker:
        run = await guarded.client.trigger(square, 3)
        assert await run.result(PATIENCE) == 9
        await logged(caplog, "consumer square=run gives no tasks to this worker")
        assert "may not publish on $JS.ACK." in caplog.text
        await guarded.deny()
        await until(guarded.stored.is_idle)
    assert worker.counts.executed == 1


async def test_an_outcome_that_may_not_be_recorded_is_kept_until_it_may(
    guarded: Guarded, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No body runs again, no attempt is counted, and it is said once: here of the children of one step."""
    monkeypatch.setattr("jetflow.worker.recorder.HELD_AGAIN_AFTER", OPTIONS.ack_wait)
    await guarded.deny("jf.default.run.*.*.scatter.*")
    async with guarded.worker() as worker:
        run = await guarded.client.trigger(sum_of_squares, 2)
        await logged(caplog, 'for publish to "jf.default.run.', times=2 * 3)  # each of the two is tried again
        assert worker.counts.executed == 3
        assert caplog.text.count("how tasks have ended is kept here and recorded when that is allowed") == 1
        await guarded.deny()
        assert await run.result(PATIENCE) == 1
        await until(guarded.stored.is_idle)
    assert (worker.counts.executed, worker.counts.handed_back, worker.counts.failed) == (4, 0, 0)
