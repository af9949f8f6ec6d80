"""P: a worker whose steps spawn children: who they are, how the join is recorded, and what goes on behind it."""

from __future__ import annotations

import json
from time import time
from typing import Any

from conformance.cases.limits import gates
from conformance.expected import (
    Expected,
    Run,
    ack,
    begun,
    counted,
    delivered,
    gate,
    join,
    mark,
    message,
    outcome,
    sealed,
    step_outcome,
    task,
)
from conformance.lab import Lab, encode
from conformance.suite import case
from conformance.wire import END, SEAL, child_id, digest, id_sum, split_members


def fan(lab: Lab, inputs: list[Any], child: str = "square", **more: Any) -> dict[str, Any]:
    """Return an input for the kit's workflows that spawn."""
    return {"child": lab.of_kit(child), "inputs": inputs, **more}


def child_of(lab: Lab, parent: Run, workflow: str, value: Any, key: str | None = None) -> Run:
    """Return the child that a step must spawn for an input or a key."""
    name = lab.of_kit(workflow)
    run = child_id(parent.run, name, value=value, key=key)
    return Run(name, "run", parent.root, parent.run, parent.step, run)


async def version_of(lab: Lab, workflow: str) -> str:
    """Return the newest version of a workflow of the kit, as the registry bucket has it."""
    stored = await lab.broker.last(lab.names.workflows, lab.subject("workflow", workflow=lab.of_kit(workflow)))
    assert stored is not None
    return stored.json["version"]


@case("P01", "parent")
async def it_spawns_with_keys(lab: Lab) -> None:
    """Children have derived ids, the parent's metadata, deadline and places, and a join that is sealed (Spawning)."""
    await gates(lab)
    places = {"Jf_Held": "conf.above", "Jf_Places": "conf.acme conf._"}
    deadline, metadata = f"{time() + 300:.3f}", '{"by":"hand"}'
    run = await lab.trigger(
        "fan", fan(lab, [1, 2, 3], key="each"), step="scatter", Jf_Deadline=deadline, Jf_Metadata=metadata, **places
    )
    version, inputs = await version_of(lab, "square"), [1, 2, 3]
    children = [child_of(lab, run, "square", value, key=json.dumps(value)) for value in inputs]
    for child, value in zip(children, inputs, strict=True):
        headers = {
            "Nats-Msg-Id": f"{child.run}.scatter.{digest(value)}",
            "Jf-Parent-Step": "scatter",
            "Jf-Version": version,
            "Jf-Depth": "1",
            "Jf-Digest": digest(value),
            "Jf-Key": json.dumps(json.dumps(value)),
            "Jf-Deadline": deadline,
            "Jf-Metadata": metadata,
            "Jf-Held": lambda held: set(held.split()) == {"conf.above", "conf.acme", "conf._"},
            "Jf-Places": None,
        }
        (spawned,) = await lab.expect(run, task(child, headers=headers))
        lab.check(spawned.json == value, f"the body of {child.run} is {spawned.body!r}", run)
    record, _, _ = await lab.expect(
        run, join(run, "sealed", needed=3, total=3, tried=0), sealed(run, SEAL - 3), ack(run)
    )
    ids = [child.run for child in children]
    whole = record.field("id_sum") == id_sum(ids) or split_members(record.field("members")) == set(ids)
    lab.check(whole, "the record counts other children than were spawned", run)
    total = run.at("sum")
    again = {"Nats-Msg-Id": f"{run.run}.sum.0", "Jf-Deadline": deadline, "Jf-Metadata": metadata}
    await lab.expect(
        run,
        step_outcome(run, "succeeded"),
        task(total, headers=again),
        outcome(run, "succeeded", output=14),
        ack(total),
    )
    value = await lab.broker.count(lab.subject("count", **run.tokens), 0)
    lab.check(value == SEAL, f"the counter is at SEAL + {value - SEAL}: three counts and one seal make SEAL", run)


