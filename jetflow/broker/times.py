"""Times as the server writes them."""

from __future__ import annotations

from datetime import UTC, datetime
from math import ceil
from typing import Final

SECOND: Final = 1_000_000_000
"""A second, in the nanoseconds that the JetStream API counts in."""


def seconds_of(text: str) -> float:
    """Return a time as the server writes it in seconds since the epoch."""
    if not text:
        return 0.0
    head, _, fraction = text.rstrip("Z").partition(".")
    return datetime.fromisoformat(f"{head}+00:00").timestamp() + float(f"0.{fraction or 0}")


def written(seconds: float) -> str:
    """Return a time in seconds since the epoch as the server reads it: never earlier, at most a millisecond later."""
    whole = datetime.fromtimestamp(ceil(seconds * 1000) / 1000, UTC)
    return whole.isoformat(timespec="milliseconds").replace("+00:00", "Z")
