"""W: a worker of one-step workflows, from its start to the acknowledgement of a task."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from conformance.expected import (
    Run,
    ack,
    any_of,
    attempt,
    cancel_mark,
    counted,
    delivered,
    looked,
    mark,
    message,
    nak,
    outcome,
    told,
    wpi,
)
from conformance.lab import Lab, encode
from conformance.suite import case
from conformance.wire import Event, canonical, hashed, new_id


# --- starting


@case("W01", "child", alone=True)
async def declares_itself(lab: Lab) -> None:
    """A worker declares each workflow: its graph under its version first, then what is newest (Registry bucket)."""
    name = lab.of_kit("square")
    version, _ = await lab.expect(
        f"_workflows.{name}", message("version", workflow=name), message("workflow", workflow=name)
    )
    newest = await lab.broker.last(lab.names.workflows, lab.subject("workflow", workflow=name))
    assert newest is not None
    declared = newest.json
    lab.check(declared["version"] == version.fields["version"], "the newest declaration names the version")
    lab.check(declared["graph"] == version.json, "both have the same graph")
    lab.check([node["name"] for node in version.json["nodes"]] == ["run"], "a workflow of one step has the step `run`")


@case("W10", "child")
async def a_child_ends(lab: Lab) -> None:
    """A child's outcome is stored, told, counted, and only then is its task acknowledged (Running a task, 5 to 7)."""
    parent = await lab.parent()
    child = await lab.spawn(parent, "square", 7)
    await lab.expect(
        parent, outcome(child, "succeeded", output=49, attempt=1), told(child), counted(parent), ack(child, delivery=1)
    )
    lab.never(parent, message("mark", run=child.run), message("try", run=child.run), nak(child))
