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
from collections.abc import Iterator
from typing import Final, NamedTuple

WORD: Final = 8
"""Bytes of a number. A place is told by the word at which it begins."""

SIZE: Final = 256
"""Bytes of a place: when the body began, the size of the subject, and the subject. A longer one gets none: the worker's
own heartbeat keeps it alive."""

PLACES: Final = 65_536
"""Deliveries that are held at once at most, in memory that is only used as far as it is needed."""

NOWHERE: Final = -1
"""The place of what has none: the memory's last word, which nobody reads."""

_HEADER: Final = 4096
_BYTES: Final = _HEADER + PLACES * SIZE + WORD
_BEATEN, _ACK_WAIT, _TOP = 0, 1, 2
_HEAD: Final = struct.Struct("<dB")
_ROOM: Final = SIZE - _HEAD.size

_WRITE: Final = [struct.Struct(f"<dB{size}s").pack_into for size in range(_ROOM + 1)]
"""What writes a place, by the size of its subject: first all of it is zero, then it is written in this order."""


class Held(NamedTuple):
    """One delivery that a worker holds. ``started`` is when its body began, in seconds since the epoch; 0: not yet."""

    reply: str
    started: float


class HeldTable:
    """The memory behind the descriptor ``file``, which is this object's to close.

    ``numbers`` is all of it in words: at a place stands when the body of its delivery began, in seconds since the
    epoch, or 0 until it has.
    """

    def __init__(self, file: int) -> None:
        self.file = file
        self._map = mmap.mmap(file, _BYTES)
        self._memory = memoryview(self._map)
        self.numbers: memoryview[float] = self._memory.cast("d")
        self._free: list[int] = []
        self._top = _HEADER // WORD

    @classmethod
    def new(cls) -> HeldTable:
        """Return an empty one. No other process has it but those that its descriptor is passed to."""
        if hasattr(os, "memfd_create"):
            file = os.memfd_create("jetflow-held")
        else:
            with tempfile.TemporaryFile() as temporary:
                file = os.dup(temporary.fileno())
        os.ftruncate(file, _BYTES)
        return cls(file)

    def close(self) -> None:
        """Let the memory go."""
        self.numbers.release()
        self._memory.release()
        self._map.close()
        os.close(self.file)

    # --- the worker's side

    def take(self, reply: str) -> int:
        """Return the place at which a delivery is noted from now on, or `NOWHERE`."""
        data = reply.encode()
        size = len(data)
        if size > _ROOM:
            return NOWHERE
        place = self._free.pop() if self._free else self._grow()
        if place != NOWHERE:
            _WRITE[size](self._memory, place * WORD, 0.0, size, data)
        return place

    def free(self, place: int) -> None:
        """Note that a delivery is held no more."""
        self.numbers[place + 1] = 0.0  # the word that begins with the size
        self._free.append(place)

    def _grow(self) -> int:
        place = self._top
        if place * WORD >= _HEADER + PLACES * SIZE:
            return NOWHERE
        self._top += SIZE // WORD
        self.numbers[_TOP] = float(self._top)
        return place

    @property
    def beaten(self) -> float:
        """When the guard has kept all alive last, in seconds of this machine's monotonic clock."""
        return self.numbers[_BEATEN]

    # --- both sides

    @property
    def ack_wait(self) -> float:
        """Seconds without a sign of life after which the broker gives a task to another worker; 0 if nobody knows."""
        return self.numbers[_ACK_WAIT]

    @ack_wait.setter
    def ack_wait(self, seconds: float) -> None:
        self.numbers[_ACK_WAIT] = seconds

    # --- the guard's side

    def beat(self, now: float) -> None:
        """Note that all is kept alive."""
        self.numbers[_BEATEN] = now

    def held(self) -> Iterator[Held]:
        """Yield what is held."""
        for place in range(_HEADER // WORD, int(self.numbers[_TOP]), SIZE // WORD):
            found = self._read(place)
            while found != (again := self._read(place)):
                found = again
            if found is not None:
                yield found

    def _read(self, place: int) -> Held | None:
        at = place * WORD
        started, size = _HEAD.unpack_from(self._memory, at)
        subject = bytes(self._memory[at + _HEAD.size : at + _HEAD.size + size])
        return Held(subject.decode("ascii", "replace"), started) if size and 0 not in subject else None
