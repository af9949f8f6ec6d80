"""Reading what the streams hold: one message, many by subject, pages by filter, counts and ids.

Reads that decide something go to the stream's leader (``leader_*``); the others may be answered by any replica, and
may be late.
"""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

import msgspec
import orjson

from jetflow.broker.batched import BatchedReads, TooMany, is_status, sequence_of, subject_of
from jetflow.broker.connection import Connection, Message, answer_of
from jetflow.broker.parser import parse_headers
from jetflow.broker.puller import Delivery
from jetflow.broker.scanning import Scan
from jetflow.broker.times import seconds_of, written
from jetflow.errors import BrokerRefused, PermissionDenied

MULTI_GET: Final = 1000
"""Subjects in one multi-get; the server takes 1024."""

PAGE: Final = 1000
"""Messages in one page of a filtered read."""

PAGE_BYTES: Final = 8 * 1024 * 1024
"""Bytes in one page of any read, and what its last message has more."""

FEW_BYTES: Final = 4 * 1024 * 1024
"""Bytes of messages that are read at once to be removed."""

_NO_LIST: Final = 2**31
_NOT_FOUND: Final = 10037
_ID_AT_END: Final = re.compile(rb"\.([0-9a-f]{32})\":1")
_ID_OF_LINE: Final = re.compile(r"\.([0-9a-f]{32})$", re.MULTILINE)
_EXTENT: Final = re.compile(rb'"total":(\d+),"offset":\d+,"limit":(\d+)')


class Stored(msgspec.Struct, frozen=True):
    """One stored message. ``time`` is seconds since the epoch."""

    subject: str
    sequence: int
    headers: dict[str, str]
    body: bytes
    time: float


class Few(NamedTuple):
    """Some of the messages of some filters, and how many are left behind them."""

    found: list[Stored]
    left: int


