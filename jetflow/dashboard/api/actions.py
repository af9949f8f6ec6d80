"""What may be done to one run."""

from __future__ import annotations

import msgspec

from jetflow.dashboard.endpoints import Ask, Endpoints
from jetflow.dashboard.problems import Problem
from jetflow.runs.query.rows import RunningRow

ENDPOINTS = Endpoints()


class CancelBody(msgspec.Struct, forbid_unknown_fields=True):
    """A run is cancelled with its descendants, unless ``tree`` is false."""

    tree: bool = True


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """What an action has changed: nothing where ``changed`` is false, as a run that had ended already."""

    id: str
    changed: bool


@ENDPOINTS.post("runs/{id}/cancel", "cancel", status=202)
async def cancel(ask: Ask, body: CancelBody) -> Done:
    """Cancel a run."""
    return Done(id=ask.run, changed=await ask.client.cancel(ask.run, tree=body.tree))


@ENDPOINTS.delete("runs/{id}", "delete", status=202)
async def delete(ask: Ask) -> Done:
    """Delete all that is stored of a root run and its descendants; one that goes on is cancelled first."""
    await ask.client.delete(ask.run)
    return Done(id=ask.run, changed=True)


@ENDPOINTS.post("runs/{id}/rerun", "rerun", status=202)
async def rerun(ask: Ask) -> Done:
    """Begin a new run in the place of one that has ended: not possible yet."""
    raise Problem(501, "no-rerun", "runs cannot be run again yet", "trigger a new one with the same input")


@ENDPOINTS.get("runs/{id}/stack", "stack")
async def stack(ask: Ask) -> list[RunningRow]:
    """Ask the workers where the code of the steps of a run stands at this moment."""
    return await ask.client.running(ask.run, stack=True)
