"""I and G: what every full worker does for all: takes triggers from the inbox, sweeps, and goes on behind the end."""

from __future__ import annotations

from time import time
from typing import Any

from conformance.expected import Run, ack, counted, message, outcome, step_outcome, task
from conformance.lab import Lab
from conformance.suite import case
from conformance.wire import NONE, canonical, digest, new_id, root_id


async def trigger(lab: Lab, workflow: str, body: bytes, run: str = "", **headers: str) -> Run:
    """Trigger by the inbox, and return the run that was asked for."""
    run = run or new_id()
    named = {"Jf-Run": run} | {f"Jf-{name.capitalize()}": value for name, value in headers.items()}
    await lab.broker.store(lab.subject("in.trigger", workflow=workflow), body, named)
    return Run(workflow, "run", run, NONE, NONE, run)


@case("I01", "full")
async def a_trigger_becomes_a_task(lab: Lab) -> None:
    """A trigger's body is made canonical; its run is Jf-Run, or of its key, or of its place (Triggers)."""
    name, body, value = lab.of_kit("echo"), b' { "b" : 1,\n"a": [ ] }', {"a": [], "b": 1}
    for run, headers in (
        (new_id(), {}),
        (root_id(name, key := new_id()), {"Jf-Key": key}),
    ):
        named = headers or {"Jf-Run": run}
        await lab.broker.store(lab.subject("in.trigger", workflow=name), body, named)
        made = Run(name, "run", run, NONE, NONE, run)
        wanted = {"Jf-Digest": digest(value), "Nats-Msg-Id": f"{run}.{digest(value)}"}
        (sent,) = await lab.expect(made, task(made, headers=wanted))
        lab.check(sent.body == canonical(value), f"the body is {sent.body!r}", made)
        await lab.expect(made, outcome(made, "succeeded", output=value), ack(made))
    before = lab.now
    await lab.broker.store(lab.subject("in.trigger", workflow=name), b"", {"Jf-Metadata": '{"lone":1}'})
    (sent,) = await lab.expect(f".task.{name}.", message("task", headers={"Jf-Metadata": '{"lone":1}'}), since=before)
    lab.check(sent.json is None and len(sent.fields["run"]) == 32, "an empty body is null; the run has an id")


@case("I02", "full")
async def a_trigger_is_no_json(lab: Lab) -> None:
    """A body that is not JSON, or metadata that are no object, become a run that fails as InvalidInput (Triggers)."""

    def invalid(error: Any) -> bool:
        return error["type"] == "InvalidInput"

    run = await trigger(lab, lab.of_kit("square"), b"not json")
    await lab.expect(run, message("mark", run=run.run, status="failed"), outcome(run, "failed", error=invalid))
    run = await trigger(lab, lab.of_kit("square"), b"1", metadata="[1]")
    await lab.expect(run, message("mark", run=run.run, status="failed"), outcome(run, "failed", error=invalid))


@case("I03", "full")
async def a_trigger_of_nothing(lab: Lab) -> None:
    """A workflow that nobody has declared becomes a run that failed as UnknownWorkflow, without a task (Triggers)."""
    run = await trigger(lab, f"nobody-{new_id()[:6]}", b"1")
    await lab.expect(run, outcome(run, "failed", error=lambda error: error["type"] == "UnknownWorkflow"))
    lab.never(run, message("task"))


@case("I04", "full")
async def a_trigger_of_a_run_that_exists(lab: Lab) -> None:
    """A trigger that fails never ends a run that exists under its id; another input changes nothing (Triggers)."""
    name = lab.of_kit("slow")
    run = await trigger(lab, name, b"2")
    await lab.expect(run, task(run))
    await trigger(lab, f"nobody-{new_id()[:6]}", b"1", run=run.run)
    await trigger(lab, name, b"1", run=run.run, metadata="not json")
    await trigger(lab, name, b"0", run=run.run)
    await lab.expect(run, outcome(run, "succeeded", output=1), ack(run))
    lab.never(run, outcome(run, "failed"))


@case("I05", "full")
async def somebody_asks_for_a_look(lab: Lab) -> None:
    """A simple worker asks for a look, and a full worker looks: the join is complete (A simple worker)."""
    parent = await lab.parent()
    child = lab.child(parent, "raw")
    await lab.seal(parent, [child])
    await lab.end(child)
    await lab.broker.store(lab.subject("in.look", **parent.tokens))
    await lab.expect(parent, step_outcome(parent, "succeeded"), task(parent.at("sum")))


@case("I06", "full")
async def a_message_that_is_none(lab: Lab) -> None:
    """What no rule of the inbox is for is terminated: it must not come back for ever."""
    subject = f"jf.{lab.names.namespace}.in.look.{new_id()}.not-an-id.run"
    await lab.broker.store(subject)
    await lab.expect(subject, message("term"))


@case("I07", "full")
async def a_run_has_a_level(lab: Lab) -> None:
    """The tasks of a run stand in the queue of the level that its first task tells, in every turn (Levels of runs)."""
    name = lab.of_kit("leveled")
    for told, level in (("urgent", "urgent"), ("low", "low"), (None, "normal")):
        run = await trigger(lab, name, b"0", **({} if told is None else {"level": told}))
        asked = task(run.at("_admit"), headers={"Jf-Level": told})
        queued = task(run.at(f"run={level}"), headers={"Jf-Level": level})
        await lab.expect(run, asked, queued, outcome(run, "succeeded", output=1))
        lab.never(run, message("task", step="run", run=run.run))
    run = await trigger(lab, name, b"1", level="urgent")
    queue = run.at("run=urgent")
    await lab.expect(
        run, task(queue), task(queue, 1, headers={"Jf-Level": "urgent"}), outcome(run, "succeeded", output=2)
    )
    run = await trigger(lab, name, b"0", level="hurry")
    await lab.expect(run, outcome(run, "failed", error=lambda error: error["type"] == "UnknownLevel"))


@case("G01", "full", SWEEP_EVERY="1")
async def nobody_has_looked(lab: Lab) -> None:
    """A worker sweeps: a join whose outcomes are all there, and at which nobody has looked, goes on (Join)."""
    parent = await lab.parent()
    child = lab.child(parent, "raw")
    await lab.end(child)
    await lab.seal(parent, [child])
    await lab.expect(parent, step_outcome(parent, "succeeded"), task(parent.at("sum")))


@case("G02", "full")
async def its_success_step_runs(lab: Lab) -> None:
    """The on_success step starts when the run that has succeeded is counted; it changes the run no more."""
    parent = await lab.parent()
    run = await lab.spawn(parent, "cheered", {}, step="one", Jf_Deadline=f"{time() + 60:.3f}")
    cheer = run.at("cheer")
    await lab.expect(
        parent,
        outcome(run, "succeeded", output="two"),
        counted(parent),
        task(cheer, headers={"Nats-Msg-Id": f"{run.run}.cheer.0", "Jf-Deadline": None}),
        step_outcome(cheer, "succeeded", output=["one", "two"]),
        ack(cheer),
    )
    other = await lab.parent()
    failed = await lab.spawn(other, "cheered", {"fail": ["one"]}, step="one")
    await lab.expect(other, outcome(failed, "failed"), counted(other))
    lab.never(other, task(failed.at("cheer")))
