"""What no test may leave behind in its process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable
from typing import Any

from jetflow import Worker


def check_nothing_left(tasks_before: set[asyncio.Task[Any]], workers: Iterable[Worker]) -> None:
    """Check that no join needed the sweeper, and that no task of the event loop and no heartbeat thread is left."""
    assert sum(worker.counts.swept for worker in workers) == 0
    assert asyncio.all_tasks() - tasks_before <= {asyncio.current_task()}
    assert [thread.name for thread in threading.enumerate() if thread.name == "jetflow-heartbeat"] == []