@case("P02", "parent")
async def it_spawns_equal_inputs(lab: Lab) -> None:
    """Without keys the input's digest names a child: equal inputs are one child, and it is needed once (Identity)."""
    run = await lab.trigger("fan", fan(lab, [2, 2, 3]), step="scatter")
    first, other = child_of(lab, run, "square", 2), child_of(lab, run, "square", 3)
    await lab.expect(run, task(first, headers={"Nats-Msg-Id": f"{first.run}.scatter", "Jf-Key": None}))
    await lab.expect(run, task(other), join(run, "sealed", needed=2, total=2), sealed(run, SEAL - 2), ack(run))
    await lab.expect(run, outcome(run, "succeeded", output=13))


@case("P03", "parent")
async def it_spawns_the_same_again(lab: Lab) -> None:
    """A later attempt finds its children spawned; its record names them, for others may be stored (Join)."""
    run = await lab.trigger("late", fan(lab, [1, 2], again=[1, 2]), step="scatter")
    ids = {child_of(lab, run, "square", value).run for value in (1, 2)}
    record, _ = await lab.expect(run, join(run, "sealed", 1, needed=2, total=2), ack(run, 1))
    lab.check(split_members(record.field("members") or "") == ids, "the record of a later attempt has no members", run)
    await lab.expect(run, outcome(run, "succeeded", output=5))


@case("P04", "parent")
async def its_key_has_another_input(lab: Lab) -> None:
    """A key that was used with another input is a KeyConflict, and no other attempt is made (Spawning, 4)."""
    run = await lab.trigger("fan", fan(lab, [1, 2], key="same"), step="scatter")
    conflict: Expected = outcome(run, "failed", error=lambda error: error["type"] == "KeyConflict")
    await lab.expect(run, mark(run, "failed"), conflict)
    lab.never(run, message("try", run=run.run), task(run, 1))


@case("P05", "parent")
async def it_borrows(lab: Lab) -> None:
    """A child that another step of the run spawned first is borrowed: waited for, but counted there (Spawning, 4)."""
    run = await lab.trigger("borrow", fan(lab, [0.5], "slow", key="shared"), step="_start")
    records = []
    shared = message("task", headers={"Jf-Shared": "1"}, run=child_of(lab, run, "slow", 0.5, key="shared").run)
    await lab.expect(run, shared)
    for step in (run.at("one"), run.at("two")):
        record, _ = await lab.expect(run, join(step, "sealed", needed=1, total=1), ack(step))
        records.append(record)
    lending, borrowing = sorted(records, key=lambda record: len(record.field("borrowed")))
    child = child_of(lab, run, "slow", 0.5, key="shared").run
    owner = lending.fields["step"]
    lab.check(borrowing.field("borrowed") == [[child, owner]], "the child is borrowed from the step that has it", run)
    lab.check(child not in split_members(borrowing.field("members") or ""), "it is no member of the borrower", run)
    await lab.expect(run, sealed(run.at(owner), SEAL - 1))
    await lab.expect(run, sealed(run.at(borrowing.fields["step"]), SEAL))
    await lab.expect(run, outcome(run, "succeeded", output=[[1], [1]]))


@case("P06", "parent")
async def its_children_do_not_succeed(lab: Lab) -> None:
    """Children that failed, timed out or were cancelled fail their step: ChildrenFailed; `total` is there (Sealing)."""

    async def failed(run: Run) -> None:
        why = step_outcome(run, "failed", error=lambda error: error["type"] == "ChildrenFailed")
        await lab.expect(run, join(run, "sealed", needed=2, total=2), why, outcome(run, "failed"))

    await failed(await lab.trigger("fan", fan(lab, [1, 3], "fail"), step="scatter"))
    run = await lab.trigger("fan", fan(lab, [30, 0], "slow"), step="scatter")
    child = child_of(lab, run, "slow", 30)
    await lab.expect(run, delivered(child))
    await lab.cancel(run.root, child.run)
    await failed(run)
    soon = f"{time() + 3:.3f}"
    run = await lab.trigger("fan", fan(lab, [30, 0], "slow"), step="scatter", Jf_Deadline=soon)
    await lab.expect(run, mark(child_of(lab, run, "slow", 30), "timed_out"))
    await failed(run)


