"""Bounds in bytes: what is fetched, read or handled at once is bounded by its size, not only by its number."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from jetflow.broker.connection import Message
from jetflow.broker.grouping import BATCH_BYTES
from jetflow.broker.item import Item
from jetflow.broker.puller import PULL_BYTES, Delivery, Puller
from jetflow.broker.scanning import PAGE_BYTES, PULLS, Scan
from jetflow.broker.session import Session
from jetflow.broker.store import PAGE_BYTES as READ_BYTES
from jetflow.broker.topology import Consumer, ensure_inbox_consumer
from jetflow.engine.tasks import StepAddress
from jetflow.server import NatsServer, ServerOptions
from jetflow.worker.counts import Counts
from jetflow.worker.deliveries import Deliveries
from jetflow.worker.errands import HANDLED_BYTES, Errands

JOIN = StepAddress("0" * 32, "1" * 32, "scan")
LARGE = 300_000


@pytest.fixture
async def session(nats_server: NatsServer, namespace: str) -> AsyncIterator[Session]:
    async with await Session.open(nats_server.url, namespace) as session:
        yield session


async def stored(session: Session, count: int, size: int = LARGE) -> list[Item]:
    """Store records of children of one step, and return them in the order of the stream."""
    names = session.names
    runs = [names.run(JOIN.root, JOIN.run, JOIN.step, secrets.token_hex(16)) for _ in range(count)]
    items = [Item(run, b"", bytes([65 + number % 26]) * size) for number, run in enumerate(runs)]
    for item in items:
        await session.publisher.store(item.subject, item.body)
    return items


async def triggered(session: Session, count: int, size: int) -> None:
    """Put messages into the inbox."""
    for _ in range(count):
        await session.publisher.store(f"{session.names.prefix}.in.trigger.flow", b"x" * size)


async def pulling(session: Session, deliver: Callable[[Delivery], None]) -> Puller:
    """Return a started puller of the inbox."""
    names = session.names
    await ensure_inbox_consumer(session.connection, names, ack_wait=5.0)
    puller = Puller(session.connection, names.inbox_stream, names.inbox_consumer, deliver, lambda: None)
    await puller.start()
    return puller


# --- pull requests


async def test_a_request_brings_no_more_bytes_than_its_share(session: Session) -> None:
    await triggered(session, 12, LARGE)
    came: list[Delivery] = []
    nothing_more = asyncio.Event()

    def deliver(delivery: Delivery) -> None:
        came.append(delivery)
        puller.want(0)

    puller = await pulling(session, deliver)
    on_status = puller._on_status

    def ended(message: Message) -> None:
        on_status(message)
        if not message.subject.endswith(".0"):  # which says only whether this user may pull
            nothing_more.set()

    puller._on_status = ended
    puller.size.share = 1_000_000
    puller.want(100)
    async with asyncio.timeout(20):
        await nothing_more.wait()
    await puller.stop()
    assert len(came) == session.connection.largest_message // LARGE == 3


async def test_a_request_that_is_full_is_followed_by_the_next(
    session: Session, caplog: pytest.LogCaptureFixture
) -> None:
    """At once, as that is nothing out of the ordinary."""
    caplog.set_level(logging.INFO, "jetflow.broker")
    await triggered(session, 12, LARGE)
    all_came, came = asyncio.Event(), list[Delivery]()

    def deliver(delivery: Delivery) -> None:
        came.append(delivery)
        if len(came) == 12:
            all_came.set()

    puller = await pulling(session, deliver)
    puller.size.share = 1_000_000
    puller.want(100)
    async with asyncio.timeout(20):
        await all_came.wait()
    await puller.stop()
    assert [delivery.sequence for delivery in came] == list(range(1, 13))
    assert not caplog.messages


async def test_what_is_larger_than_the_server_takes_today_holds_up_nothing(tmp_path: Path) -> None:
    """It was stored when the server took larger messages; both ways to read many get by it."""
    larger, today = ServerOptions(max_payload=8 * 1024 * 1024), ServerOptions()
    async with NatsServer(tmp_path, options=larger) as server, await Session.open(server.url, "n") as session:
        for size in (10, 6_000_000, 10):
            await triggered(session, 1, size)
            await stored(session, 1, size)
    all_came, came = asyncio.Event(), list[int]()

    def deliver(delivery: Delivery) -> None:
        came.append(len(delivery.body))
        puller.want(100)
        if len(came) == 3:
            all_came.set()

    async with NatsServer(tmp_path, options=today) as server, await Session.open(server.url, "n") as session:
        puller = await pulling(session, deliver)
        puller.size.share = 1
        puller.want(100)
        async with asyncio.timeout(20):
            await all_came.wait()
            await puller.stop()
            assert came == [10, 6_000_000, 10]
            scan = session.store.scan(session.names.records_stream, session.names.runs_of_join(JOIN))
            assert [len(body) async for page in scan for _, body in page] == [10, 6_000_000, 10]


async def test_a_request_that_has_brought_all_is_no_trouble(session: Session, caplog: pytest.LogCaptureFixture) -> None:
    """Though the server says, with a status of errors, that it could have brought more bytes."""
    caplog.set_level(logging.INFO, "jetflow.broker")
    await triggered(session, 4, 10)
    all_came, came = asyncio.Event(), list[Delivery]()

    def deliver(delivery: Delivery) -> None:
        came.append(delivery)
        puller.want(1)
        if len(came) == 4:
            all_came.set()

    puller = await pulling(session, deliver)
    puller.want(1)
    async with asyncio.timeout(20):
        await all_came.wait()
    await puller.stop()
    assert not caplog.messages


# --- pages


async def test_a_scan_has_pages_of_so_many_bytes(session: Session) -> None:
    items = await stored(session, 60)
    scan = Scan(session.connection, session.names.records_stream, session.names.runs_of_join(JOIN))
    pages = [page async for page in scan.pages()]
    assert [message.data for page in pages for message in page] == [item.body for item in items]
    assert max(sum(len(message.data) for message in page) for page in pages) <= (PULLS + 1) * PAGE_BYTES


async def test_a_filtered_read_has_pages_of_so_many_bytes(session: Session) -> None:
    items = await stored(session, 60)
    names = session.names
    pages = [page async for page in session.store.pages(names.records_stream, names.runs_of_join(JOIN))]
    assert [one.body for page in pages for one in page] == [item.body for item in items]
    assert max(sum(len(one.body) for one in page) for page in pages) <= READ_BYTES + LARGE


async def test_what_does_not_fit_into_a_page_of_many_subjects_is_read_too(session: Session) -> None:
    items = await stored(session, 60)
    pages = [page async for page in session.store.many(session.names.records_stream, [item.subject for item in items])]
    assert {one.subject: one.body for page in pages for one in page} == {item.subject: item.body for item in items}
    assert max(sum(len(one.body) for one in page) for page in pages) <= READ_BYTES + LARGE


# --- groups of records


async def test_a_batch_of_records_has_so_many_bytes(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    names, sizes = session.names, list[int]()
    publish = session.ingest.publish

    def measured(items: list[Item]) -> asyncio.Future[list[int]]:
        sizes.append(sum(len(item.body) for item in items))
        return publish(items)

    monkeypatch.setattr(session.ingest, "publish", measured)
    runs = [names.run(JOIN.root, JOIN.run, JOIN.step, secrets.token_hex(16)) for _ in range(60)]
    waiting = [asyncio.get_running_loop().create_future() for _ in runs]
    for run, future in zip(runs, waiting, strict=True):
        session.records.publish(Item(run, b"", b"x" * LARGE), future.set_result)
    async with asyncio.timeout(20):
        assert all(receipt.stored for receipt in await asyncio.gather(*waiting))
    assert max(sizes) <= BATCH_BYTES + LARGE
    assert await session.store.leader_count(names.records_stream, names.runs_of_join(JOIN)) == 60


# --- what is on its way to the server


@pytest.mark.parametrize("in_batches", [False, True])
async def test_what_has_not_left_is_not_sent_again(monkeypatch: pytest.MonkeyPatch, in_batches: bool) -> None:
    """The server stands still, as a machine does that is moved: it gets nothing twice when it goes on."""
    monkeypatch.setattr("jetflow.broker.publisher.RESEND_AFTER", 0.3)
    monkeypatch.setattr("jetflow.broker.ingest.RESEND_AFTER", 0.3)
    async with NatsServer() as server, await Session.open(server.url, "n") as session:
        names, connection = session.names, session.connection
        publisher = session.ingest if in_batches else session.publisher
        sent, checked, check = 0, 0, publisher._check
        send, send_written = connection.send, connection.send_written

        def counted(subject: str, body: bytes = b"", *, reply: str = "", headers: bytes = b"") -> None:
            nonlocal sent
            sent += 1
            send(subject, body, reply=reply, headers=headers)

        def counted_pieces(written: list[bytes]) -> None:
            nonlocal sent
            sent += sum(piece.startswith((b"PUB ", b"HPUB ")) for piece in written)
            send_written(written)

        def noted() -> None:
            nonlocal checked
            checked += 1
            check()

        monkeypatch.setattr(connection, "send", counted)
        monkeypatch.setattr(connection, "send_written", counted_pieces)
        monkeypatch.setattr(publisher, "_check", noted)
        runs = [names.run(JOIN.root, JOIN.run, JOIN.step, secrets.token_hex(16)) for _ in range(100)]
        assert server.pid is not None
        os.kill(server.pid, signal.SIGSTOP)
        if in_batches:
            stored = asyncio.gather(session.ingest.publish([Item(run, b"", b"x" * LARGE) for run in runs]))
        else:
            stored = asyncio.gather(*(session.publisher.store(run, b"x" * LARGE) for run in runs))
        await until(lambda: checked == 8)
        os.kill(server.pid, signal.SIGCONT)
        await stored
        assert sent == 100


# --- messages to the workers at large


class Held:
    """Handles messages when it is let go, and counts what it holds."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.most: int = 0
        self.handled: int = 0
        self.go_on = asyncio.Event()

    async def handle(self, delivery: Delivery) -> None:
        self.sizes.append(len(delivery.body))
        self.most = max(self.most, sum(self.sizes))
        await self.go_on.wait()
        self.sizes.remove(len(delivery.body))
        self.handled += 1


