"""M: together with jetflow's own worker, in one namespace: its parents have your children, and yours have its.

The other worker is the Python kit, under names that begin with ``ref-``. It talks straight to the server: what the log
shows is what the tested process did.
"""

from __future__ import annotations

import asyncio
from typing import Any

from conformance.expected import (
    Run,
    ack,
    counted,
    delivered,
    join,
    mark,
    message,
    outcome,
    step_outcome,
    task,
)
from conformance.lab import REFERENCE, Lab
from conformance.suite import case
from conformance.wire import NONE, new_id


async def start(lab: Lab, workflow: str, step: str, value: Any) -> Run:
    """Start a root run of any workflow by its full name."""
    run = new_id()
    made = Run(workflow, step, run, NONE, NONE, run)
    await lab.store_task(made, value, {"Jf-Digest": "2-0"})
    return made


async def ended(lab: Lab, run: Run, status: str, output: Any = None) -> None:
    """Expect that a run has ended so, whoever has ended it."""

    async def there() -> bool:
        stored = await lab.broker.last(lab.names.records, lab.subject("run", **run.tokens))
        return stored is not None and (stored.json["status"], stored.json.get("output")) == (status, output)

    await lab.eventually(there, lab.report(f"the run must end as {status} with {output}", run))


def fan(child: str, inputs: list[Any], **more: Any) -> dict[str, Any]:
    """Return an input of a workflow that spawns."""
    return {"child": child, "inputs": inputs, **more}


@case("M01", "child", alone=True)
async def its_children_are_of_jetflow(lab: Lab) -> None:
    """A parent of jetflow joins children of the tested worker, also one that fails."""
    await lab.start_other()
    run = await start(lab, f"{REFERENCE}fan", "scatter", fan(lab.of_kit("square"), list(range(20)), key="each"))
    await ended(lab, run, "succeeded", sum(number * number for number in range(20)))
    lab.check(len(lab.seen(run, message("run", parent=run.run))) == 20, "the tested worker runs all children", run)
    run = await start(lab, f"{REFERENCE}fan", "scatter", fan(lab.of_kit("fail"), [1, 2, 3]))
    await ended(lab, run, "failed")


@case("M02", "parent", alone=True)
async def its_parent_is_of_jetflow(lab: Lab) -> None:
    """A parent of the tested worker joins children of jetflow, also one that fails."""
    await lab.start_other()
    child = f"{REFERENCE}square"
    run = await lab.trigger("fan", fan(child, list(range(20)), key="each"), step="scatter")
    await lab.expect(run, join(run, "sealed", needed=20, total=20), ack(run))
    await ended(lab, run, "succeeded", sum(number * number for number in range(20)))
    lab.never(run, message("run", parent=run.run))
    run = await lab.trigger("fan", fan(f"{REFERENCE}fail", [1, 2, 3]), step="scatter")
    await ended(lab, run, "failed")


@case("M03", "parent", alone=True)
async def each_wakes_the_other(lab: Lab) -> None:
    """Who counts last wakes a parked parent of the other: by its record and its graph alone."""
    await lab.start_other()
    run = await start(lab, f"{REFERENCE}park", "run", fan(lab.of_kit("slow"), [1, 1.5]))
    await lab.expect(run, task(run, 1, headers={"Nats-Msg-Id": f"{run.run}.run.1"}))
    await ended(lab, run, "succeeded", [1, 1])
    run = await lab.trigger("park", fan(f"{REFERENCE}slow", [1, 1.5]))
    await lab.expect(run, join(run, "parked", needed=2), ack(run), delivered(run, 1), outcome(run, "succeeded"))
    lab.never(run, task(run, 1))
    await ended(lab, run, "succeeded", [1, 1])


@case("M04", "parent", alone=True)
async def a_join_of_the_other_goes_on(lab: Lab) -> None:
    """The last child of a sealed step ends the step for the other, and starts what comes behind it."""
    await lab.start_other()
    run = await start(lab, f"{REFERENCE}fan", "scatter", fan(lab.of_kit("slow"), [1.5]))
    await lab.expect(run, counted(run), step_outcome(run, "succeeded"), task(run.at("sum")))
    await ended(lab, run, "succeeded", 1)


@case("M05", "parent", alone=True)
async def the_other_cancels_it(lab: Lab) -> None:
    """What jetflow's client cancels ends here as well: what runs is told to stop."""
    await lab.start_other()
    run = await start(lab, f"{REFERENCE}fan", "scatter", fan(lab.of_kit("slow"), [30]))
    await lab.expect(run, message("task", way="<", parent=run.run))
    (came,) = lab.seen(run, message("task", way="<", parent=run.run))
    child = Run(lab.of_kit("slow"), "run", run.root, run.run, "scatter", came.fields["run"])
    await asyncio.sleep(0.5)  # so that its body is running
    await lab.other.ask("cancel", run=run.run)
    await lab.expect(run, mark(child, "cancelled"), outcome(child, "cancelled"), counted(run))

    async def over() -> bool:
        stored = await lab.broker.last(lab.names.records, lab.subject("run", **run.tokens))
        return stored is not None and stored.json["status"] != "succeeded"

    # Whose outcome comes first is not said: that of the client, or that of the join whose only child was cancelled.
    await lab.eventually(over, lab.report("the run must end", run))


@case("M06", "parent", alone=True)
async def a_place_is_held_above_it(lab: Lab) -> None:
    """A child of jetflow that needs a place which a run above yours holds fails as PlaceHeld, and does not wait."""
    await lab.start_other()
    limited = f"{REFERENCE}limited"
    run = await start(lab, limited, "_admit", fan(lab.of_kit("park"), [fan(limited, [fan("nobody", [])])]))
    await lab.expect(run, message("task", workflow=limited, headers={"Jf-Held": "conf._"}))

    async def refused() -> bool:
        found = await lab.broker.subjects(lab.names.records, f"jf.*.run.{run.root}.>")
        stored = [await lab.broker.last(lab.names.records, subject) for subject in found]
        return any((one.json.get("error") or {}).get("type") == "PlaceHeld" for one in stored if one is not None)

    await lab.eventually(refused, lab.report("a run must end as PlaceHeld", run))
    await ended(lab, run, "failed")


@case("M07", "parent", alone=True)
async def it_ends_a_run_with_a_place(lab: Lab) -> None:
    """The last child of a run of jetflow ends it, and gives its place to the run that waits for it."""
    await lab.start_other()
    first, second = [
        await start(lab, f"{REFERENCE}limited", "_admit", fan(lab.of_kit("slow"), [1, 1.2])) for _ in range(2)
    ]
    for run in (first, second):
        await ended(lab, run, "succeeded", 2)
        lab.check(lab.seen(run, outcome(run.at("run"), "succeeded")), "the tested worker ends the run", run)
