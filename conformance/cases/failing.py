"""F: runs of several steps of which some do not succeed (wire.md, How a run ends).

The steps beside one that failed go on, and the run ends with the last.

The kit's ``steps``: a and b begin; c comes after a; d after a and b; e after c. ``fast`` is the same with
fail_fast and a step on failure.
"""

from __future__ import annotations

from typing import Any

from conformance.expected import (
    Run,
    ack,
    cancel_mark,
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
from conformance.wire import SEAL


async def started(lab: Lab, parent: Run, workflow: str, **given: Any) -> tuple[Run, ...]:
    """Start a run of the kit's five steps, and return it at its start, and at each step."""
    run = await lab.spawn(parent, workflow, given, step="_start")
    return run, *(run.at(step) for step in "abcde")


def not_run(because: str) -> Any:
    """Return what the error of a step that is not run must be."""
    return lambda error: error["type"] == "Cancelled" and f"'{because}'" in error["message"]


@case("F01", "parent")
async def steps_beside_a_failed_one_go_on(lab: Lab) -> None:
    """When a step fails, the steps beside it go on, and the run ends when all its last steps have."""
    parent = await lab.parent()
    run, a, b, _, d, _ = await started(lab, parent, "steps", fail=["a"], seconds={"b": 1.5})
    await lab.expect(
        parent,
        step_outcome(a, "failed", error=lambda error: error["step"] == "a"),
        ack(a),
        step_outcome(b, "succeeded"),
        step_outcome(d, "cancelled"),
        mark(run, "failed"),
        outcome(run, "failed"),
        counted(parent),
        ack(b),
    )


@case("F02", "parent")
async def a_step_behind_is_stored_as_cancelled(lab: Lab) -> None:
    """What stands behind a failed step is not run: its Outcome is `cancelled`, and so on behind it."""
    parent = await lab.parent()
    _, a, _, c, _, e = await started(lab, parent, "steps", fail=["a"], seconds={"b": 0.5})
    await lab.expect(
        parent,
        step_outcome(a, "failed"),
        step_outcome(c, "cancelled", step="c", error=not_run("a")),
        step_outcome(e, "cancelled", step="e", error=not_run("c")),
        ack(a),
    )
    lab.never(parent, task(c), task(e))


@case("F03", "parent")
async def a_failed_run_tells_all_errors(lab: Lab) -> None:
    """A failed run tells the errors of all its steps, in the order of the graph; the first is its own."""
    parent = await lab.parent()
    run, *_ = await started(lab, parent, "steps", fail=["a", "b"], seconds={"a": 0.4})
    (ended,) = await lab.expect(parent, outcome(run, "failed", step="a", error=lambda error: error["step"] == "a"))
    steps = [error["step"] for error in ended.field("errors")]
    lab.check(steps == ["a", "b"], f"errors of a and b, in this order, are expected, not of {steps}", parent)
    lab.check(ended.field("errors")[0] == ended.field("error"), "`error` is the first of `errors`", parent)


@case("F04", "parent")
async def a_gate_waits_for_all(lab: Lab) -> None:
    """A gate of two is passed when both have ended, however; one that failed cancels what is behind."""
    parent = await lab.parent()
    run, a, b, _, d, _ = await started(lab, parent, "steps", fail=["b"], seconds={"a": 2})
    await lab.expect(parent, step_outcome(b, "failed"), gate(run, "d"), ack(b))
    lab.never(parent, step_outcome(d, "cancelled"))
    await lab.expect(parent, step_outcome(a, "succeeded"), step_outcome(d, "cancelled", error=not_run("b")), ack(a))
    lab.never(parent, task(d))
    lab.check(sum(one.by for one in lab.seen(parent, gate(run, "d"))) == 2, "a and b count once each", parent)


@case("F05", "parent")
async def the_first_failure_ends_the_run(lab: Lab) -> None:
    """With fail_fast the first failed step ends the run, which is then cancelled as a client does."""
    parent = await lab.parent()
    run, a, b, *_ = await started(lab, parent, "fast", fail=["a"], seconds={"b": 30, "a": 0.3})
    undo = run.at("undo")
    *_, marked, _, _ = await lab.expect(
        parent,
        step_outcome(a, "failed"),
        mark(run, "failed"),
        outcome(run, "failed", error=lambda error: error["step"] == "a"),
        counted(parent),
        cancel_mark(run),
        task(undo),
        ack(a),
    )
    lab.check(marked.body == b'"rest but undo"', f"the mark spares the step on failure, not {marked.body!r}", parent)
    await lab.expect(parent, step_outcome(undo, "succeeded", output=["a"]), ack(undo))
    await lab.expect(parent, cancel_mark(run), ack(b))
    lab.never(parent, outcome(run, "cancelled"), message("step", step="b"), task(run.at("c")))


@case("F06", "parent")
async def the_failure_step_runs_once(lab: Lab) -> None:
    """on_failure starts when the run has ended, once, however many steps failed; it is told all errors."""
    parent = await lab.parent()
    run = await lab.spawn(parent, "saga", {"fail": ["one", "two"], "seconds": {"two": 1}}, step="_start")
    undo = run.at("undo")
    await lab.expect(
        parent,
        step_outcome(run.at("one"), "failed"),
        step_outcome(run.at("two"), "failed"),
        outcome(run, "failed"),
        counted(parent),
        task(undo),
        step_outcome(undo, "succeeded", output=["one", "two"]),
    )
    lab.check(len(lab.seen(parent, delivered(undo))) == 1, "it runs once", parent)


@case("F07", "parent")
async def the_only_last_step_is_not_run(lab: Lab) -> None:
    """An only last step that is not run gets an Outcome as well, and the run fails by its first error."""
    parent = await lab.parent()
    run = await lab.spawn(parent, "fan", {"child": "nobody-declared", "inputs": [1]}, step="scatter")
    await lab.expect(
        parent,
        step_outcome(run, "failed"),
        step_outcome(run.at("sum"), "cancelled", error=not_run("scatter")),
        mark(run, "failed"),
        outcome(run, "failed", step="scatter", error=lambda error: error["step"] == "scatter"),
        counted(parent),
        within=20,
    )
    lab.never(parent, task(run.at("sum")))


@case("F08", "parent")
async def a_failed_step_had_spawned(lab: Lab) -> None:
    """A step that failed and may have spawned seals an empty join, for others may have borrowed from it."""
    given = {"child": lab.of_kit("square"), "inputs": [1], "again": [2], "fails": 2}
    run = await lab.trigger("late", given, step="scatter")
    await lab.expect(
        run,
        join(run, "sealed", 1, needed=0, members="", status="failed", error=lambda error: error["step"] == "scatter"),
        sealed(run, SEAL),
        step_outcome(run, "failed", attempt=2),
        outcome(run, "failed"),
    )
    await lab.expect(run, sealed(run, SEAL), ack(run, 1))


async def redelivered(lab: Lab, workflow: str, parent: Run) -> Run:
    """Deliver step a of a run again whose Outcome `failed` is stored, and return it."""
    a = lab.child(parent, workflow, "a")
    lab.lost_before(f".a.{a.root}.{a.parent}.{a.run}")
    failed = {"status": "failed", "step": "a", "error": {"type": "Lost", "message": "before", "step": "a"}}
    await lab.broker.store(lab.subject("step", **a.tokens), encode(failed))
    await lab.spawn_as(a, {})
    return a


@case("F09", "parent")
async def a_failure_is_redelivered(lab: Lab) -> None:
    """A redelivered step that failed goes on behind its stored Outcome, and runs nothing (Running, 2)."""
    parent = await lab.parent()
    a = await redelivered(lab, "steps", parent)
    c, e = a.at("c"), a.at("e")
    await lab.expect(
        parent, step_outcome(c, "cancelled"), step_outcome(e, "cancelled"), gate(a, "d"), ack(a, delivery=2)
    )
    lab.never(parent, outcome(a, "failed"), step_outcome(a, "succeeded"))


@case("F10", "parent")
async def a_fast_failure_is_redelivered(lab: Lab) -> None:
    """A redelivered step that failed with fail_fast ends and cancels the run again."""
    parent = await lab.parent()
    a = await redelivered(lab, "fast", parent)
    await lab.expect(
        parent, mark(a, "failed"), outcome(a, "failed"), counted(parent), cancel_mark(a), ack(a, delivery=2)
    )


@case("F11", "parent")
async def a_step_comes_too_late(lab: Lab) -> None:
    """A step that times out is no worse than one that failed: the run is timed_out, and what is behind cancelled."""
    parent = await lab.parent()
    a = lab.child(parent, "steps", "a")
    done = {"status": "succeeded", "step": "b", "output": "b"}
    await lab.broker.store(lab.subject("step", **a.at("b").tokens), encode(done))
    await lab.broker.count(lab.subject("gate", root=a.root, run=a.run, step="d"), 1)
    await lab.spawn_as(a, {}, Jf_Deadline="1000000000.000")
    await lab.expect(
        parent,
        step_outcome(a, "timed_out", error=lambda error: error["type"] == "RunTimeout"),
        step_outcome(a.at("c"), "cancelled"),
        mark(a, "timed_out"),
        outcome(a, "timed_out"),
        counted(parent),
        ack(a),
    )


@case("F12", "parent")
async def steps_of_a_stored_failure(lab: Lab) -> None:
    """A look that completes the join of a failed step cancels what is behind it."""
    parent = await lab.parent()
    child = lab.child(parent, "fail")
    await lab.seal(parent, [child])
    await lab.spawn_as(child, 3)
    await lab.expect(
        parent,
        mark(child, "failed"),
        counted(parent),
        step_outcome(parent, "failed", error=lambda error: error["type"] == "ChildrenFailed"),
        step_outcome(parent.at("sum"), "cancelled", error=not_run("scatter")),
        mark(parent, "failed"),
        outcome(parent, "failed"),
        ack(child),
    )


@case("F13", "parent")
async def what_a_fast_failure_leaves(lab: Lab) -> None:
    """Cancelling what is left of a run that fails fast ends the open children of its steps (Cancelling)."""
    parent = await lab.parent()
    run, a, b, *_ = await started(lab, parent, "fast", fail=["a"], seconds={"b": 30, "a": 1.5})
    await lab.expect(parent, delivered(b))
    child = await lab.spawn(b, "slow", 30)
    await lab.expect(
        parent,
        outcome(run, "failed"),
        cancel_mark(run),
        cancel_mark(child),
        mark(child, "cancelled"),
        outcome(child, "cancelled"),
        ack(a),
    )
