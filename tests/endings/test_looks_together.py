"""Those who look for events of one kind in the same pass of the event loop share a request, and each gets its own."""

from __future__ import annotations

import asyncio
from time import time
from typing import Any

from jetflow import Client
from jetflow.engine.awaiting import Awaited
from jetflow.runs.awaiting import Awaiting

TOPIC = "looks.together"


class Counted:
    """Counts the looks at a stream's leader."""

    def __init__(self, client: Client) -> None:
        self.looks = 0
        store = client.session.store
        right = store.leader_next

        async def counted(*given: Any) -> Any:
            self.looks += 1
            return await right(*given)

        store.leader_next = counted  # type: ignore[method-assign]


async def test_each_finds_what_is_there_from_its_own_time_on(client: Client) -> None:
    awaiting, times = Awaiting(client.session), [time()]
    sent: list[int] = []
    for number in range(3):
        await asyncio.sleep(0.02)
        sent.append((await client.publish(TOPIC, number, key="k" if number % 2 else None)).sequence)
        await asyncio.sleep(0.02)
        times.append(time())
    after = [Awaited(topic=TOPIC, key=None, after=sequence) for sequence in sent]
    since = [Awaited(topic=TOPIC, key=None, since=moment) for moment in times]
    keyed = [Awaited(topic=TOPIC, key="k", since=moment) for moment in times]
    picky = [Awaited(topic=TOPIC, key=None, since=moment, if_=(("", ">", 1),)) for moment in times]
    found = await asyncio.gather(*map(awaiting.earliest, [*since, *after, *keyed, *picky]))
    payloads = [None if one is None else one[0].payload for one in found]
    assert payloads == [0, 1, 2, None, 1, 2, None, 1, 1, None, None, 2, 2, 2, None]


async def test_where_nothing_is_there_one_look_tells_all(client: Client) -> None:
    awaiting = Awaiting(client.session)
    await client.publish(TOPIC, "old")
    began, counted = time() + 1, Counted(client)
    waits = [Awaited(topic=TOPIC, key=None, since=began + number / 1000) for number in range(500)]
    assert set(await asyncio.gather(*map(awaiting.earliest, waits))) == {None}
    assert counted.looks == 1
