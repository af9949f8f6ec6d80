"""The broker's parts by themselves: publishing in groups, and reading many."""

from __future__ import annotations

import asyncio
import secrets
import sys
from collections.abc import AsyncIterator

import pytest

from jetflow import Auth, Placement, Worker, WorkerOptions, connect, workflow
from jetflow.broker.access import access_of
from jetflow.broker.connection import API_TIMEOUT, Connection
from jetflow.broker.item import Item
from jetflow.broker.publisher import Receipt
from jetflow.broker.scanning import PAGE, Scan
from jetflow.broker.session import Session
from jetflow.broker.topology import MOST_STEPS, Retention, ensure_streams
from jetflow.engine.tasks import StepAddress
from jetflow.errors import BrokerError
from jetflow.server import NatsServer, ServerOptions

JOIN = StepAddress("0" * 32, "1" * 32, "scan")
MANY = 2 * PAGE + 70


@pytest.fixture
async def session(nats_server: NatsServer, namespace: str) -> AsyncIterator[Session]:
    async with await Session.open(nats_server.url, namespace) as session:
        yield session


def outcomes(session: Session, count: int) -> list[Item]:
    """Return records of children of one step, each with another body."""
    names = session.names
    runs = [names.run(JOIN.root, JOIN.run, JOIN.step, secrets.token_hex(16)) for _ in range(count)]
    return [Item(run, b"", str(number).encode()) for number, run in enumerate(runs)]


async def published(session: Session, items: list[Item]) -> list[Receipt]:
    """Publish all in one pass of the event loop, and return what became of each."""
    waiting = [asyncio.get_running_loop().create_future() for _ in items]
    for item, future in zip(items, waiting, strict=True):
        session.records.publish(item, future.set_result)
    async with asyncio.timeout(20):
        return await asyncio.gather(*waiting)


# --- streams


async def test_streams_with_other_settings_are_left_as_they_are(session: Session) -> None:
    connection, names = session.connection, session.names
    info = await connection.api(f"STREAM.INFO.{names.tasks_stream}")
    await connection.api(f"STREAM.UPDATE.{names.tasks_stream}", info["config"] | {"max_age": 0})
    await ensure_streams(connection, names, Retention())
    assert (await connection.api(f"STREAM.INFO.{names.tasks_stream}"))["config"]["max_age"] == 0


async def test_streams_are_made_within_the_bounds_that_are_given() -> None:
    """``max_bytes`` is for streams that refuse what is new: a bound would make others lose what is old."""
    placement = Placement(tags=("ssd",))

    @workflow("w")
    async def flow() -> None: ...

    async def made(connection: Connection) -> set[tuple[str, int, tuple[str, ...]]]:
        names = (await connection.api("STREAM.NAMES"))["streams"]
        configs = [(await connection.api(f"STREAM.INFO.{name}"))["config"] for name in names]
        return {(config["discard"], config["max_bytes"], tuple(config["placement"]["tags"])) for config in configs}

    expected = {("new", 1 << 20, ("ssd",)), ("old", -1, ("ssd",))}
    tagged = ServerOptions(config="server_tags: [ssd]\n")
    async with NatsServer(options=tagged) as server, await Connection.open(server.url) as connection:
        async with connect(server.url, max_bytes=1 << 20, placement=placement):
            assert await made(connection) == expected
        options = WorkerOptions(max_bytes=1 << 20, placement=placement)
        async with Worker([flow], server=server.url, namespace="other", options=options):
            assert await made(connection) == expected
    with pytest.raises(ValueError, match="above 0"):
        WorkerOptions(max_bytes=0)


async def test_a_namespace_may_have_thousands_of_steps(session: Session) -> None:
    """Each is a consumer, of which the server takes a thousand unless the stream says more."""
    info = await session.connection.api(f"STREAM.INFO.{session.names.tasks_stream}")
    assert info["config"]["max_consumers"] == MOST_STEPS


