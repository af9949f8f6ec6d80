"""J: joins. The counter says when to look; the stored outcomes say whether it is true.

In most cases the driver plays the parent: it stores the JoinRecord and some outcomes, and the child of the worker under
test is the last that counts. So the worker has to look, and to go on with a run of which it knows only the graph.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from conformance.expected import (
    Expected,
    Run,
    ack,
    cancel_mark,
    counted,
    gate,
    join,
    looked,
    mark,
    outcome,
    sealed,
    step_outcome,
    task,
)
from conformance.lab import Lab, encode
from conformance.suite import case
from conformance.wire import END, NONE, SEAL, hashed, members, new_id

ONE_STEP: Final = (("scatter", ()),)


def went_on(parent: Run) -> tuple[Expected, Expected]:
    """Expect what follows a join that is complete: the step's outcome, then the task behind it."""
    return step_outcome(parent, "succeeded"), task(parent.at("sum"))


async def ended(lab: Lab, child: Run, status: str = "succeeded", **body: Any) -> Run:
    """Have a child that is not the worker's own end, and count."""
    await lab.end(child, status, **body)
    return child


# --- when a child looks


@case("J01", "child")
async def the_counter_reaches_the_seal(lab: Lab) -> None:
    """Whose count reaches SEAL looks, or has another look, before it acknowledges its task (Join)."""
    parent = await lab.parent()
    child = lab.child(parent, "square")
    await lab.seal(parent, [child])
    await lab.spawn_as(child, 3)
    await lab.expect(parent, outcome(child, "succeeded"), counted(parent), looked(parent), ack(child))


@case("J02", "child")
async def an_eager_child_fails(lab: Lab) -> None:
    """A child with Jf-Eager that did not succeed has a look, whatever the counter says (Join)."""
    parent = await lab.parent()
    child = await lab.spawn(parent, "fail", 3, Jf_Eager="1")
    await lab.expect(
        parent, mark(child, "failed"), outcome(child, "failed"), counted(parent), looked(parent), ack(child)
    )


@case("J03", "child")
async def a_child_fails_while_its_parent_is_parked(lab: Lab) -> None:
    """A child that did not succeed looks when the counter is between 2^39 and SEAL: one failure may decide (Join)."""
    parent = await lab.parent()
    child = lab.child(parent, "fail")
    others = [lab.child(parent, "raw") for _ in range(9)]
    policy = {"early": True, "cancel_rest": True}
    ids = members(one.run for one in (child, *others))
    await lab.seal(parent, [child, *others], kind="parked", total=10, policy=policy, members=ids)
    await lab.spawn_as(child, 3)
    await lab.expect(
        parent, mark(child, "failed"), outcome(child, "failed"), counted(parent), looked(parent), ack(child)
    )


@case("J19", "child")
async def a_shared_child_has_ended_under_another_step(lab: Lab) -> None:
    """Of a child with Jf-Shared an Outcome under another step of its parent counts: none is stored (How a run ends)."""
    parent = await lab.parent(steps=[("scatter", []), ("beside", [])])
    child = lab.child(parent, "square")
    await lab.end(replace(child, parent_step="beside"), count=False, output=9)
    await lab.spawn_as(child, 3, Jf_Shared="1")
    await lab.expect(parent, ack(child))
    stored = await lab.broker.subjects(lab.names.records, lab.subject("run", **child.tokens))
    lab.check(not stored, "the child has no second outcome", parent)


# --- what a look finds


@case("J04", "parent")
async def one_is_missing(lab: Lab) -> None:
    """A look that finds an outcome missing does nothing; the count of the last one completes the join (Join)."""
    parent = await lab.parent()
    first, last = lab.child(parent, "square"), lab.child(parent, "square")
    await lab.seal(parent, [first, last])
    await lab.count(first)  # one count too many, as after a crash
    await lab.spawn_as(first, 2)
    await lab.expect(parent, counted(parent), looked(parent), ack(first))
    lab.never(parent, *went_on(parent))
    await lab.spawn_as(last, 3)
    await lab.expect(parent, outcome(last, "succeeded"), *went_on(parent), ack(last))


@case("J05", "parent")
async def a_stranger_has_ended(lab: Lab) -> None:
    """Of a clean record the ids must add up: an outcome that nobody spawned stands in for none (Join)."""
    parent = await lab.parent()
    first, last, stranger = lab.child(parent, "square"), lab.child(parent, "slow"), lab.child(parent, "raw")
    await lab.seal(parent, [first, last])
    await ended(lab, stranger)
    await lab.spawn_as(last, 3)
    await lab.spawn_as(first, 2)
    await lab.expect(parent, looked(parent), ack(first))
    lab.never(parent, *went_on(parent))
    await lab.expect(parent, outcome(last, "succeeded"), *went_on(parent), ack(last))


