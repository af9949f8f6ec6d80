"""Finding the n-th message of a filter: exact wherever it stands, and hardly counted where nothing stands between."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from random import Random

import nats
import pytest

import jetflow
from jetflow.broker.seeking import Landmarks, Seeker
from jetflow.broker.store import Store
from jetflow.server import NatsServer

MANY = 3000


class Counting(Store):
    """A store that notes how often it counts."""

    counted = 0

    async def count(self, stream: str, subject: str, *, after: int = 0, since: float | None = None) -> int:
        self.counted += 1
        return await super().count(stream, subject, after=after, since=since)


@pytest.fixture
async def store(nats_server: NatsServer, namespace: str) -> AsyncGenerator[Counting]:
    async with jetflow.connect(nats_server.url, namespace=namespace) as client:
        found = Counting(client._session.connection)
        await found.start()
        yield found


async def _stored(server: NatsServer, name: str, others: Callable[[int], int]) -> list[int]:
    """Store messages of a filter, with so many others before each; return the sequences of the former."""
    client = await nats.connect(server.url)
    js = client.jetstream()
    await js.add_stream(name=name, subjects=[f"{name}.>"], allow_direct=True)
    sequence, found = 0, list[int]()
    for number in range(MANY):
        for _ in range(others(number)):
            await client.publish(f"{name}.other", b"")
            sequence += 1
        await client.publish(f"{name}.ours.{number}", b"")
        sequence += 1
        found.append(sequence)
    for _ in range(10):
        await client.publish(f"{name}.other", b"")
    await js.publish(f"{name}.other", b"")
    await client.close()
    return found


@pytest.mark.parametrize(
    ("others", "most"),
    [
        (lambda _: 0, 1),
        (lambda number: number == 1700, 12),
        (lambda number: int(number < 1000), 20),
        (lambda number: 7 * (number % 500 == 0), 25),
    ],
    ids=["dense", "one stands between", "dense behind", "gaps"],
)
async def test_the_nth_message_is_found(
    store: Counting, nats_server: NatsServer, namespace: str, others: Callable[[int], int], most: int
) -> None:
    name = f"seek-{namespace}"
    sequences = await _stored(nats_server, name, others)
    client = await nats.connect(nats_server.url)
    landmarks, chosen = Landmarks(), Random(1)
    try:
        for n in (0, MANY - 1, MANY, *(chosen.randrange(MANY) for _ in range(60))):
            seeker = Seeker(store, name, f"{name}.ours.*", landmarks=landmarks)
            place = await seeker.near(n, MANY)
            assert place.n <= n
            assert place.n == sum(sequence <= place.behind for sequence in sequences)
            assert n - place.n <= 300 or n == MANY
        assert store.counted <= most, store.counted
    finally:
        await client.jetstream().delete_stream(name)
        await client.close()