async def test_an_account_may_allow_fewer_steps() -> None:
    account = "jetstream: { max_consumers: 50 }, users: [ { user: app, password: a } ]"
    async with NatsServer(options=ServerOptions(config=f"accounts {{ A: {{ {account} }} }}\n")) as server:
        access = access_of(server.url, auth=Auth(user="app", password="a"))
        async with await Session.open(access, "few") as session:
            info = await session.connection.api(f"STREAM.INFO.{session.names.tasks_stream}")
    assert info["config"]["max_consumers"] == -1


async def test_streams_that_hold_something_else_are_refused(session: Session) -> None:
    connection, names = session.connection, session.names
    info = await connection.api(f"STREAM.INFO.{names.tasks_stream}")
    other = info["config"] | {"subjects": [names.all_tasks[0]], "republish": None}
    await connection.api(f"STREAM.UPDATE.{names.tasks_stream}", other)
    with pytest.raises(BrokerError, match="made by another version of jetflow"):
        await ensure_streams(connection, names, Retention())


@pytest.mark.parametrize("metadata", [None, {"jetflow_edition": "1"}, {"other": "2"}], ids=["none", "older", "other"])
async def test_a_namespace_of_another_edition_is_refused(
    nats_server: NatsServer, namespace: str, metadata: dict[str, str] | None
) -> None:
    """By whoever comes to it, with one error that says what to do."""
    async with await Session.open(nats_server.url, namespace) as session:
        connection, stream = session.connection, session.names.records_stream
        config = (await connection.api(f"STREAM.INFO.{stream}"))["config"]
        await connection.api(f"STREAM.DELETE.{stream}")
        await connection.api(f"STREAM.CREATE.{stream}", config | {"metadata": metadata})
    has = "edition 1" if "jetflow_edition" in (metadata or {}) else "no edition"
    expected = (
        f"the stream {stream} has {has} of jetflow's wire format in its metadata, and this jetflow needs edition 2: "
        "use another namespace, or delete the streams of this one"
    )

    @workflow("w")
    async def flow() -> None: ...

    with pytest.raises(BrokerError) as refused:
        await connect(nats_server.url, namespace=namespace).__aenter__()
    assert str(refused.value) == expected
    with pytest.raises(BrokerError) as refused:
        await Worker([flow], server=nats_server.url, namespace=namespace).start()
    assert str(refused.value) == expected
    command = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "jetflow.cli", "trigger", "w", "--server", nats_server.url, "--namespace", namespace),
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await command.communicate()
    assert command.returncode == 1
    assert errors.decode().strip() == f"error: {expected}"


async def test_streams_carry_the_edition(session: Session) -> None:
    names, connection = session.names, session.connection
    infos = [
        await connection.api(f"STREAM.INFO.{name}")
        for name in (await connection.api("STREAM.NAMES"))["streams"]
        if names.namespace in name
    ]
    assert len(infos) == 7
    assert {info["config"]["metadata"]["jetflow_edition"] for info in infos} == {"2"}
    await ensure_streams(connection, names, Retention())


# --- publishing in groups


@pytest.mark.parametrize("count", [1, 2, 3, MANY])
async def test_all_of_a_group_are_stored(session: Session, count: int) -> None:
    receipts = await published(session, outcomes(session, count))
    assert all(receipt.stored and receipt.error is None for receipt in receipts)
    assert await session.store.leader_count(session.names.records_stream, session.names.runs_of_join(JOIN)) == count


async def test_of_a_group_each_that_is_there_already_is_told(session: Session) -> None:
    old, new = outcomes(session, 10), outcomes(session, 10)
    await published(session, old[:5])
    mixed = [item for pair in zip(old, new, strict=True) for item in pair]
    receipts = await published(session, mixed)
    existing = {item.subject for item, receipt in zip(mixed, receipts, strict=True) if not receipt.stored}
    assert existing == {item.subject for item in old[:5]}
    assert await session.store.leader_count(session.names.records_stream, session.names.runs_of_join(JOIN)) == 20


