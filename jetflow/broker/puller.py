"""Pulling tasks from one consumer: overlapping raw pull requests into one subscription.

The owner says how many tasks it could take (`Puller.want`); the puller keeps about that many asked for. A request
lives for ``PULL_EXPIRES`` seconds on the server, and for longer where nothing has come for a while, so that an idle
consumer costs one small message in that time. A request that was lost (a new leader, a broken connection) is noticed
by its missing heartbeats and made again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final, NamedTuple

import orjson
from nats.aio.subscription import Subscription

from jetflow.broker.connection import Connection, Message
from jetflow.broker.pull_size import PullSize
from jetflow.broker.times import SECOND
from jetflow.errors import PermissionDenied

PULL_EXPIRES: Final = 5.0
"""Seconds for which the server keeps a pull request. One that is paused swallows what comes meanwhile."""

QUIET_EXPIRES: Final = 20.0
"""The same where nothing has come for a while: an idle worker of twenty steps sends one message a second."""

QUIET_AFTER: Final = 10.0
"""Seconds without a delivery after which a consumer is quiet."""

PULL_BYTES: Final = 16 * 1024 * 1024
"""Bytes that one pull request may bring."""

IDLE_HEARTBEAT: Final = 5.0
"""Seconds between the server's signs of life while a request waits; half of its time, if that is less."""

_RETRY_AFTER: Final = 0.5

DENIED_RETRY: Final = 10.0
"""Seconds before a puller asks again that may not pull, or not acknowledge what it is given."""

_PROBE: Final = 0  # no request's number
_UNREADABLE: Final = b"{"  # the server says whether this user may ask, and gives nothing for it
_ORDINARY: Final = frozenset({"404", "408"})  # the request has expired

_log = logging.getLogger("jetflow.broker")


class Given(NamedTuple):
    """What an acknowledgement subject tells of its delivery; ``delivery`` is how often it was delivered, from 1."""

    stream: str
    consumer: str
    delivery: int
    sequence: int


def given_by(reply: str) -> Given | None:
    """Return what an acknowledgement subject tells, or None if it is none."""
    tokens = reply.split(".")
    # $JS.ACK.<stream>.<consumer>.<count>.<sequence>.<consumer sequence>.<time>.<pending>, or, with a domain,
    # $JS.ACK.<domain>.<account>.<stream>... and a last token that is random
    told = tokens[2:] if len(tokens) == 9 else tokens[4:]
    if len(told) < 7 or not (told[2].isdecimal() and told[3].isdecimal()):
        return None
    return Given(told[0], told[1], int(told[2]), int(told[3]))


class Delivery:
    """One delivered message.

    ``count`` is how often it has been delivered, from 1. ``again`` says that it may have been run before: it was
    delivered before, or it is older than the consumer, which may stand in for one that was lost. ``running`` is the
    task of the event loop that runs it. ``held_since`` is when its worker began to keep it alive, in seconds of the
    monotonic clock. ``place`` is where a guard reads that it is held, negative if nowhere.
    ``rank`` is how urgent it is (`jetflow.engine.levels`).
    """

    __slots__ = (
        "_at",
        "_tokens",
        "again",
        "body",
        "count",
        "held_since",
        "message",
        "place",
        "rank",
        "reply",
        "running",
        "subject",
    )

    def __init__(self, message: Message, consumer_created: float = 0.0) -> None:
        self.message: Message = message
        self.subject: str = message.subject
        self.body: bytes = message.data
        self.reply: str = message.reply
        self.running: asyncio.Task[None] | None = None
        self.held_since: float = 0.0
        self.place: int = -1
        self.rank: int = 0
        # $JS.ACK.<stream>.<consumer>.<count>.<sequence>.<consumer sequence>.<time>.<pending>, or, with a domain,
        # $JS.ACK.<domain>.<account>.<stream>... and a last token that is random
        tokens = message.reply.split(".")
        at = 4 if len(tokens) == 9 else 6
        count = int(tokens[at])
        self._tokens = tokens
        self._at = at
        self.count: int = count
        self.again: bool = count > 1 or int(tokens[at + 3]) / SECOND < consumer_created

    @property
    def headers(self) -> dict[str, str]:
        """The message's headers."""
        return self.message.headers

    @property
    def sequence(self) -> int:
        """The message's place in its stream."""
        return int(self._tokens[self._at + 1])

    @property
    def time(self) -> float:
        """When the message was stored, in seconds since the epoch."""
        return int(self._tokens[self._at + 3]) / SECOND