@case("J06", "parent")
async def members_count(lab: Lab) -> None:
    """Of a record with members only these count, each once (Join)."""
    parent = await lab.parent()
    first, last, stranger = lab.child(parent, "square"), lab.child(parent, "square"), lab.child(parent, "raw")
    await lab.seal(parent, [first, last], members=members([first.run, last.run]))
    await ended(lab, stranger)
    await lab.spawn_as(first, 2)
    await lab.expect(parent, looked(parent), ack(first))
    lab.never(parent, *went_on(parent))
    await lab.spawn_as(last, 3)
    await lab.expect(parent, outcome(last, "succeeded"), *went_on(parent), ack(last))


async def beside(lab: Lab) -> tuple[Run, Run]:
    """Play a parent with two steps beside each other, both started, and one behind them."""
    one = await lab.parent(steps=[("one", []), ("two", []), ("end", ["one", "two"])])
    two = one.at("two")
    await lab.store_task(two, {}, {"Jf-Version": "v1"})
    return one, two


@case("J07", "parent")
async def a_borrowed_child_ends_last(lab: Lab) -> None:
    """Who finishes a step looks at the steps beside it, for they may have borrowed a child of it (Join)."""
    one, two = await beside(lab)
    child = lab.child(one, "square")
    await lab.seal(two, [child], members="", borrowed=[[child.run, "one"]])
    await lab.seal(one, [child])
    await lab.spawn_as(child, 3)
    await lab.expect(
        one,
        counted(one),
        step_outcome(one, "succeeded"),
        looked(two),
        step_outcome(two, "succeeded"),
        task(one.at("end")),
        ack(child),
    )


@case("J08", "parent")
async def a_record_is_kept_apart(lab: Lab) -> None:
    """A JoinRecord that is too large is a value, and `whole` is its reference (Records)."""
    parent = await lab.parent()
    first, last = lab.child(parent, "raw"), lab.child(parent, "square")
    record = {
        "kind": "sealed",
        "turn": 0,
        "task": lab.subject("task", **parent.tokens, turn=0),
        "needed": 2,
        "total": 2,
        "members": members([first.run, last.run]),
        "output": 17,
    }
    whole = encode(record)
    name = f"{hashed(whole)}-262144"
    await lab.broker.store(lab.subject("value", root=parent.root, digest=name, chunk=0), whole)
    apart = {name: record[name] for name in ("kind", "turn", "task", "needed", "total")}
    await lab.broker.store(lab.subject("join", **parent.tokens, turn=0), encode(apart | {"whole": f"{name}.1"}))
    await lab.broker.count(lab.subject("count", **parent.tokens), SEAL - 2)
    await ended(lab, first)
    await lab.spawn_as(last, 3)
    await lab.expect(parent, step_outcome(parent, "succeeded", output=17), task(parent.at("sum")), ack(last))


@case("J09", "parent")
async def marks_are_hints(lab: Lab) -> None:
    """A mark without an outcome, or whose run succeeded, is no failure (Join)."""
    parent = await lab.parent()
    first, last = lab.child(parent, "raw"), lab.child(parent, "square")
    for run in (first.run, new_id()):
        await lab.broker.store(lab.subject("mark", **{**first.tokens, "run": run}, status="failed"))
    await ended(lab, first)
    await lab.seal(parent, [first, last])
    await lab.spawn_as(last, 3)
    await lab.expect(parent, *went_on(parent), ack(last))


@case("J10", "parent")
async def an_excused_child_failed(lab: Lab) -> None:
    """A failed child that the step's function has seen does not fail the step (Join)."""
    parent = await lab.parent()
    first, last = lab.child(parent, "raw"), lab.child(parent, "square")
    await ended(lab, first, "failed")
    await lab.seal(parent, [first, last], members=members([first.run, last.run]), excused=[first.run])
    await lab.spawn_as(last, 3)
    await lab.expect(parent, *went_on(parent), ack(last))


@case("J11", "parent")
async def policies_decide(lab: Lab) -> None:
    """A policy says how many may fail, and how many must succeed (Policies)."""
    judged: list[tuple[dict[str, Any], int, str]] = [
        ({}, 1, "failed"),
        ({"tolerated": 1}, 1, "succeeded"),
        ({"tolerated": 1}, 2, "failed"),
        ({"fraction": 0.5}, 2, "succeeded"),
        ({"anything": True}, 3, "succeeded"),
        ({"quorum": 2, "early": True}, 2, "succeeded"),
        ({"quorum": 3, "early": True}, 2, "failed"),
    ]
    for policy, failures, status in judged:
        parent = await lab.parent()
        last = lab.child(parent, "square")
        others = [lab.child(parent, "raw") for _ in range(3)]
        for number, other in enumerate(others):
            await ended(lab, other, "failed" if number < failures else "succeeded")
        every = [*others, last]
        packed = members(one.run for one in every)
        await lab.seal(parent, every, members=packed, policy=policy, needed=policy.get("quorum", 4))
        await lab.spawn_as(last, 3)
        await lab.expect(parent, step_outcome(parent, status), ack(last))