async def test_one_that_is_refused_does_not_take_the_others_with_it(session: Session) -> None:
    items = outcomes(session, 6)
    unknown = Item(f"{session.names.prefix}.run", b"", b"")  # no stream takes it: it is sent again until one does
    receipts = asyncio.create_task(published(session, [*items, unknown]))
    names = session.names
    async with asyncio.timeout(20):
        while await session.store.leader_count(names.records_stream, names.runs_of_join(JOIN)) < len(items):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    receipts.cancel()


async def test_one_that_is_too_large_is_refused_alone(session: Session) -> None:
    items = outcomes(session, 6)
    large = Item(items[2].subject, b"", bytes(session.connection.max_payload + 1))
    receipts = await published(session, [*items[:2], large, *items[3:]])
    assert [receipt.stored for receipt in receipts] == [True, True, False, True, True, True]
    assert "too large" in str(receipts[2].error) or "bytes" in str(receipts[2].error)
    assert session.connection.is_connected


# --- counting


async def test_each_of_those_who_count_together_is_told(session: Session) -> None:
    """What is added in one pass of the event loop is one message, with one answer for all."""
    told = [asyncio.get_running_loop().create_future() for _ in range(3)]
    for future in told:
        session.publisher.count(session.names.counter("join", JOIN), 1, future.set_result)
    async with asyncio.timeout(20):
        assert [receipt.value for receipt in await asyncio.gather(*told)] == [3, 3, 3]


# --- reading many


async def test_many_are_read_in_the_order_in_which_they_were_stored(session: Session) -> None:
    items = outcomes(session, MANY)
    await published(session, items)
    names = session.names
    found = [one async for page in session.store.scan(names.records_stream, names.runs_of_join(JOIN)) for one in page]
    assert found == [(item.subject, item.body) for item in items]
    ids = b"".join([page async for page in session.store.ids(names.records_stream, names.runs_of_join(JOIN))])
    assert ids.hex() == "".join(item.subject[-32:] for item in items)


async def test_nothing_is_read_where_nothing_is_stored(session: Session) -> None:
    names = session.names
    assert [page async for page in session.store.scan(names.records_stream, names.runs_of_join(JOIN))] == []


async def test_a_reading_goes_on_behind_a_consumer_that_is_gone(session: Session) -> None:
    """As after a restart of the server, which forgets consumers that are kept in memory."""
    items = outcomes(session, MANY)
    await published(session, items)
    names, stream = session.names, session.names.records_stream
    scan = Scan(session.connection, stream, names.runs_of_join(JOIN))
    found: list[str] = []
    async for page in scan.pages():
        if not found:
            await session.connection.api(f"CONSUMER.DELETE.{stream}.{scan._consumer}")
        found += [message.subject for message in page]
    assert found == [item.subject for item in items]


async def test_a_reading_ends_though_what_was_counted_is_removed(session: Session) -> None:
    """What is purged by a filter beside the consumer's own is counted on by the server, as when a tree is cancelled."""
    names, stream = session.names, session.names.records_stream
    first, second = outcomes(session, 2)
    scan = Scan(session.connection, stream, names.runs_of_join(JOIN), stay=True)
    await published(session, [first])
    assert [message.subject async for page in scan.pages() for message in page] == [first.subject]
    await published(session, [second])
    await session.connection.api(
        f"STREAM.PURGE.{stream}", {"filter": f"{names.prefix}.run.*.*.*.{second.subject[-32:]}"}
    )
    await published(session, [second])
    async with asyncio.timeout(API_TIMEOUT / 2):
        assert [message.subject async for page in scan.pages() for message in page] == [second.subject]
    scan.let_go()


async def test_a_reading_leaves_no_consumer_behind(session: Session) -> None:
    await published(session, outcomes(session, MANY))
    names, stream = session.names, session.names.records_stream
    async for _ in session.store.scan(stream, names.runs_of_join(JOIN)):
        break  # before the end
    async with asyncio.timeout(20):
        while (await session.connection.api(f"CONSUMER.NAMES.{stream}")).get("consumers"):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