@case("P07", "parent")
async def a_later_attempt_spawns_nothing(lab: Lab) -> None:
    """Children of an attempt that failed are none of the step's: `members` is empty, later steps see none (Sealing)."""
    run = await lab.trigger("late", fan(lab, [1, 2, 3], again=[]), step="scatter")
    record, _ = await lab.expect(run, join(run, "sealed", 1, needed=0), sealed(run, SEAL))
    lab.check(record.field("members") == "", "members must be there, and empty", run)
    await lab.expect(run, outcome(run, "succeeded", output=0))


@case("P08", "parent")
async def it_parks_at_once(lab: Lab) -> None:
    """A parked step stores its record, counts, and acknowledges; who completes it starts the next turn (Parking)."""
    parent = await lab.parent()
    run = await lab.spawn(parent, "park", fan(lab, [1.5, 1.6], "slow"))
    await lab.expect(
        parent,
        join(run, "parked", needed=lambda needed: 1 <= needed <= 2),
        sealed(run, SEAL - 2),
        ack(run, delivery=1),
        task(run, 1, headers={"Nats-Msg-Id": f"{run.run}.run.1", "Jf-Parent-Step": "scatter", "Jf-Attempt": None}),
        outcome(run, "succeeded", output=[1, 1], attempt=1),
        counted(parent),
        ack(run, 1),
    )


async def killed(lab: Lab, point: Expected, run: Run) -> int:
    """Kill the worker as it is about to send a message of a run that is under way; the join must complete."""
    began = await lab.killed_at(point, lab.store_task(run, fan(lab, [1, 2, 3]), {"Jf-Digest": "2-0"}), run)
    await lab.expect(run, outcome(run, "succeeded", output=14), within=25)
    return began


def root_run(lab: Lab) -> Run:
    """Return a run of ``fan`` that is not started yet."""
    made = lab.child(Run("", "", "", "", "", ""), "fan", "scatter")
    return Run(made.workflow, "scatter", made.run, "-", "-", made.run)


@case("P09a", "parent", alone=True)
async def killed_before_the_seal(lab: Lab) -> None:
    """A parent dies between spawning and sealing: the next attempt spawns the same, and seals (Running)."""
    run = root_run(lab)
    await killed(lab, join(run, "sealed"), run)


@case("P09b", "parent", alone=True)
async def killed_before_the_count(lab: Lab) -> None:
    """A parent dies between storing its JoinRecord and counting: the redelivery counts (Running, 2)."""
    run = root_run(lab)
    await killed(lab, sealed(run, SEAL - 3), run)


@case("P09c", "parent", alone=True)
async def killed_before_the_parent_acks(lab: Lab) -> None:
    """A parent dies before it acknowledges a step that is sealed: the redelivery runs nothing (Running, 2)."""
    run = root_run(lab)
    began = await killed(lab, ack(run), run)
    await lab.expect(run, ack(run), since=began)
    spawned = [event for event in lab.seen(run, task(child_of(lab, run, "square", 1))) if event.number >= began]
    lab.check(not spawned, "the step was run again", run)


@case("P09d", "parent", alone=True)
async def killed_after_spawning(lab: Lab) -> None:
    """A body that ends its process after it has spawned is an attempt; the next one finds the children (Attempts)."""
    run = root_run(lab)
    run = Run(lab.of_kit("crash"), *list(run.tokens.values())[1:])
    await lab.store_task(run, fan(lab, [1, 2], again=[2]), {"Jf-Digest": "2-0"})
    await lab.expect(run, delivered(run))
    await lab.tested.kill()
    await lab.start()
    await lab.expect(run, begun(run, delivery=2), within=25)  # of the first delivery nobody knows whether it began
    await lab.tested.kill()
    await lab.start()
    (record,) = await lab.expect(run, join(run, "sealed", 0, needed=1, total=1, attempt=2), within=25)
    kept = child_of(lab, run, "square", 2).run
    lab.check(split_members(record.field("members") or "") == {kept}, "only what the last attempt spawned counts", run)
    await lab.expect(run, outcome(run, "succeeded", output=4))