@case("J14", "parent")
async def the_rest_is_cancelled(lab: Lab) -> None:
    """A policy with cancel_rest cancels the children that are open when it is decided (Policies)."""
    parent = await lab.parent()
    first, open_one = lab.child(parent, "square"), lab.child(parent, "raw")
    every = [first, open_one]
    policy = {"quorum": 1, "early": True, "cancel_rest": True}
    await lab.seal(parent, every, members=members(one.run for one in every), policy=policy, needed=1)
    await lab.spawn_as(open_one, 1)
    await lab.spawn_as(first, 3, Jf_Eager="1")
    await lab.expect(
        parent,
        step_outcome(parent, "succeeded"),
        cancel_mark(open_one),
        mark(open_one, "cancelled"),
        outcome(open_one, "cancelled"),
        ack(first),
    )


@case("J12", "parent")
async def two_look_at_once(lab: Lab) -> None:
    """Looking twice changes nothing: one outcome, one next task (the head of wire.md)."""
    parent = await lab.parent()
    children = [lab.child(parent, "square") for _ in range(5)]
    await lab.seal(parent, children)
    await lab.count(children[0], 5)  # so that every one of them looks
    for number, child in enumerate(children):
        await lab.spawn_as(child, number)
    for child in children:
        await lab.expect(parent, outcome(child, "succeeded"), ack(child))
    await lab.expect(parent, *went_on(parent))
    tasks = await lab.broker.subjects(lab.names.tasks, f"jf.*.task.*.sum.{parent.root}.>")
    lab.check(len(tasks) == 1, f"one task behind the join is expected: {tasks}", parent)


@case("J15", "parent")
async def the_only_step_ends_the_run(lab: Lab) -> None:
    """A complete join of the graph's only last step ends its run, which counts in the join above (Finishing, 1)."""
    parent = await lab.parent(steps=ONE_STEP, deep=True)
    child = lab.child(parent, "square")
    above = Run(parent.workflow, parent.parent_step, parent.root, NONE, NONE, parent.parent)
    await lab.seal(parent, [child], output=42)
    await lab.spawn_as(child, 3)
    await lab.expect(
        parent, counted(parent), looked(parent), outcome(parent, "succeeded", output=42), counted(above), ack(child)
    )


@case("J16", "parent")
async def several_last_steps_end_the_run(lab: Lab) -> None:
    """Behind several last steps stands the gate `_end`; the output is an object by step name (Finishing, 3)."""
    one = await lab.parent(steps=[("one", []), ("two", [])])
    done = {"status": "succeeded", "workflow": one.workflow, "step": "two", "output": "b"}
    await lab.broker.store(lab.subject("step", **one.at("two").tokens), encode(done))
    await lab.broker.count(lab.subject("gate", root=one.root, run=one.run, step=END), 1)
    child = lab.child(one, "square")
    await lab.seal(one, [child], output="a")
    await lab.spawn_as(child, 3)
    await lab.expect(
        one,
        step_outcome(one, "succeeded", output="a"),
        gate(one, END),
        outcome(one, "succeeded", output={"one": "a", "two": "b"}),
        ack(child),
    )


@case("J13", "parent")
async def it_parks_twice(lab: Lab) -> None:
    """A parked step is woken once a turn; the children of its second wait complete the second park (Join)."""
    parent = await lab.parent()
    child = lab.child(parent, "park")
    await lab.spawn_as(child, {"child": lab.of_kit("slow"), "inputs": [1, 1.1], "then": [1.2]})
    await lab.expect(
        parent,
        join(child, "parked", 0, needed=2),
        sealed(child, SEAL - 2),
        ack(child, 0),
        ack(child, 1),
        ack(child, 2),
    )
    await lab.expect(parent, task(child, 1), join(child, "parked", 1), task(child, 2))
    await lab.expect(parent, outcome(child, "succeeded", output=[1, 1, 1]), counted(parent), ack(child, 2))
    tasks = await lab.broker.subjects(
        lab.names.tasks, lab.subject("task", **{**child.tokens, "workflow": "*"}, turn="*")
    )
    lab.check(len(tasks) == 3, f"three turns are expected: {tasks}", parent)


@case("J17", "parent")
async def a_record_cannot_be_read(lab: Lab) -> None:
    """A look at a join that cannot be read ends its run: MalformedRecord (Records)."""
    parent = await lab.parent()
    child = lab.child(parent, "square")
    await lab.broker.store(lab.subject("join", **parent.tokens, turn=0), b'{"kind":"open"}')
    await lab.broker.count(lab.subject("count", **parent.tokens), SEAL - 1)
    await lab.spawn_as(child, 3)
    await lab.expect(
        parent,
        counted(parent),
        mark(parent, "failed"),
        outcome(parent, "failed", error=lambda error: error["type"] == "MalformedRecord"),
        ack(child),
    )


@case("J18", "parent")
async def a_graph_is_gone(lab: Lab) -> None:
    """A join whose graph is not stored ends its run: UnknownVersion (Records)."""
    parent = await lab.parent()
    child = lab.child(parent, "square")
    await lab.broker.purge(lab.names.workflows, lab.subject("version", workflow=parent.workflow, version="v1"))
    await lab.seal(parent, [child])
    await lab.spawn_as(child, 3)
    await lab.expect(
        parent,
        counted(parent),
        mark(parent, "failed"),
        outcome(parent, "failed", error=lambda error: error["type"] == "UnknownVersion"),
        ack(child),
    )
