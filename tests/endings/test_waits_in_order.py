"""Waits for the same events at once: each takes its own in order, whenever the events come between their looks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from jetflow import Client, Context, Retry, Run, Signal, Worker, all_of, workflow
from jetflow.runs.awaiting import Awaiting
from tests.endings.stored import PATIENCE

MakeWorker = Callable[..., Worker]


async def test_an_event_that_comes_between_two_looks_is_left_to_the_first(
    client: Client, worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[Run[Any]] = []
    look = Awaiting.earliest

    async def signal_after_the_first_look(self: Awaiting, awaited: Any) -> Any:
        found = await look(self, awaited)
        if found is None and runs:
            await runs.pop().signal("paid", 1)
        return found

    @workflow("paid-twice", retry=Retry(attempts=1))
    async def paid_twice(nothing: None, ctx: Context) -> list[Any]:
        return [came.payload for came in await ctx.wait_for(all_of(Signal("paid"), Signal("paid")))]

    run = await client.trigger(paid_twice)
    runs.append(run)
    monkeypatch.setattr(Awaiting, "earliest", signal_after_the_first_look)
    async with worker([paid_twice]):
        while runs:
            await run.status()
        await run.signal("paid", 2)
        assert await run.result(timeout=PATIENCE) == [1, 2]
