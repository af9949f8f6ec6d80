"""What a worker holds, in memory that its guard can read: one place for each delivery.

The worker writes, without a system call, and may die in the middle of it; the guard reads. A place is free as long as
the size of its subject is zero, and its subject is no subject as long as there is a zero byte in it: it was being
written. What is read while it changes is read again. What is written of a place is as little memory as can be, by as
few calls as can be: that is what it costs.
"""

from __future__ import annotations

import mmap
import os
import struct
import tempfile
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

SIZE: Final = 256
"""Bytes of a place. A longer acknowledgement subject gets none: the worker's own heartbeat keeps it alive."""

PLACES: Final = 65_536
"""Deliveries that are held at once at most, in memory that is only used as far as it is needed."""

NOWHERE: Final = -1
"""The place of what has none."""

_HEADER: Final = 4096
_BEATEN, _ACK_WAIT, _TOP = 0, 8, 16
_NUMBER: Final = struct.Struct("<d")
_HEAD: Final = struct.Struct("<dB")
_SIZE_AT: Final = 8
"""Where in a place the size stands."""

_SUBJECT: Final = _HEAD.size
_ROOM: Final = SIZE - _SUBJECT

_WRITE: Final = [struct.Struct(f"<dB{size}s").pack_into for size in range(_ROOM + 1)]
"""What writes a place, by the size of its subject: first all of it is zero, then it is written in this order."""

_note_number = _NUMBER.pack_into


class Held(NamedTuple):
    """One delivery that a worker holds. ``started`` is when its body began, in seconds since the epoch; 0: not yet."""

    reply: str
    started: float


class HeldTable:
    """The memory behind the descriptor ``file``, which is this object's to close."""

    def __init__(self, file: int) -> None:
        self.file = file
        self._map = mmap.mmap(file, _HEADER + PLACES * SIZE)
        self._memory = memoryview(self._map)
        self._free: list[int] = []
        self._top = _HEADER

    @classmethod
    def new(cls) -> HeldTable:
        """Return an empty one. No other process has it but those that its descriptor is passed to."""
        if hasattr(os, "memfd_create"):
            file = os.memfd_create("jetflow-held")
        else:
            with tempfile.TemporaryFile() as temporary:
                file = os.dup(temporary.fileno())
        os.ftruncate(file, _HEADER + PLACES * SIZE)
        return cls(file)

    def close(self) -> None:
        """Let the memory go."""
        self._memory.release()
        self._map.close()
        os.close(self.file)

    # --- the worker's side

    def take(self, replies: Iterable[str]) -> list[int]:
        """Return the places at which deliveries are noted from now on, in their order; `NOWHERE` if one finds none."""
        memory, free, places = self._memory, self._free, list[int]()
        for data in map(str.encode, replies):
            size = len(data)
            place = NOWHERE if size > _ROOM else free.pop() if free else self._grow()
            if place > 0:
                _WRITE[size](memory, place, 0.0, size, data)
            places.append(place)
        return places

    def begin(self, place: int, started: float) -> None:
        """Note that the body of a delivery has begun."""
        if place > 0:
            _note_number(self._memory, place, started)

    def free(self, place: int) -> None:
        """Note that a delivery is held no more."""
        if place > 0:
            self._memory[place + _SIZE_AT] = 0
            self._free.append(place)

    def _grow(self) -> int:
        if self._top == len(self._memory):
            return NOWHERE
        place = self._top
        self._top += SIZE
        _note_number(self._memory, _TOP, self._top)
        return place

    @property
    def beaten(self) -> float:
        """When the guard has kept all alive last, in seconds of this machine's monotonic clock."""
        return _NUMBER.unpack_from(self._memory, _BEATEN)[0]

    # --- both sides

    @property
    def ack_wait(self) -> float:
        """Seconds without a sign of life after which the broker gives a task to another worker; 0 if nobody knows."""
        return _NUMBER.unpack_from(self._memory, _ACK_WAIT)[0]

    @ack_wait.setter
    def ack_wait(self, seconds: float) -> None:
        _NUMBER.pack_into(self._memory, _ACK_WAIT, seconds)

    # --- the guard's side

    def beat(self, now: float) -> None:
        """Note that all is kept alive."""
        _NUMBER.pack_into(self._memory, _BEATEN, now)

    def held(self) -> Iterator[Held]:
        """Yield what is held."""
        top = int(_NUMBER.unpack_from(self._memory, _TOP)[0])
        for place in range(_HEADER, top, SIZE):
            if self._memory[place + _SIZE_AT]:
                found = self._read(place)
                while found != (again := self._read(place)):
                    found = again
                if found is not None:
                    yield found

    def _read(self, place: int) -> Held | None:
        started, size = _HEAD.unpack_from(self._memory, place)
        subject = bytes(self._memory[place + _SUBJECT : place + _SUBJECT + size])
        return Held(subject.decode("ascii", "replace"), started) if size and 0 not in subject else None