@case("P10", "parent")
async def a_diamond(lab: Lab) -> None:
    """Two first steps, gates behind them, two last steps: each task once, outputs by reference loaded (Finishing)."""
    run = await lab.trigger("diamond", 300_000, step="_start")
    left, right, total, text = (run.at(step) for step in ("left", "right", "sum", "text"))
    await lab.expect(run, task(left), ack(run))
    await lab.expect(run, task(right), ack(run))
    for step in (left, right):
        await lab.expect(run, step_outcome(step, "succeeded"), ack(step))
    for step in (total, text):
        headers = {"Nats-Msg-Id": f"{run.run}.{step.step}.0"}
        await lab.expect(run, gate(run, step.step), task(step, headers=headers), step_outcome(step, "succeeded"))
    await lab.expect(run, step_outcome(text, "succeeded", output=None, value=lambda value: "-" in value))
    (ended,) = await lab.expect(run, outcome(run, "succeeded", value=lambda value: "-" in value))
    await lab.expect(run, gate(run, END), outcome(run, "succeeded"))
    reference = str(ended.field("value"))
    name, _, count = reference.partition(".")
    chunks = [
        await lab.broker.last(lab.names.values, lab.subject("value", root=run.root, digest=name, chunk=number))
        for number in range(int(count))
    ]
    output = json.loads(b"".join(chunk.body for chunk in chunks if chunk is not None))
    lab.check(output == {"sum": 600_003, "text": "x" * 300_000}, "the output is not an object by step name", run)
    for step in (total, text):
        tasks = await lab.broker.subjects(lab.names.tasks, f"jf.*.task.*.{step.step}.{run.root}.>")
        lab.check(len(tasks) == 1, f"one task of {step.step} is expected: {tasks}", run)


@case("P11", "parent")
async def its_failure_step_runs(lab: Lab) -> None:
    """The on_failure step starts when the failed run is counted, also redelivered; it changes the run no more."""
    parent = await lab.parent()
    run = lab.child(parent, "saga", "_start")
    undo = run.at("undo")
    lab.lost_before(f".undo.{run.root}.{run.parent}.{run.run}")
    await lab.spawn_as(run, {"fail": ["one"]}, Jf_Deadline=f"{time() + 60:.3f}")
    await lab.expect(
        parent,
        mark(run, "failed"),
        outcome(run, "failed"),
        counted(parent),
        task(undo, headers={"Nats-Msg-Id": f"{run.run}.undo.0", "Jf-Deadline": None}),
        delivered(undo, delivery=2),
        step_outcome(undo, "succeeded", output=["one"]),
        ack(undo),
    )
    lab.check(len(lab.seen(parent, outcome(run, "failed"))) == 1, "the run's outcome is stored once", parent)


@case("P12", "parent")
async def it_spawns_a_detached_child(lab: Lab) -> None:
    """A detached child has a child's id, and is a root run otherwise: root = run, no parent, no join (Spawning)."""
    run = await lab.trigger("detach", {"child": lab.of_kit("square"), "input": 5}, Jf_Metadata='{"m":1}')
    name = lab.of_kit("square")
    id = child_id(run.run, name, value=5)
    child = Run(name, "run", id, "-", "-", id)
    (spawned,) = await lab.expect(child, task(child, parent="-", root=id, headers={"Jf-Metadata": '{"m":1}'}))
    lab.check(spawned.headers.get("Jf-Parent-Step", "-") == "-", "it has no parent step", child)
    await lab.expect(run, outcome(run, "succeeded", output=id), ack(run))
    await lab.expect(child, outcome(child, "succeeded", output=25), ack(child))
    lab.never(run, message("join"), message("count"))


