"""A live view of a run on stderr, while something else waits for it.

It is a view: when it cannot be had, nothing else is disturbed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from contextlib import aclosing

from rich.console import Console
from rich.live import Live

from jetflow.cli.looking import looks, seen_now
from jetflow.cli.view import Seen, view_of
from jetflow.client import Client
from jetflow.errors import JetflowError


@contextlib.asynccontextmanager
async def following(client: Client, run_id: str) -> AsyncGenerator[None]:
    """Show the progress of a run on stderr for the time of the block, if that is a terminal."""
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield
        return
    with Live(console=console, auto_refresh=False) as live:
        look = asyncio.get_running_loop().create_task(draw(client, run_id, console, live))
        try:
            yield
        finally:
            look.cancel()
            await asyncio.gather(look, return_exceptions=True)
            with contextlib.suppress(JetflowError):
                live.update(view_of(await seen_now(client, run_id), height=height_of(console)), refresh=True)


def height_of(console: Console) -> int:
    """Return how many lines a view may have: one less than the screen, where the cursor stands."""
    return max(3, console.height - 1)


async def draw(client: Client, run_id: str, console: Console, live: Live) -> Seen:
    """Draw a run until it has ended; return what was seen last. A view that cannot be had ends quietly."""
    seen = Seen()
    with contextlib.suppress(JetflowError):
        async with aclosing(looks(client, run_id)) as found:
            async for seen in found:
                live.update(view_of(seen, height=height_of(console)), refresh=True)
    return seen
