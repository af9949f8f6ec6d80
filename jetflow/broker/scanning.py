"""Reading many stored messages fast: through a consumer that is made for it and gone after it.

A message costs a third of what a direct get costs, because it comes without headers; but a consumer has to be made.
The pulls bound what is on its way.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from time import monotonic
from typing import Any, Final

import orjson

from jetflow.broker.connection import API_TIMEOUT, Connection, Message
from jetflow.broker.pull_size import PullSize
from jetflow.broker.puller import Delivery
from jetflow.broker.times import SECOND, written
from jetflow.errors import BrokerRefused, BrokerTimeout

PAGE: Final = 500
"""Messages in one page, and in one pull."""

PAGE_BYTES: Final = 4 * 1024 * 1024
"""Bytes that one pull may bring."""

PULLS: Final = 2
"""Pulls under way."""

STILL: Final = 0.25
"""Seconds without a message after which the server is asked whether there is one."""

FORGOTTEN_AFTER: Final = 30
"""Seconds after which the server drops the consumer of a reader that died."""


class Scan:
    """One reading of the messages of a filter, in the order of the stream. It may miss what a replica does not have.

    With ``subjects_only`` the bodies stay behind. One that is to ``stay`` reads on at each call of `pages`, by the same
    consumer while the server keeps it: `let_go` in the end. ``since`` is when the first message was stored, in seconds
    since the epoch.
    """

    def __init__(
        self,
        connection: Connection,
        stream: str,
        subject: str,
        *,
        subjects_only: bool = False,
        stay: bool = False,
        since: float | None = None,
    ) -> None:
        self._connection = connection
        self._stream = stream
        self._filter = subject
        self._subjects_only = subjects_only
        self._stays = stay
        self._since = since
        self._page: list[Message] = []
        self._last: Message | None = None
        self._left = 0
        self._asked = 0
        self._came = 0
        self.expected: int = 0
        self._size = PullSize(connection, PAGE_BYTES)
        self._moved = asyncio.Event()
        self._broken = True
        self._consumer = ""

    async def pages(self) -> AsyncIterator[list[Message]]:
        """Yield what was stored when the reading began; ``expected`` is then how many messages that is.

        Raises:
            BrokerTimeout: nothing came for ``API_TIMEOUT`` seconds.
        """
        inbox = self._connection.new_inbox()
        subscription = await self._connection.subscribe(inbox, self._on_message)
        forget_reconnect = self._connection.on_reconnect(self._on_broken)
        try:
            if self._consumer:
                await self._go_on()
            while self._broken or self._left:
                if self._broken:
                    await self._make_consumer()
                while self._asked < min(self._left, PULLS * PAGE):
                    self._ask(inbox, min(PAGE, self._left - self._asked))
                self._moved.clear()
                if self._left and not self._broken:
                    await self._wait()
                page, self._page = self._page, []
                if page:
                    self._last = page[-1]
                    yield page
        finally:
            forget_reconnect()
            await self._connection.unsubscribe(subscription)
            if not self._stays:
                self.let_go()

    def let_go(self) -> None:
        """Have the server forget the consumer."""
        if self._consumer:
            delete = self._connection.api_subject(f"CONSUMER.DELETE.{self._stream}.{self._consumer}")
            self._connection.send(delete, reply=self._connection.new_inbox())
            self._consumer, self._broken = "", True

    async def _go_on(self) -> None:
        """Find out what was stored since the last reading, if its consumer is still there and all of it was read."""
        if self._broken or self._left:
            self._broken = True
            return
        try:
            info = await self._connection.api(f"CONSUMER.INFO.{self._stream}.{self._consumer}")
        except BrokerRefused:
            self._broken = True
        else:
            self._left = self.expected = int(info["num_pending"])
            self._asked = 0

    async def _make_consumer(self) -> None:
        """Make a consumer that goes on behind the last message that was read."""
        config: dict[str, Any] = {
            "filter_subject": self._filter,
            "ack_policy": "none",
            "headers_only": self._subjects_only,
            "mem_storage": True,
            "num_replicas": 1,
            "inactive_threshold": FORGOTTEN_AFTER * SECOND,
        }
        if self._page:
            self._last = self._page[-1]
        if self._last is not None:
            start = Delivery(self._last).sequence + 1
            config |= {"deliver_policy": "by_start_sequence", "opt_start_seq": start}
        elif self._since is not None:
            config |= {"deliver_policy": "by_start_time", "opt_start_time": written(self._since)}
        request = {"stream_name": self._stream, "config": config}
        answer = await self._connection.api(f"CONSUMER.CREATE.{self._stream}", request)
        self._consumer = answer["name"]
        self._left = self.expected = int(answer.get("num_pending", 0))
        self._asked = self._came = 0
        self._broken = False

    def _ask(self, inbox: str, count: int) -> None:
        request = self._size.of(count)
        self._asked += request["batch"]
        request["expires"] = int(API_TIMEOUT * SECOND)
        subject = self._connection.api_subject(f"CONSUMER.MSG.NEXT.{self._stream}.{self._consumer}")
        self._connection.send(subject, orjson.dumps(request), reply=inbox)

    async def _wait(self) -> None:
        until = monotonic() + API_TIMEOUT
        while True:
            try:
                async with asyncio.timeout(STILL):
                    await self._moved.wait()
                return
            except TimeoutError:
                if monotonic() > until:
                    raise BrokerTimeout(f"reading many of {self._stream} stalled for {API_TIMEOUT:g} s") from None
            await self._recount()

    async def _recount(self) -> None:
        """Find out whether all has come that there is: what was removed meanwhile was counted, and never comes."""
        try:
            info = await self._connection.api(f"CONSUMER.INFO.{self._stream}.{self._consumer}")
        except BrokerRefused:
            self._on_broken()
            return
        if not info["num_pending"] and info["delivered"]["consumer_seq"] <= self._came:
            self._left = 0
            self._moved.set()

    def _on_message(self, message: Message) -> None:
        if not message.reply.startswith("$JS.ACK."):
            self._on_status(message)
            return
        if self._broken or f".{self._consumer}." not in message.reply:  # it will be read again
            return
        self._page.append(message)
        self._came += 1
        self._left -= 1
        self._asked -= 1
        if len(self._page) >= PAGE or not self._left:
            self._moved.set()

    def _on_status(self, message: Message) -> None:
        """Ask for the rest of a pull whose bytes are used up. Any other status: the consumer or its leader is gone."""
        left = self._size.left(message.headers)
        if left is None:
            self._on_broken()
        elif left:
            self._asked -= left
            self._moved.set()

    def _on_broken(self) -> None:
        self._broken = True
        self._moved.set()