@case("P13", "parent")
async def it_nests(lab: Lab) -> None:
    """Each level is spawned one deeper, and completes the one above (Spawning)."""
    run = await lab.trigger("nest", 4)
    await lab.expect(run, outcome(run, "succeeded", output=4))
    depths = {event.headers["Jf-Depth"] for event in lab.seen(run, message("task", turn=0))}
    lab.check(depths == {"1", "2", "3", "4"}, f"depths 1 to 4 are expected, not {sorted(depths)}", run)


@case("P14", "parent")
async def its_outcome_is_stored(lab: Lab) -> None:
    """A redelivered task whose step has an outcome goes on behind it, and runs nothing (Running, 2)."""
    run = root_run(lab)
    lab.lost_before(f".scatter.{run.root}")
    done = {"status": "succeeded", "workflow": run.workflow, "step": "scatter"}
    await lab.broker.store(lab.subject("step", **run.tokens), encode(done))
    await lab.store_task(run, fan(lab, [1]), {"Jf-Digest": "2-0"})
    await lab.expect(run, task(run.at("sum")), ack(run, delivery=2))
    lab.never(run, task(child_of(lab, run, "square", 1)), join(run, "sealed"))


@case("P15", "parent")
async def its_record_is_stored(lab: Lab) -> None:
    """A redelivered task whose turn has a JoinRecord counts it again, looks, and runs nothing (Running, 2)."""
    run = root_run(lab)
    lab.lost_before(f".scatter.{run.root}")
    child = child_of(lab, run, "square", 1)
    await lab.end(child, output=1)
    await lab.seal(run, [child])
    await lab.store_task(run, fan(lab, [1]), {"Jf-Digest": "2-0"})
    await lab.expect(run, sealed(run, SEAL - 1), step_outcome(run, "succeeded"), task(run.at("sum")), ack(run))
    lab.never(run, task(child))


@case("P16", "parent")
async def its_end_and_its_record_are_stored(lab: Lab) -> None:
    """A look of another may have ended a step that is not counted: its redelivery adds SEAL (Running, 2)."""
    run = root_run(lab)
    lab.lost_before(f".scatter.{run.root}")
    child = child_of(lab, run, "square", 1)
    await lab.seal(run, [child])
    done = {"status": "succeeded", "workflow": run.workflow, "step": "scatter"}
    await lab.broker.store(lab.subject("step", **run.tokens), encode(done))
    await lab.store_task(run, fan(lab, [1]), {"Jf-Digest": "2-0"})
    await lab.expect(run, sealed(run, SEAL), task(run.at("sum")), ack(run, delivery=2))
    lab.never(run, task(child))


@case("W35", "parent")
async def headers_are_kept(lab: Lab) -> None:
    """Every task of a run repeats its headers, byte for byte: non-ASCII keys and metadata too (Headers)."""
    await gates(lab)
    headers = {"Jf-Key": '"schlüssel ☃"', "Jf-Metadata": '{"größe":"ñ"}', "traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}
    headers |= {"Jf-Places": "conf.acme", "Jf-Held": "conf.of-another conf.third"}
    headers |= {"Jf-Elder": f"{'e' * 32}.{'e' * 32}", "Jf-Rerun": f"{'e' * 32}.1.failed"}  # of a run that is not there
    given = {name.replace("-", "_"): value for name, value in headers.items()}
    run = await lab.trigger("fan", fan(lab, [1]), step="scatter", **given)
    await lab.expect(run, task(run.at("sum"), headers=headers | {"Jf-Digest": lambda text: text.startswith("2-")}))
    await lab.expect(run, outcome(run, "succeeded", key=lambda key: key in ("schlüssel ☃", '"schlüssel ☃"')))
