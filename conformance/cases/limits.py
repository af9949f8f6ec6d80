"""L: limits. Places go with a run's tasks and its children, and are given back; who cannot take them runs nothing.

To take places, and turns at rate limits, is for workers of level *full*, and jetflow's own tests ask it of them. Others
have their part in it: what they end has places, and what they are given may need some.
"""

from __future__ import annotations

from time import time
from typing import Any, Final

from conformance.cases.worker import topology
from conformance.expected import (
    Expected,
    Run,
    ack,
    any_of,
    attempt,
    delivered,
    join,
    mark,
    message,
    nak,
    outcome,
    recorded,
    step_outcome,
    task,
)
from conformance.lab import Lab, encode
from conformance.suite import case
from conformance.wire import NONE, new_id

LIMIT: Final = "tenant"


async def gates(lab: Lab) -> None:
    """Make the streams of limits, as whoever declares the first one does."""
    for stream in topology(lab.names.namespace)["optional_streams"]:
        if stream["name"] in (lab.names.gates, lab.names.limits):
            await lab.broker.api(f"STREAM.CREATE.{stream['name']}", stream)


class Gate:
    """The gate of one key of a limit, at which one run may be admitted, and another one waits."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        waiting = new_id()
        self.next = Run(f"raw-{waiting[:8]}", "_admit", waiting, NONE, NONE, waiting)
        self.place = f"{LIMIT}.{waiting}"  # so its key stands in the log of who waits
        self.needed = {"places": [[LIMIT, waiting, waiting]], "since": time()}

    async def enter(self, run: Run, step: str | None = None) -> None:
        """Have a run, or a step of it, stand there as the first, and the other one behind it."""
        await gates(self.lab)
        await self.lab.broker.publish(self.lab.subject("limit", limit=LIMIT), encode({"max": 1}))
        self.who = run.run if step is None else f"{run.run}={step}"
        self.entry = await self._stand(run, self.who)
        await self.lab.declare(self.next.workflow)
        await self.lab.store_task(self.next, {}, {"Jf-Version": "v1", "Jf-Digest": "2-0"})
        await self._stand(self.next, self.next.run)
        waits = self.lab.subject("task", **self.next.tokens, turn=0)
        parked = {"kind": "parked", "turn": 0, "task": waits, "needed": 0, "gate": self.place}
        await self.lab.broker.store(self.lab.subject("join", **self.next.tokens, turn=0), encode(parked))

    async def _stand(self, run: Run, who: str) -> str:
        subject = self.lab.subject("entry", place=self.place, root=run.root, parent=run.parent, run=who)
        await self.lab.broker.store(subject, encode({"workflow": run.workflow}))
        return subject

    async def was_left(self, run: Run, *before: Expected, end: Expected) -> None:
        """Check that who stood there has gone behind some messages, and that others were looked for, before an end."""
        *_, gone, ended = await self.lab.expect(run, *before, message("gone", root=run.root, run=self.who), end)
        woken = any_of(message("in.limit", place=self.place), task(self.next, 1))  # it asks for a look, or looks
        (looked,) = await self.lab.expect(self.next, woken)
        self.lab.check(gone.number < looked.number < ended.number, "the gate is looked at before the ack", run)
        left = await self.lab.broker.last(self.lab.names.gates, self.entry)
        self.lab.check(left is None, "who has gone stands at the gate", run)


def unknown(error: Any) -> bool:
    """Tell whether an error says that a worker does not know a step."""
    return error["type"] == "UnknownStep"


@case("L01", "child")
async def it_gives_its_places_back(lab: Lab) -> None:
    """Behind its Outcome a run with Jf-Places goes from its gates, and others are looked for; then the ack (Limits)."""
    gate, parent = Gate(lab), await lab.parent()
    child = lab.child(parent, "square")
    await gate.enter(child)
    await lab.spawn_as(child, 3, Jf_Places=gate.place)
    await gate.was_left(child, outcome(child, "succeeded", output=9), end=ack(child))


@case("L02", "child")
async def it_has_no_limits_for_a_step(lab: Lab) -> None:
    """A step that is limited is left to others by a worker that has no limits for it, and not run (Limits of steps)."""
    name, version = lab.of_kit("slow"), f"l{new_id()[:8]}"
    graph = {"workflow": name, "nodes": [{"name": "run", "after": []}], "limited": ["run"]}
    await lab.broker.store(lab.subject("version", workflow=name, version=version), encode(graph))
    parent = await lab.parent()
    child = await lab.spawn(parent, "slow", 0, Jf_Version=version)
    left = (attempt(child, 1, returned=True, error=unknown), nak(child, delivery=1), delivered(child, delivery=2))
    refused = outcome(child, "failed", error=unknown)
    needs_none = recorded(child, "no places", lambda value: not value.get("places"), "_places")  # of level full
    await lab.expect(parent, *left, any_of(refused, needs_none), ack(child), within=20)


@case("L03", "parent")
async def a_look_ends_a_step_with_places(lab: Lab) -> None:
    """Who ends a step that is limited gives its places back, by what is recorded of them (Limits of steps)."""
    gate, parent = Gate(lab), await lab.parent(limited=("scatter",))
    await gate.enter(parent, "scatter")
    await lab.broker.store(lab.subject("once", **parent.tokens, name="_places"), encode(gate.needed))
    child = lab.child(parent, "square")
    await lab.seal(parent, [child], admits=gate.place)
    await lab.spawn_as(child, 3)
    await gate.was_left(parent, step_outcome(parent, "succeeded"), end=ack(child))


@case("L04", "child", start=False)
async def its_turn_has_not_come(lab: Lab) -> None:
    """A run whose turn at a rate limit has not come is parked, or left to who knows rate limits; nothing begins."""
    for stream in topology(lab.names.namespace)["streams"]:
        await lab.broker.api(f"STREAM.CREATE.{stream['name']}", stream)
    await gates(lab)
    name, now = lab.of_kit("slow"), time()
    subject = f"jf.{lab.names.namespace}.task.{name}._admit.>"
    await lab.broker.make_consumer(lab.names.tasks, f"{name}=_admit", subject)  # who has the limit made it
    graph = {"workflow": name, "nodes": [{"name": "run", "after": []}], "gated": True}
    await lab.broker.store(lab.subject("version", workflow=name, version="gated"), encode(graph))
    await lab.broker.store(lab.subject("rate", limit="api"), encode({"max": 1, "per": 60}))
    window = {"booked": [[now, 1]], "begun": [[now, 1]]}
    await lab.broker.store(lab.subject("window", limit="api", key="_"), encode(window))
    await lab.start()
    parent = await lab.parent()
    admit = lab.child(parent, "slow", "_admit")
    needed = {"rates": [["api", "_", "", 1]], "since": now}
    await lab.broker.store(lab.subject("once", **admit.tokens, name="places"), encode(needed))
    await lab.spawn_as(admit, 0, Jf_Version="gated")
    parked = join(admit, "parked", booked=lambda at: at > now + 50)
    (first,) = await lab.expect(parent, any_of(parked, attempt(admit, 1, returned=True, error=unknown)))
    if first.kind == "join":
        await lab.expect(parent, parked, ack(admit))
    else:
        ended = (mark(admit, "failed"), outcome(admit, "failed", error=unknown))
        await lab.expect(parent, nak(admit), delivered(admit, delivery=2), *ended, ack(admit), within=20)
    lab.never(parent, task(admit.at("run")))
