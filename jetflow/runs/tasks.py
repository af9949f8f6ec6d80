"""Stored messages as tasks."""

from __future__ import annotations

import logging

from jetflow.broker.store import Stored
from jetflow.engine.tasks import Task
from jetflow.wire.records import MalformedTask, parse_task

_log = logging.getLogger("jetflow.worker")


def task_of(stored: Stored) -> Task | None:
    """Return the task that a stored message asks for, or None if it is malformed."""
    try:
        return parse_task(stored.subject, stored.headers, stored.body)
    except MalformedTask as error:
        _log.error("a stored task is malformed: %s", error)
        return None
