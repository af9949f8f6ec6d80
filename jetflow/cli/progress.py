"""A live view of a run on stderr, while something else waits for it.

One task polls the run's trace, more slowly the longer a poll takes and the longer the run goes on. It is a view: when
a poll fails, the next one is tried, and nothing else is disturbed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from time import monotonic
from typing import Final

from rich.console import Console
from rich.live import Live

from jetflow.cli.tables import progress_of
from jetflow.client import Client
from jetflow.errors import JetflowError

FASTEST: Final = 0.2
SLOWEST: Final = 2.0
"""Seconds between two polls."""

POLL_SHARE: Final = 5
"""A poll of n seconds is followed by a pause of this many times n at least."""


@contextlib.asynccontextmanager
async def following(client: Client, run_id: str) -> AsyncGenerator[None]:
    """Show the progress of a run on stderr for the time of the block, if that is a terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    with Live(console=console, auto_refresh=False) as live:
        poll = asyncio.get_running_loop().create_task(_poll(client, run_id, live))
        try:
            yield
        finally:
            poll.cancel()
            await asyncio.gather(poll, return_exceptions=True)
            await _look(client, run_id, live)


async def _poll(client: Client, run_id: str, live: Live) -> None:
    pause = FASTEST
    while True:
        begun = monotonic()
        await _look(client, run_id, live)
        pause = min(SLOWEST, max(pause * 1.1, POLL_SHARE * (monotonic() - begun)))
        await asyncio.sleep(pause)


async def _look(client: Client, run_id: str, live: Live) -> None:
    with contextlib.suppress(JetflowError):
        live.update(progress_of(await client.describe(run_id, children=1)), refresh=True)
