"""What can be asked of a bench."""

from __future__ import annotations

from pathlib import Path

import msgspec


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """One call of the command.

    Attributes:
        n: the workload's size; its meaning stands with the workload.
        workers: worker processes on each side.
        rounds: how often both sides run.
        slots: steps that a jetflow worker runs at once.
        durable: the server flushes to disk before it acknowledges (``sync_interval: always``).
        kill_server: the server is killed in the middle (timers).
        part: measure this part alone (dashboard).
        json: where to write the report.
    """

    n: int
    workers: int = 1
    rounds: int = 3
    slots: int = 100
    durable: bool = False
    kill_server: bool = False
    part: str | None = None
    json: Path | None = None
