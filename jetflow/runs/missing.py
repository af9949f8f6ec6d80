"""Which workflows something waits for that no worker runs."""

from __future__ import annotations

from collections.abc import Iterable

from jetflow.broker.session import Session
from jetflow.errors import MalformedRecord


async def is_missed(session: Session, workflow: str, version: str) -> bool:
    """Tell whether tasks of a workflow wait, and no worker runs it."""
    return await session.attendance.is_missed(workflow, await steps_of(session, workflow, version))


async def steps_of(session: Session, workflow: str, version: str) -> tuple[str, ...]:
    """Return the steps that tasks of a workflow may wait for; none if its graph is not known."""
    try:
        graph = await session.registry.graph(workflow, version)
    except MalformedRecord:
        graph = None
    if graph is None:
        return ()
    return (*graph.implied, *(node.name for node in graph.nodes))


def told(workflows: Iterable[str]) -> str:
    """Say of workflows that no worker runs them; empty for none."""
    named = " or ".join(map(repr, sorted(workflows)))
    return named and f"no worker runs {named}"