class Puller:
    """Pulls from one consumer. `start` and `stop` it; both are safe to call twice."""

    def __init__(
        self,
        connection: Connection,
        stream: str,
        consumer: str,
        deliver: Callable[[Delivery], None],
        recreate: Callable[[], None],
    ) -> None:
        self._connection = connection
        self._request_subject = connection.api_subject(f"CONSUMER.MSG.NEXT.{stream}.{consumer}")
        self._acknowledging = f".{stream}.{consumer}.".lower()  # in what the server says of a user's permissions
        self._consumer = consumer
        self._deliver = deliver
        self._recreate = recreate
        self._inbox = connection.new_inbox()
        self._loop = asyncio.get_running_loop()
        self._subscription: Subscription | None = None
        self._next = 0
        self._pulls: dict[int, int] = {}  # request -> messages it still asks for, oldest first
        self._asked = 0
        self._taken = 0  # messages that have come since it was last seen which request has brought them
        self._wanted = 0
        self._heard = 0.0
        self._watch: asyncio.TimerHandle | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._forget_reconnect: Callable[[], None] = lambda: None
        self._forget_denied: Callable[[], None] = lambda: None
        self.size: PullSize = PullSize(connection, PULL_BYTES)
        self.denied: PermissionDenied | None = None
        self.last_delivery: float = 0.0
        self.rank: int = 0
        self.consumer_created: float = 0.0

    async def start(self) -> None:
        """Begin to listen, and see whether this user may pull. Nothing is asked for before `want`."""
        if self._subscription is None:
            self._subscription = await self._connection.subscribe(f"{self._inbox}.*", self._on_message)
            self._forget_reconnect = self._connection.on_reconnect(self._on_reconnect)
            self._forget_denied = self._connection.on_denied(self._on_denied)
            self._watch_later()
            self._connection.send(self._request_subject, _UNREADABLE, reply=f"{self._inbox}.{_PROBE}")

    async def stop(self) -> None:
        """Ask for nothing more. Tasks that are on their way may still be delivered until this returns."""
        subscription, self._subscription = self._subscription, None
        if subscription is None:
            return
        self._forget_reconnect()
        self._forget_denied()
        for timer in (self._watch, self._retry):
            if timer is not None:
                timer.cancel()
        self._wanted = 0
        await self._connection.drain(subscription)

    def want(self, count: int) -> None:
        """Keep about ``count`` tasks asked for."""
        self._wanted = count
        self._settle()
        # Ask again when half has come, so that requests overlap and none is for a single task.
        if self._asked <= count // 2 and count > 0 and self._retry is None and self._subscription is not None:
            self._ask(count - self._asked)

    def _ask(self, count: int) -> None:
        request = self.size.of(count)
        count = request["batch"]
        self._next += 1
        self._pulls[self._next] = count
        self._asked += count
        self._heard = max(self._heard, self._loop.time())
        expires = QUIET_EXPIRES if self._loop.time() - self.last_delivery > QUIET_AFTER else PULL_EXPIRES
        request["expires"] = int(expires * SECOND)
        request["idle_heartbeat"] = int(min(IDLE_HEARTBEAT, expires / 2) * SECOND)
        self._connection.send(self._request_subject, orjson.dumps(request), reply=f"{self._inbox}.{self._next}")

    def _on_message(self, message: Message) -> None:
        self._heard = self._loop.time()
        if not message.reply.startswith("$JS.ACK."):
            self._on_status(message)
            return
        self._taken += 1
        self.last_delivery = self._heard
        self._deliver(Delivery(message, self.consumer_created))

    def _settle(self) -> None:
        """Take what has come from what the requests ask for, the oldest first."""
        taken, self._taken = self._taken, 0
        while taken and self._pulls:
            number, left = next(iter(self._pulls.items()))
            brought = min(taken, left)
            taken -= brought
            self._asked -= brought
            if brought < left:
                self._pulls[number] = left - brought
            else:
                del self._pulls[number]

    def _on_status(self, message: Message) -> None:
        headers = message.headers or {}
        status = headers.get("Status", "503" if not message.data else "")
        if status == "100":
            return
        request = int(message.subject.rpartition(".")[2])
        if request == _PROBE:
            return
        self._settle()
        self._asked -= self._pulls.pop(request, 0)
        if status in _ORDINARY or self.size.left(headers) is not None:
            # The owner first says what it wants behind the last delivery, which may have come with this.
            self._loop.call_soon(self._still_want)
            return
        description = headers.get("Description", "")
        _log.info("consumer %s: %s %s", self._consumer, status, description)
        if status == "503" or "Deleted" in description:
            self._recreate()
        if self._retry is None and self._subscription is not None:
            self._later(_RETRY_AFTER)

    def _still_want(self) -> None:
        self.want(self._wanted)

    def _try_again(self) -> None:
        self._retry = None
        self.want(self._wanted)

    def _on_denied(self, subject: str) -> None:
        """Say once that this user may not pull, or not acknowledge, and ask from then on only now and then."""
        if subject == self._request_subject.lower():
            denied = PermissionDenied(self._request_subject)
        elif subject.startswith("$js.ack.") and self._acknowledging in subject:
            denied = PermissionDenied(f"$JS.ACK.*{self._acknowledging}>")
        else:
            return
        if self.denied is None or self.denied.subject != denied.subject:
            _log.error("consumer %s gives no tasks to this worker: %s", self._consumer, denied)
        self.denied = denied
        self._forget_requests()
        if self._subscription is not None:
            self._later(DENIED_RETRY)

    def _later(self, seconds: float) -> None:
        if self._retry is not None:
            self._retry.cancel()
        self._retry = self._loop.call_later(seconds, self._try_again)

    def _on_reconnect(self) -> None:
        if self._retry is not None:  # what this user may, the server says anew
            self._retry.cancel()
            self._retry = None
        self._begin_again()

    def _forget_requests(self) -> None:
        self._pulls.clear()
        self._asked = self._taken = 0

    def _begin_again(self) -> None:
        self._forget_requests()
        self.want(self._wanted)

    def _watch_later(self) -> None:
        self._watch = self._loop.call_later(IDLE_HEARTBEAT, self._check)

    def _check(self) -> None:
        self._settle()
        if self._pulls and self._connection.is_connected and self._loop.time() - self._heard > 2.5 * IDLE_HEARTBEAT:
            _log.warning("consumer %s: a pull request was lost, and is made again", self._consumer)
            self._begin_again()
        self._watch_later()
