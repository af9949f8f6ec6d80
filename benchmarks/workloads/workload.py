"""What every workload says of itself."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import msgspec

from benchmarks.options import Options
from benchmarks.report import Report


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to measure. ``n_is`` says what ``--n`` counts; ``n`` and ``rounds`` are what is taken without it."""

    name: str
    summary: str
    n_is: str
    n: int
    run: Callable[[Options], Coroutine[Any, Any, Report]]
    rounds: int = 3
    workers: int = 1
    slots: int = 100
