"""Accounts with limits, as hosted NATS has them: few streams, few consumers, streams that need a bound in bytes."""

from __future__ import annotations

import pytest

import jetflow
from jetflow import Context, Retry, RunFailed, Worker, WorkerOptions, workflow
from jetflow.broker.connection import Connection
from jetflow.broker.topology import Retention, streams_of
from jetflow.errors import BrokerError, BrokerRefused
from jetflow.server import NatsServer, ServerOptions
from jetflow.wire.subjects import Subjects
from tests.endings.stored import GRACE, PATIENCE, Stored, until

OPTIONS = WorkerOptions(grace=GRACE, ack_wait=1)


@workflow("one", retry=Retry(attempts=1))
async def one(number: int) -> int:
    return number


@workflow("parent", retry=Retry(attempts=1))
async def parent(count: int, ctx: Context) -> int:
    return sum(await ctx.join(await ctx.spawn_workflows(one, range(count))))


@workflow("large", retry=Retry(attempts=1))
async def large() -> str:
    return "x" * 300_000


def account(limits: str) -> NatsServer:
    """A server with one account that has these limits."""
    users = "users: [ { user: a, password: a } ]"
    config = f"accounts {{ A: {{ jetstream: {{ {limits} }}, {users} }} }}\nno_auth_user: a\n"
    return NatsServer(options=ServerOptions(config=config))


async def joined(server: NatsServer, options: WorkerOptions = OPTIONS) -> int:
    async with Worker([one, parent], server=server.url, options=options), jetflow.connect(server.url) as client:
        result = await (await client.trigger(parent, 100)).result(PATIENCE)
        await until(Stored(client).is_idle)
        return result


async def test_six_streams_are_enough_without_large_values() -> None:
    """At the first start, and at those that find them; deleting asks for no stream that is not there."""
    async with account("max_streams: 6") as server:
        assert await joined(server) == await joined(server) == sum(range(100))
        async with jetflow.connect(server.url) as client:
            assert await client.delete((await client.trigger(one, 1)).id) is None


async def test_a_large_value_that_has_no_stream_is_refused_by_name() -> None:
    async with (
        account("max_streams: 6") as server,
        Worker([large], server=server.url, options=OPTIONS) as worker,
        jetflow.connect(server.url) as client,
    ):
        with pytest.raises(RunFailed, match="too few streams for JF_default_values") as caught:
            await (await client.trigger(large)).result(PATIENCE)
        assert caught.value.error_type == "PayloadTooLarge"
        with pytest.raises(BrokerError, match="too few streams for JF_default_values"):
            await client.trigger("large", "x" * 300_000)
        await until(Stored(client).is_idle)
    assert worker.counts.executed == 1


async def test_too_few_streams_are_refused_by_name() -> None:
    async with account("max_streams: 3") as server:
        with pytest.raises(BrokerRefused, match="maximum number of streams reached"):
            await joined(server)


async def test_a_consumer_for_each_step_is_enough() -> None:
    async with account("max_consumers: 2") as server:
        assert await joined(server) == await joined(server) == sum(range(100))


async def test_too_few_consumers_are_refused_by_name() -> None:
    async with account("max_consumers: 1") as server:
        with pytest.raises(BrokerRefused, match="maximum consumers limit reached"):
            await joined(server)


async def test_a_bound_in_bytes_that_is_required_is_asked_for_by_name() -> None:
    async with account("max_file: 1G, max_bytes_required: true") as server:
        with pytest.raises(BrokerRefused, match="max bytes"):
            await joined(server)


async def test_streams_that_an_operator_has_made_with_bounds_are_used() -> None:
    async with account("max_file: 1G, max_bytes_required: true") as server:
        async with await Connection.open(server.url) as connection:
            for config in streams_of(Subjects("default"), Retention()):
                await connection.api(f"STREAM.CREATE.{config['name']}", config | {"max_bytes": 100_000_000})
        assert await joined(server) == sum(range(100))
