"""The join: when to look, and whether it is true.

Every child that ends adds 1 to its parent step's counter. When the step's function has returned (or the step parks),
it stores a *join record* that says which children it needs, and adds ``SEAL - needed``. So a counter at or above
``SEAL`` says: the record is stored, and it may be complete. It may be wrong in one direction only, by counting a child
twice. Whoever sees such a value therefore looks at the outcomes themselves (`Tally`), and only they decide.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from struct import unpack
from typing import Final, Literal

import msgspec

from jetflow.engine.awaiting import Awaited
from jetflow.engine.policies import ALL_SUCCEED, JoinPolicy
from jetflow.engine.tasks import NULL, Failure, Outcome, Status, StepAddress

SEAL: Final = 2**40
"""Larger than any fan-out: a counter reaches it only after the join record is stored."""

ID_BYTES: Final = 16
UNPACKED_AT_ONCE: Final = 10_000
_ID_SPACE: Final = 2**128


class Borrowed(msgspec.Struct, frozen=True, array_like=True):
    """A child that another step of the same run spawned first: waited for, but counted there."""

    run: str
    step: str


class Loosened(msgspec.Struct, frozen=True, array_like=True):
    """A join of a step that goes by another policy than its code names: ``children`` tells which (`loosening`)."""

    children: str
    policy: JoinPolicy


class JoinRecord(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Which children a sealed or parked step needs before it goes on.

    A *sealed* step has returned ``output`` and ends when all are there; a *parked* one begins its next turn when
    ``needed`` are. ``needed`` is how many must have ended before a look can be worth it; where ``total`` is given,
    ``policy`` decides over that many children. ``members`` holds the ids that count, 16 bytes each, in base64; without
    it, all children that are stored under the step count, and their ids add up to ``id_sum`` (a clean first attempt,
    where nothing else can be stored). A record that is too large for a message is kept as a value, and ``whole`` is
    its reference.

    A step that has ``streamed`` children names no more of them than it waits for: when its children are read, all count
    that are stored under it.

    A parked step goes on when an event comes that it ``waits`` for, and at ``until`` (seconds since the epoch),
    whatever has ended by then; its next turn counts ``tried`` attempts as made. A run that stands at the ``gate`` of a
    limit (its name and key) goes on when there is a place; if it ``admits``, its first steps begin then, with these
    places: it needs no other. A step that has places of its own, and is parked for something else, names them in
    ``admits``, and keeps them. One that waits for its turn at a rate limit was given a time, ``booked``. A step that
    failed is sealed as well if it may have spawned children: it needs none of them, and ``status`` and ``error`` say
    how it ends. So is one that ends as that of an elder run has ended (``adopted``, as in its outcome).

    A record may be stored anew with a looser policy, for the ``looser``-th time (`jetflow.engine.loosening`); of a
    parked step only if it is ``loosable``, for its code has to know of it. ``loosened`` are all joins of the step that
    have been so far.
    """

    kind: Literal["sealed", "parked"]
    turn: int
    task: str
    needed: int
    total: int = 0
    policy: JoinPolicy = ALL_SUCCEED
    members: bytes | None = None
    whole: str | None = None
    id_sum: str = ""
    borrowed: tuple[Borrowed, ...] = ()
    excused: tuple[str, ...] = ()
    status: Status = "succeeded"
    error: Failure | None = None
    output: msgspec.Raw = NULL
    value: str | None = None
    until: float | None = None
    waits: tuple[Awaited, ...] = ()
    gate: str | None = None
    admits: str | None = None
    booked: float | None = None
    streamed: bool = False
    tried: int = 0
    attempt: int = 1
    started: float = 0.0
    ended: float = 0.0
    worker: str = ""
    adopted: str = ""
    loosable: bool = False
    looser: int = 0
    loosened: tuple[Loosened, ...] = ()

    @property
    def counted(self) -> bool:
        """Whether the step's counter says when to look. A step that is parked and needs no child is woken otherwise."""
        return self.kind == "sealed" or self.needed > 0

    @property
    def clean(self) -> bool:
        """Whether every child stored under the step counts."""
        return self.members is None

    def is_whole(self, ids: bytes | bytearray) -> bool:
        """Tell whether packed ids, each there once, are exactly those of the children that a clean record counts."""
        return (
            self.clean
            and not self.borrowed
            and len(ids) == self.needed * ID_BYTES
            and f"{id_sum(ids):032x}" == self.id_sum
        )

    @property
    def increment(self) -> int:
        """What the record adds to the step's counter, once stored."""
        return SEAL - max(0, self.needed - len(self.borrowed))


def parked_until(
    task: str,
    turn: int,
    until: float,
    *,
    tried: int = 0,
    attempt: int = 1,
    started: float = 0.0,
    ended: float = 0.0,
    worker: str = "",
    admits: str | None = None,
) -> JoinRecord:
    """Return the join record of a step that waits for a time alone, and counts ``tried`` attempts as made then."""
    return JoinRecord(
        kind="parked",
        turn=turn,
        task=task,
        needed=0,
        until=until,
        admits=admits,
        tried=tried,
        attempt=attempt,
        started=started,
        ended=ended,
        worker=worker,
    )


