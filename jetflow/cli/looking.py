"""Looking at a run until it ends: what is known of it, as it changes, from the query layer alone.

The counts come from `Client.watch`, four times a second at most; steps and failures, which change less often and cost
more, are read once a second and every five.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from time import monotonic
from typing import Final

import msgspec

from jetflow.cli.view import Seen
from jetflow.client import Client
from jetflow.errors import JetflowError

STEPS_EVERY: Final = 1.0
ERRORS_EVERY: Final = 5.0
"""Seconds between two reads."""

_GOES_ON: Final = ("queued", "running")

SHARE: Final = 10
"""A read that takes n seconds is followed by a pause of this many times n, at least."""


async def looks(client: Client, run: str) -> AsyncGenerator[Seen]:
    """Yield what is known of a run whenever that has changed, until it has ended.

    Raises:
        UnknownRun: no run with this id is stored.
    """
    looking = _Looking(client, run)
    changed = looking.changed
    if await looking.read_steps():
        yield looking.seen
    tasks = [asyncio.get_running_loop().create_task(work) for work in (looking.count(), looking.read_on())]
    try:
        while not tasks[0].done():
            changed.clear()
            waiting = asyncio.get_running_loop().create_task(changed.wait())
            await asyncio.wait([waiting, *tasks], return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            if tasks[1].done():  # it ends by an error alone
                tasks[1].result()
            if not tasks[0].done():
                yield looking.seen
        tasks[0].result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    yield await seen_now(client, run)


async def seen_now(client: Client, run: str) -> Seen:
    """Return what is known of a run at this moment.

    Raises:
        UnknownRun: no run with this id is stored.
    """
    trace, totals = await asyncio.gather(client.describe(run, children=0), client.totals(run))
    failed = totals.totals.failed + totals.totals.timed_out
    return Seen(trace=trace, totals=totals, errors=(await client.errors(run)).items if failed else ())


class _Looking:
    def __init__(self, client: Client, run: str) -> None:
        self._client = client
        self._run = run
        self.seen: Seen = Seen()
        self.changed: asyncio.Event = asyncio.Event()

    async def count(self) -> None:
        """Take the totals as they change, until the run has ended."""
        async with aclosing(self._client.watch(self._run)) as found:
            async for totals in found:
                self._show(msgspec.structs.replace(self.seen, totals=totals))

    async def read_on(self) -> None:
        """Read steps and failures again and again. What cannot be read now is read the next time."""
        errors_at = 0.0
        while True:
            began = monotonic()
            with suppress(JetflowError):
                await self.read_steps()
                if began - errors_at >= ERRORS_EVERY:
                    errors_at = began
                    await self.read_errors()
            await asyncio.sleep(max(STEPS_EVERY, SHARE * (monotonic() - began)))

    async def read_steps(self) -> bool:
        """Read where the steps stand. Returns False of a run that has ended: that is told with its last counts."""
        trace = await self._client.describe(self._run, children=0)
        if trace.status not in _GOES_ON:
            return False
        self._show(msgspec.structs.replace(self.seen, trace=trace))
        return True

    async def read_errors(self) -> None:
        """Read the failures of children, if there are any."""
        totals = self.seen.totals
        if totals is not None and totals.totals.failed + totals.totals.timed_out:
            groups = await self._client.errors(self._run)
            self._show(msgspec.structs.replace(self.seen, errors=groups.items))

    def _show(self, seen: Seen) -> None:
        if seen != self.seen:
            self.seen = seen
            self.changed.set()
