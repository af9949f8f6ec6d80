"""What may be done to one run."""

from __future__ import annotations

import msgspec

from jetflow.dashboard.endpoints import Ask, Endpoints
from jetflow.rerunning import Only
from jetflow.runs.query.rows import RunningRow

ENDPOINTS = Endpoints()


class CancelBody(msgspec.Struct, forbid_unknown_fields=True):
    """A run is cancelled with its descendants, unless ``tree`` is false."""

    tree: bool = True


class RerunBody(msgspec.Struct, forbid_unknown_fields=True):
    """What is run again: what has failed, all of it, or a ``step`` with all behind it."""

    only: Only = "failed"
    step: str | None = None


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
async def rerun(ask: Ask, body: RerunBody) -> Done:
    """Run one that has ended once more, as a new run, and tell its id; nothing is changed where it was before."""
    again = await ask.client.rerun(ask.run, only=body.only, from_step=body.step)
    return Done(id=again.id, changed=bool(again.created))


@ENDPOINTS.get("runs/{id}/stack", "stack")
async def stack(ask: Ask) -> list[RunningRow]:
    """Ask the workers where the code of the steps of a run stands at this moment."""
    return await ask.client.running(ask.run, stack=True)