async def errands_of(session: Session, handle: Callable[[Delivery], Awaitable[None]], window: int) -> Errands:
    names = session.names

    async def ensure() -> Consumer:
        return await ensure_inbox_consumer(session.connection, names, ack_wait=30.0)

    deliveries = Deliveries(session, Counts(), "w")
    errands = Errands(session, deliveries, names.inbox_stream, names.inbox_consumer, ensure, handle, window=window)
    await errands.start()
    return errands


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not is_so():  # noqa: ASYNC110 - what it waits for is a number, and tells nobody
            await asyncio.sleep(0.01)


async def test_no_more_messages_are_handled_at_once_than_their_window(session: Session) -> None:
    """Though some end before others, each of which makes room for one and no more."""
    await triggered(session, 40, 10)
    held = Held()
    errands = await errands_of(session, held.handle, 8)
    await until(lambda: len(held.sizes) == 8)
    held.go_on.set()
    await until(lambda: held.handled == 40)
    await errands.stop()
    assert held.most == 8 * 10


async def test_no_more_bytes_are_handled_at_once_than_their_bound() -> None:
    size = 4_000_000
    options = ServerOptions(max_payload=8 * 1024 * 1024)
    async with NatsServer(options=options) as server, await Session.open(server.url, "n") as session:
        await triggered(session, 24, size)
        held = Held()
        errands = await errands_of(session, held.handle, 64)
        await until(lambda: len(held.sizes) == 24 or (bool(held.sizes) and not errands.puller._asked))
        held.go_on.set()
        await until(lambda: held.handled == 24)
        await errands.stop()
        assert held.most <= HANDLED_BYTES + PULL_BYTES
