"""What a worker has done."""

from __future__ import annotations

import msgspec


class Counts(msgspec.Struct):
    """What a worker has done so far."""

    executed: int = 0
    succeeded: int = 0
    failed: int = 0
    retried: int = 0
    parked: int = 0
    redelivered: int = 0
    handed_back: int = 0
    rejected: int = 0
    swept: int = 0
    adopted: int = 0
