"""The queues, and holding them back."""

from __future__ import annotations

import msgspec

from jetflow.dashboard.endpoints import Ask, Endpoints
from jetflow.runs.query.rows import QueueRow

ENDPOINTS = Endpoints()


@ENDPOINTS.get("queues")
async def queues(ask: Ask) -> list[QueueRow]:
    """List the queue of each step that a worker has ever pulled."""
    return await ask.client.queues()


class PauseBody(msgspec.Struct, forbid_unknown_fields=True):
    """``until`` is seconds since the epoch; without, until it is resumed."""

    until: float | None = None


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """The steps that are held back, or are not any more."""

    workflow: str
    steps: tuple[str, ...]


@ENDPOINTS.post("queues/{workflow}/{step}/pause", "pause")
async def pause(ask: Ask, body: PauseBody) -> Held:
    """Have the broker give out no tasks of a step; ``*`` stands for all steps of the workflow."""
    workflow, step = _named(ask)
    return Held(workflow=workflow, steps=tuple(await ask.client.pause(workflow, step, until=body.until)))


@ENDPOINTS.post("queues/{workflow}/{step}/resume", "pause")
async def resume(ask: Ask) -> Held:
    """Have the broker give out tasks of a step again; ``*`` stands for all steps of the workflow."""
    workflow, step = _named(ask)
    return Held(workflow=workflow, steps=tuple(await ask.client.resume(workflow, step)))


def _named(ask: Ask) -> tuple[str, str | None]:
    step = ask.path["step"]
    return ask.path["workflow"], None if step == "*" else step
