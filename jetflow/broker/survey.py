"""Asking all who listen on a subject, where nobody knows how many there are."""

from __future__ import annotations

import asyncio
from typing import Final

from jetflow.broker.connection import Connection
from jetflow.broker.parser import Message
from jetflow.errors import JetStreamUnavailable

ANSWERED_WITHIN: Final = 1.0
"""Seconds in which the first answer must come."""

QUIET_AFTER: Final = 0.2
"""Seconds without a further answer after which nobody else is waited for."""


async def survey(
    connection: Connection,
    subject: str,
    body: bytes = b"",
    *,
    within: float = ANSWERED_WITHIN,
    quiet: float = QUIET_AFTER,
) -> list[bytes]:
    """Ask, and return all answers; none where nobody listens. ``within`` and ``quiet`` are seconds.

    Raises:
        ClientClosed: the connection has ended.
    """
    inbox = connection.new_inbox()
    answers: asyncio.Queue[Message] = asyncio.Queue()
    subscription = await connection.subscribe(inbox, answers.put_nowait)
    found: list[bytes] = []
    try:
        if not connection.is_connected:
            raise JetStreamUnavailable("the server cannot be reached at this moment")
        connection.send(subject, body, reply=inbox)
        loop = asyncio.get_running_loop()
        end = loop.time() + within
        while True:
            wait = min(quiet, end - loop.time()) if found else end - loop.time()
            try:
                async with asyncio.timeout(wait):
                    message = await answers.get()
            except TimeoutError:
                return found
            if not message.data and message.headers.get("Status") == "503":
                return found  # nobody listens
            found.append(message.data)
    finally:
        await connection.unsubscribe(subscription)
