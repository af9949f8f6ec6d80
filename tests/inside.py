"""What a test may look at inside a worker: whether it has recorded everything, what it holds, what it does."""

from __future__ import annotations

from jetflow import Worker
from jetflow.worker.services import Services


def services(worker: Worker) -> Services:
    """Return the services of a worker that has started."""
    assert worker._services is not None
    return worker._services


def recording(worker: Worker) -> int:
    """Return how many tasks' outcomes are on their way to the broker."""
    return services(worker).executor.recorder.recording
