"""The cases, one module a family."""

from conformance.cases import (
    cancelling,
    client,
    conditions,
    events,
    failing,
    full,
    joins,
    limits,
    mixed,
    parent,
    timers,
    worker,
)

__all__ = [
    "cancelling",
    "client",
    "conditions",
    "events",
    "failing",
    "full",
    "joins",
    "limits",
    "mixed",
    "parent",
    "timers",
    "worker",
]