class Store:
    """Reads the streams of one connection. `start` it before use."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._batched = BatchedReads(connection)

    async def start(self) -> None:
        """Begin to listen for answers."""
        await self._batched.start()

    # --- one message

    async def leader_last(self, stream: str, subject: str) -> Stored | None:
        """Return the newest message on ``subject`` (wildcards allowed), as the leader has it."""
        try:
            answer = await self._connection.api(f"STREAM.MSG.GET.{stream}", {"last_by_subj": subject})
        except BrokerRefused as error:
            if error.err_code == _NOT_FOUND:
                return None
            raise
        return _from_leader(answer["message"])

    async def leader_next(self, stream: str, subject: str, after: int, since: float | None = None) -> Stored | None:
        """Return the first message of a filter behind a sequence, or stored from ``since`` on, as the leader has it."""
        request: dict[str, Any] = {"next_by_subj": subject}
        if since is None:
            request["seq"] = after + 1
        else:
            request["start_time"] = written(since)
        try:
            answer = await self._connection.api(f"STREAM.MSG.GET.{stream}", request)
        except BrokerRefused as error:
            if error.err_code == _NOT_FOUND:
                return None
            raise
        return _from_leader(answer["message"])

    async def leader_listed(self, stream: str, subject: str) -> tuple[int, list[str]]:
        """Return the subjects of the filter that hold a message, and the sequence up to which they were looked at."""
        last, listed = 0, list[str]()
        while True:
            answer = await self._connection.api(
                f"STREAM.INFO.{stream}", {"subjects_filter": subject, "offset": len(listed)}, timeout=60
            )
            page: dict[str, int] = answer["state"].get("subjects") or {}
            last = last or int(answer["state"]["last_seq"])
            listed += page
            if not page or len(listed) >= int(answer.get("total", 0)):
                return last, listed

    async def leader_at(self, stream: str, sequence: int) -> Stored | None:
        """Return the message of one sequence, as the leader has it."""
        try:
            answer = await self._connection.api(f"STREAM.MSG.GET.{stream}", {"seq": sequence})
        except BrokerRefused as error:
            if error.err_code == _NOT_FOUND:
                return None
            raise
        return _from_leader(answer["message"])

    async def last(self, stream: str, subject: str) -> Stored | None:
        """Return the message on one subject, as any replica has it."""
        message = await self._connection.request(self._connection.api_subject(f"DIRECT.GET.{stream}.{subject}"))
        return None if is_status(message) else stored_in(message)

    async def newest(self, stream: str, subject: str) -> Stored | None:
        """Return the newest message of a filter, as any replica has it."""
        body = orjson.dumps({"last_by_subj": subject})
        message = await self._connection.request(self._connection.api_subject(f"DIRECT.GET.{stream}"), body)
        return None if is_status(message) else stored_in(message)

    async def first(self, stream: str, subject: str, *, after: int = 0) -> Stored | None:
        """Return the first message of a filter behind sequence ``after``, as any replica has it."""
        body = orjson.dumps({"next_by_subj": subject, "seq": after + 1})
        message = await self._connection.request(self._connection.api_subject(f"DIRECT.GET.{stream}"), body)
        return None if is_status(message) else stored_in(message)

    # --- counts and ids

    async def leader_count(self, stream: str, subject: str) -> int:
        """Return how many subjects of the filter hold a message."""
        answer = await self._connection.api(
            f"STREAM.INFO.{stream}", {"subjects_filter": subject, "offset": _NO_LIST}, timeout=60
        )
        return int(answer.get("total", 0))

    async def count(self, stream: str, subject: str, *, after: int = 0, since: float | None = None) -> int:
        """Return how many messages the filter holds, as any replica has them: **the** way to count for a view.

        It holds up no writers for longer than it takes. ``after`` is a sequence, and ``since`` a time (seconds since
        the epoch): one of them, for only what is stored from there on.
        """
        page, behind = await self.page(stream, subject, after=after, size=1, since=since)
        return len(page) + behind

    async def page(
        self, stream: str, subject: str, *, after: int = 0, size: int = PAGE, since: float | None = None
    ) -> tuple[list[Stored], int]:
        """Return the first messages of a filter behind sequence ``after``, and how many are left behind those.

        With ``since`` (seconds since the epoch), the first of those that were stored from then on. They may be less
        than ``size`` where they are large.
        """
        request: dict[str, Any] = {"next_by_subj": subject, "batch": size}
        if since is None:
            request["seq"] = after + 1
        else:
            request["start_time"] = written(since)
        return await self._direct_batch(stream, request)

    async def window(self, stream: str, after: int, size: int) -> list[Stored]:
        """Return what is stored on the ``size`` sequences behind one, whatever it is: nothing is counted for it."""
        subject = self._connection.api_subject(f"DIRECT.GET.{stream}")
        bodies = (orjson.dumps({"seq": sequence}) for sequence in range(after + 1, after + 1 + size))
        answers = await asyncio.gather(*(self._connection.request(subject, body) for body in bodies))
        return [stored_in(answer) for answer in answers if not is_status(answer)]

    async def last_sequence(self, stream: str) -> int:
        """Return the sequence of the newest message of a stream, stored or removed; 0 if there never was one."""
        answer = await self._connection.api(f"STREAM.INFO.{stream}")
        return int(answer["state"]["last_seq"])

    async def leader_ids(self, stream: str, subject: str) -> AsyncIterator[bytes]:
        """Yield pages of the run ids in which the subjects of the filter end, 16 bytes each."""
        offset = 0
        while True:
            body = orjson.dumps({"subjects_filter": subject, "offset": offset})
            message = await self._connection.request(
                self._connection.api_subject(f"STREAM.INFO.{stream}"), body, timeout=60
            )
            packed = bytes.fromhex(b"".join(_ID_AT_END.findall(message.data)).decode())
            if packed:
                yield packed
            else:
                answer_of("STREAM.INFO", message.data)
            total, limit = _extent(message.data)
            offset += limit  # not the ids found: a subject that does not end in one stands in the page, too
            if offset >= total:
                return

    async def ids(self, stream: str, subject: str) -> AsyncIterator[bytes]:
        """Yield pages of the run ids in which the subjects of the filter end, as any replica has them.

        For very many: `leader_ids` costs the server a list of all of them for every hundred thousand.
        """
        async for page in Scan(self._connection, stream, subject, subjects_only=True).pages():
            yield bytes.fromhex("".join(_ID_OF_LINE.findall("\n".join(message.subject for message in page))))

    async def leader_subjects(self, stream: str, subject: str) -> AsyncIterator[list[str]]:
        """Yield pages of the subjects of the filter that hold a message."""
        offset = 0
        while True:
            answer = await self._connection.api(
                f"STREAM.INFO.{stream}", {"subjects_filter": subject, "offset": offset}, timeout=60
            )
            page: dict[str, int] = answer["state"].get("subjects") or {}
            if page:
                yield list(page)
            offset += len(page)
            if not page or offset >= int(answer.get("total", 0)):
                return

    # --- many messages

    async def many(self, stream: str, subjects: Sequence[str]) -> AsyncIterator[list[Stored]]:
        """Yield pages of those messages of many subjects that are stored, in no promised order."""
        async for page in self.many_raw(stream, subjects):
            yield [stored_in(message) for message in page]

    async def many_raw(self, stream: str, subjects: Sequence[str]) -> AsyncIterator[list[Message]]:
        """Yield the same as it came: `subject_of` tells where a message is stored."""
        # Names of one kind are about as long as each other; the request may take half of what the server accepts.
        longest = max(map(len, subjects), default=0) + len('"",')
        size = max(1, min(MULTI_GET, self._connection.max_payload // 2 // longest))
        for at in range(0, len(subjects), size):
            chunk = list(subjects[at : at + size])
            while chunk:
                page, left = await self._raw_batch(stream, {"multi_last": chunk, "batch": len(chunk)})
                if page:
                    yield page
                found = set(map(subject_of, page)) if left else ()
                chunk = [subject for subject in chunk if subject not in found] if left and page else []

    async def few(self, stream: str, filters: Sequence[str]) -> Few | None:
        """Return what some filters hold, as any replica has it; None if that is more than the server tells at once."""
        try:
            return Few(*await self._direct_batch(stream, {"multi_last": filters, "max_bytes": FEW_BYTES}))
        except TooMany:
            return None

    async def few_subjects(self, stream: str, filters: Sequence[str]) -> list[tuple[int, str]] | None:
        """Return the sequences and subjects of what some filters hold, in stream order, as any replica has it.

        None if that is more than the server tells at once. It goes by subject, whatever else the stream holds.
        """
        try:
            page, left = await self._raw_batch(stream, {"multi_last": filters, "max_bytes": FEW_BYTES})
        except TooMany:
            return None
        return None if left else sorted((sequence_of(message), subject_of(message)) for message in page)

    async def next_subjects(
        self, stream: str, subject: str, *, after: int, size: int
    ) -> tuple[list[tuple[int, str]], int]:
        """Return the sequences and subjects of the first messages of a filter behind a sequence, as `page` does."""
        page, left = await self._raw_batch(stream, {"next_by_subj": subject, "seq": after + 1, "batch": size})
        return [(sequence_of(message), subject_of(message)) for message in page], left

    async def all_of(self, stream: str, *subjects: str) -> list[Stored]:
        """Return all that some filters hold that are known to hold little, in stream order, as any replica has it.

        It is one request, and goes by subject. A page of a filter that has no more goes through every block of the
        stream behind it.
        """
        found = await self.few(stream, subjects)
        if found is not None and not found.left:
            messages = found.found
        else:
            messages = [one for subject in subjects for one in await collect(self.pages(stream, subject))]
        return sorted(messages, key=lambda message: message.sequence)

    async def holds_few(self, stream: str, filters: Sequence[str]) -> bool:
        """Tell whether some filters hold no more than the server tells at once, as any replica has it."""
        try:
            await self._direct_batch(stream, {"multi_last": filters, "batch": 1})
        except TooMany:
            return False
        return True

    async def scan(self, stream: str, subject: str) -> AsyncIterator[list[tuple[str, bytes]]]:
        """Yield pages of the subjects and bodies of a filter, in stream order, as any replica has them: for many."""
        try:
            async for page in Scan(self._connection, stream, subject).pages():
                yield [(message.subject, message.data) for message in page]
        except PermissionDenied:  # this user may make no consumer
            async for stored in self.pages(stream, subject):
                yield [(message.subject, message.body) for message in stored]

    async def everything(self, stream: str, subject: str, *, headers_only: bool = False) -> AsyncIterator[list[Stored]]:
        """Yield pages of all that a filter holds, in stream order: by a consumer, or, where none may be made, by pages.

        With ``headers_only`` the bodies may stay behind.
        """
        try:
            async for page in Scan(self._connection, stream, subject, subjects_only=headers_only).pages():
                yield [stored_of(message) for message in page]
        except PermissionDenied:
            async for messages in self.pages(stream, subject):
                yield messages

    async def pages(
        self, stream: str, subject: str, *, after: int = 0, size: int = PAGE, since: float | None = None
    ) -> AsyncIterator[list[Stored]]:
        """Yield pages of the messages of a filter, in stream order, from behind sequence ``after``.

        With ``since`` (seconds) and without ``after``, only those that were stored in that time.
        """
        while True:
            request: dict[str, Any] = {"next_by_subj": subject, "batch": size}
            if since is not None and not after:
                begin = datetime.now(UTC) - timedelta(seconds=since)
                request["start_time"] = begin.isoformat().replace("+00:00", "Z")
            else:
                request["seq"] = after + 1
            page, pending = await self._direct_batch(stream, request)
            if page:
                yield page
                after = page[-1].sequence
            if not page or not pending:
                return

    async def _direct_batch(self, stream: str, request: dict[str, Any]) -> tuple[list[Stored], int]:
        """Return the messages of one batched direct get, and how many are left behind them."""
        page, left = await self._raw_batch(stream, request)
        return [stored_in(message) for message in page], left

    async def _raw_batch(self, stream: str, request: dict[str, Any]) -> tuple[list[Message], int]:
        return await self._batched.read(stream, {"max_bytes": PAGE_BYTES} | request)


async def collect(pages: AsyncIterator[list[Stored]]) -> list[Stored]:
    """Return all messages of a paged read. Only for reads that are known to be small."""
    return [message async for page in pages for message in page]


def stored_in(message: Message) -> Stored:
    """Return the stored message that a direct get has brought."""
    headers = message.headers or {}
    return Stored(
        subject=headers.get("Nats-Subject", ""),
        sequence=int(headers.get("Nats-Sequence", "0")),
        headers=headers,
        body=message.data,
        time=seconds_of(headers.get("Nats-Time-Stamp", "")),
    )


def stored_of(message: Message) -> Stored:
    """Return the stored message that a consumer has delivered."""
    delivery = Delivery(message)
    return Stored(
        subject=message.subject,
        sequence=delivery.sequence,
        headers=message.headers,
        body=message.data,
        time=delivery.time,
    )


def _from_leader(message: dict[str, Any]) -> Stored:
    return Stored(
        subject=message["subject"],
        sequence=message["seq"],
        headers=parse_headers(base64.b64decode(message.get("hdrs", ""))),
        body=base64.b64decode(message.get("data", "")),
        time=seconds_of(message["time"]),
    )


def _extent(data: bytes) -> tuple[int, int]:
    """Return the ``total`` and ``limit`` of a stream info without decoding its list of subjects."""
    found = _EXTENT.search(data, 0, 200)
    return (int(found[1]), int(found[2])) if found else (0, 1)