def failed_join(task: str, turn: int, outcome: Outcome) -> JoinRecord:
    """Return the join record of a step that failed at last, and needs none of its children any more.

    With it the step's counter makes somebody look whenever one of them ends: a step beside may have borrowed it.
    """
    return JoinRecord(
        kind="sealed",
        turn=turn,
        task=task,
        needed=0,
        members=b"",
        status=outcome.status,
        error=outcome.error,
        attempt=outcome.attempt,
        started=outcome.started,
        ended=outcome.ended,
        worker=outcome.worker,
    )


class Tally:
    """Counts the stored outcomes that a join record asks for, page by page.

    For a clean record the count alone is not enough: an outcome that nobody spawned would stand in for one that is
    missing. The sum of the ids tells; and where it does not, because one too many adds nothing to it, the count does.
    When one of them does not fit, the tally is ``disputed``: it has to be made again with the ids that were really
    spawned.
    """

    def __init__(self, record: JoinRecord, members: bytes | None = None) -> None:
        self._needed = record.needed
        self._own = (record.total or record.needed) - len(record.borrowed)
        self._expected_sum = record.id_sum
        self._members = None if members is None else set(split_ids(members))
        self._sum = 0
        self._borrowed = 0
        self.stored: int = 0

    def add(self, ids: bytes) -> None:
        """Count one page of child ids whose outcomes are stored, 16 bytes each.

        Pages that are read while outcomes arrive may repeat an id. A member counts once; a clean tally that counted
        one twice is disputed.
        """
        if self._members is None:
            self.stored += len(ids) // ID_BYTES
            self._sum = (self._sum + id_sum(ids)) % _ID_SPACE
        else:
            found = self._members.intersection(split_ids(ids))
            self._members -= found
            self.stored += len(found)

    def add_borrowed(self) -> None:
        """Count one child that another step of the run spawned."""
        self.stored += 1
        self._borrowed += 1

    @property
    def missing(self) -> int:
        """How many outcomes are still needed."""
        return max(0, self._needed - self.stored)

    @property
    def disputed(self) -> bool:
        """Whether the outcomes that are stored cannot be exactly those of the children that were spawned."""
        if self._members is not None or not self._expected_sum or self.missing:
            return False
        return f"{self._sum:032x}" != self._expected_sum or self.stored - self._borrowed != self._own


class LookLedger:
    """Remembers looks that found a join incomplete, to spare the looks that must find the same.

    A look at counter value ``v`` that found ``m`` outcomes missing need not be repeated below ``v + m``: each of the
    ``m`` is stored later, and increments the counter after that. Forgetting an entry only costs a look.
    """

    def __init__(self, capacity: int = 10_000) -> None:
        self._capacity = capacity
        self._worth_at: OrderedDict[StepAddress, int] = OrderedDict()

    def worth(self, join: StepAddress, value: int) -> bool:
        """Tell whether a look at counter value ``value`` can find the join complete."""
        return value >= SEAL and value >= self._worth_at.get(join, 0)

    def missed(self, join: StepAddress, value: int, missing: int) -> None:
        """Note that the look at ``value`` found ``missing`` outcomes missing."""
        self._worth_at[join] = value + missing
        self._worth_at.move_to_end(join)
        if len(self._worth_at) > self._capacity:
            self._worth_at.popitem(last=False)

    def closed(self, join: StepAddress) -> None:
        """Forget a join that is complete."""
        self._worth_at.pop(join, None)


def split_ids(packed: bytes) -> Iterable[bytes]:
    """Yield the ids of a packed run of ids."""
    return (packed[at : at + ID_BYTES] for at in range(0, len(packed), ID_BYTES))


def id_sum(packed: bytes | bytearray) -> int:
    """Return the sum of packed ids, modulo 2^128: the same for any order of the same ids."""
    high = low = 0
    for at in range(0, len(packed), UNPACKED_AT_ONCE * ID_BYTES):
        part = packed[at : at + UNPACKED_AT_ONCE * ID_BYTES]
        halves = unpack(f">{len(part) // 8}Q", part)
        high += sum(halves[::2])
        low += sum(halves[1::2])
    return ((high << 64) + low) % _ID_SPACE


def distinct_ids(packed: bytes) -> bytes:
    """Return the packed ids without repeats; few, in order of first appearance.

    Many are unpacked a part at a time: an id takes ten times as much memory by itself as among others.
    """
    if len(packed) <= UNPACKED_AT_ONCE * ID_BYTES:
        return b"".join(dict.fromkeys(split_ids(packed)))
    parts = [bytearray() for _ in range(256)]
    for at in range(0, len(packed), ID_BYTES):
        parts[packed[at]] += packed[at : at + ID_BYTES]
    return b"".join(b"".join(dict.fromkeys(split_ids(bytes(part)))) for part in parts)
