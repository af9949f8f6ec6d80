"""The event loop of one command: uvloop where it exists."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from typing import Any, TypeVar

if sys.platform == "win32":
    from asyncio import new_event_loop
else:
    from uvloop import new_event_loop

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run ``work`` to its end. Ctrl-C cancels it, and raises KeyboardInterrupt when it has ended."""
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(work)
