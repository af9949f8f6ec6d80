"""Rows of children in memory, in columns: what they are sorted and searched by, about 60 bytes a child and its key.

Pure, and of one thread at a time. A row is named by its place, in the order in which children were spawned.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

import msgspec

from jetflow.engine.tasks import Failure
from jetflow.runs.query.rows import statuses_of

STATUSES: Final = ("open", "succeeded", "failed", "timed_out", "cancelled")
"""In the order in which they are sorted."""

SORTS: Final = ("n", "status", "key", "workflow", "queued", "started", "ended", "took", "attempts", "worker")

ID_BYTES: Final = 16

LONGEST_ERROR: Final = 200
"""Characters of an error that are searched."""

MOST_TIME: Final = 2**32 - 1
"""Milliseconds after the first child was spawned, up to which times are told apart: 49 days. Durations are finer."""

MOST_ATTEMPTS: Final = 2**16 - 1
MOST_NAMES: Final = 2**16
"""Kinds of children, and workers, that are told apart."""

_EMPTY: Final = 2**32 - 1
_FIRST_SLOTS: Final = 1024
_NO_TEXT: Final = b"\xff"


class Kind(NamedTuple):
    """What many children have in common: workflow, its first step, and the step that spawned them."""

    workflow: str
    first: str
    step: str


class End(msgspec.Struct):
    """How a child ended, as far as it is sorted and searched."""

    status: str = "failed"
    attempt: int = 1
    started: float = 0.0
    ended: float = 0.0
    worker: str = ""
    error: Failure | None = None


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """Which children are asked for, and in which order."""

    step: str | None = None
    workflow: str | None = None
    status: str | None = None
    search: str = ""
    sort: str = "n"


class Names:
    """Values that many rows share, each kept once and named by a number."""

    def __init__(self) -> None:
        self._numbers: dict[Any, int] = {}
        self.values: list[Any] = []

    def number(self, value: Any) -> int:
        """Return the number of a value. Those that there is no more room for share the last one."""
        found = self._numbers.get(value)
        if found is None:
            found = min(len(self.values), MOST_NAMES - 1)
            if found == len(self.values):
                self.values.append(value)
            self._numbers[value] = found
        return found


class Places:
    """Finds the place of an id: a hash table in one array, for a dict would take twice what all columns take."""

    def __init__(self, ids: bytearray) -> None:
        self._ids = ids
        self._slots = array("I", [_EMPTY]) * _FIRST_SLOTS
        self._used = 0

    @property
    def size(self) -> int:
        """Bytes that it takes, about."""
        return self._slots.itemsize * len(self._slots)

    def find(self, run: bytes) -> int | None:
        """Return the place of an id."""
        place = self._slots[self._slot(run)]
        return None if place == _EMPTY else place

    def add(self, run: bytes, place: int) -> None:
        """Note the place of an id that is among the ids already."""
        if 2 * self._used >= len(self._slots):
            self._grow()
        self._slots[self._slot(run)] = place
        self._used += 1

    def _slot(self, run: bytes) -> int:
        """Return where an id stands, or would stand: ids are digests, and spread well."""
        slots, ids, mask = self._slots, self._ids, len(self._slots) - 1
        at = int.from_bytes(run[-8:]) & mask
        while (place := slots[at]) != _EMPTY and bytes(ids[place * ID_BYTES : (place + 1) * ID_BYTES]) != run:
            at = (at + 1) & mask
        return at

    def _grow(self) -> None:
        known = [place for place in self._slots if place != _EMPTY]
        self._slots = array("I", [_EMPTY]) * (2 * len(self._slots))
        for place in known:
            run = bytes(self._ids[place * ID_BYTES : place * ID_BYTES + ID_BYTES])
            self._slots[self._slot(run)] = place


class Columns:
    """The children of one run. ``version`` changes whenever a row does."""

    def __init__(self) -> None:
        self._ids = bytearray()
        self._places = Places(self._ids)
        self._statuses = bytearray()
        self._kinds, self._workers, self._attempts = array("H"), array("H"), array("H")
        self._queued, self._ended, self._took = array("I"), array("I"), array("f")
        self._keys = bytearray()
        self._key_ends = array("I")
        self._errors: dict[int, bytes] = {}
        self._kind_names, self._worker_names = Names(), Names()
        self._worker_names.number("")
        self._begin = 0.0
        self._early: dict[bytes, End] = {}
        self.version: int = 0

    def __len__(self) -> int:
        return len(self._statuses)

    @property
    def size(self) -> int:
        """Bytes that the rows take, about."""
        columns = (self._kinds, self._workers, self._attempts, self._queued, self._ended, self._took, self._key_ends)
        fixed = sum(column.itemsize * len(column) for column in columns)
        return fixed + self._places.size + len(self._ids) + len(self._statuses) + len(self._keys)

    def add(self, run: bytes, kind: Kind, key: str | None, queued: float) -> None:
        """Add a child, unless it is there. How it ended may have been told before."""
        if self._places.find(run) is not None:
            return
        place = len(self)
        if not place:
            self._begin = queued - 1.0
        self._ids += run
        self._places.add(run, place)
        self._statuses.append(0)
        self._kinds.append(self._kind_names.number(kind))
        self._workers.append(0)
        self._attempts.append(0)
        self._queued.append(self._moment(queued))
        self._ended.append(0)
        self._took.append(0.0)
        if key is not None:
            self._keys += key.encode("utf-8", "replace") or _NO_TEXT
        self._key_ends.append(len(self._keys))
        self.version += 1
        if (end := self._early.pop(run, None)) is not None:
            self._take(place, end)

    def end(self, run: bytes, end: End) -> None:
        """Note how a child has ended; of one that is not known yet, until it is."""
        place = self._places.find(run)
        if place is None:
            self._early[run] = end
        else:
            self._take(place, end)

    def _take(self, place: int, end: End) -> None:
        status = "cancelled" if end.status == "skipped" else end.status
        self._statuses[place] = STATUSES.index(status if status in STATUSES else "failed")
        self._ended[place] = self._moment(end.ended)
        self._took[place] = max(0.0, end.ended - end.started) if end.started and end.ended else 0.0
        self._attempts[place] = max(0, min(MOST_ATTEMPTS, end.attempt))
        self._workers[place] = self._worker_names.number(end.worker)
        if end.error is not None:
            text = f"{end.error.type}: {end.error.message}".casefold()
            self._errors[place] = text[:LONGEST_ERROR].encode("utf-8", "replace")
        self.version += 1

    def _moment(self, seconds: float) -> int:
        """Return a time as it is kept: milliseconds, 0 for none."""
        return max(1, min(MOST_TIME, round((seconds - self._begin) * 1000))) if seconds else 0

    def id(self, place: int) -> str:
        """Return the id of a child."""
        return self._ids[place * ID_BYTES : (place + 1) * ID_BYTES].hex()

    def kind(self, place: int) -> Kind:
        """Return what a child has in common with others."""
        return self._kind_names.values[self._kinds[place]]

    def key(self, place: int) -> str | None:
        """Return the key of a child."""
        text = self._key(place)
        return None if not text else "" if text == _NO_TEXT else text.decode()

    def _key(self, place: int) -> bytes:
        return bytes(self._keys[self._key_ends[place - 1] if place else 0 : self._key_ends[place]])

    def chosen(self, choice: Choice) -> array[int]:
        """Return the places of those that are chosen, in the order that is asked for."""
        places: Iterable[int] = range(len(self))
        if choice.status is not None:
            wanted = {STATUSES.index(status) for status in statuses_of(choice.status) if status in STATUSES}
            places = [place for place, status in enumerate(self._statuses) if status in wanted]
        if choice.step is not None or choice.workflow is not None:
            fits = {
                number
                for number, kind in enumerate(self._kind_names.values)
                if choice.step in (None, kind.step) and choice.workflow in (None, kind.workflow)
            }
            places = [place for place in places if self._kinds[place] in fits]
        if choice.search:
            text = choice.search.casefold()
            places = [place for place in places if self._holds(place, text, text.encode("utf-8", "replace"))]
        name, is_down = choice.sort.removeprefix("-"), choice.sort.startswith("-")
        if name == "n":
            return array("I", reversed(list(places)) if is_down else places)
        return array("I", sorted(places, key=self._order(name), reverse=is_down))

    def _holds(self, place: int, text: str, packed: bytes) -> bool:
        key = self._key(place)
        return (
            (key != _NO_TEXT and text in key.decode().casefold())
            or packed in self._errors.get(place, b"")
            or self.id(place).startswith(text)
        )

    def _order(self, name: str) -> Callable[[int], Any]:
        columns: dict[str, Callable[[int], Any]] = {
            "status": self._statuses.__getitem__,
            "key": lambda place: self.key(place) or "",
            "workflow": lambda place: self.kind(place).workflow,
            "queued": self._queued.__getitem__,
            "started": lambda place: self._ended[place] - 1000 * self._took[place],
            "ended": self._ended.__getitem__,
            "took": self._took.__getitem__,
            "attempts": self._attempts.__getitem__,
            "worker": lambda place: self._worker_names.values[self._workers[place]],
        }
        return columns[name]

    def took(self, places: Iterable[int]) -> list[float]:
        """Return how long those took that have ended, in seconds, the shortest first."""
        return sorted(self._took[place] for place in places if self._ended[place])
