"""T: a client that triggers runs and waits for their results. The driver plays the worker.

The kit's client is told what to do on standard input: see ``conformance/README.md``.
"""

from __future__ import annotations

import asyncio
import json
from time import monotonic

from conformance.expected import Expected, Run, any_of, message
from conformance.lab import Lab
from conformance.process import Refused
from conformance.suite import case
from conformance.wire import NONE, Event, digest, new_id, root_id


async def declared(lab: Lab) -> str:
    """Declare a workflow that the driver runs, and return its name."""
    await lab.declare(name := f"raw-{new_id()[:8]}")
    return name


def root(workflow: str, run: str) -> Run:
    """Return a root run."""
    return Run(workflow, "run", run, NONE, NONE, run)


def asked_for(run: Run, **headers: str) -> Expected:
    """Expect that a client asks for a root run: by its first task, or by the inbox."""
    first = message("task", workflow=run.workflow, run=run.run, parent=NONE, turn=0, headers=headers)
    return any_of(first, message("in.trigger", workflow=run.workflow))


async def refusal(lab: Lab, name: str, value: object, key: str) -> str:
    """Trigger, and return by which error it is refused; empty if it is not."""
    try:
        await lab.tested.ask("trigger", workflow=name, input=value, key=key)
    except Refused as error:
        return error.kind
    return ""


@case("T01", "client")
async def it_triggers_with_a_key(lab: Lab) -> None:
    """A key names a run: twice with the same input is one run, with another a KeyConflict (Triggers)."""
    name = await declared(lab)
    run = root(name, root_id(name, "nightly"))
    for _ in range(2):
        answer = await lab.tested.ask("trigger", workflow=name, input={"b": 1, "a": 2}, key="nightly")
        lab.check(answer["run"] == run.run, f"the key names run {run.run}, not {answer['run']}", name)
    given = digest({"a": 2, "b": 1})
    headers = {"Nats-Msg-Id": f"{run.run}.{given}", "Jf-Digest": given, "Jf-Key": json.dumps("nightly")}
    await lab.expect(name, asked_for(run, **headers))
    kind = await refusal(lab, name, {"a": 3}, "nightly")
    lab.check(kind == "KeyConflict", f"the same key with another input is a KeyConflict, not {kind or 'taken'}", name)
    tasks = await lab.broker.subjects(lab.names.tasks, f"jf.*.task.{name}.>")
    lab.check(len(tasks) == 1, f"one task is expected: {tasks}", name)


@case("T02", "client")
async def it_waits_for_a_result(lab: Lab) -> None:
    """A result is told by its live copy, or read if the run had ended before (Triggers)."""
    name = await declared(lab)
    run = root(name, (await lab.tested.ask("trigger", workflow=name, input=1))["run"])
    waiting = asyncio.create_task(lab.tested.ask("result", run=run.run))
    await asyncio.sleep(0.3)
    began = monotonic()
    await lab.end(run, output={"answer": 42})
    answer = await waiting
    lab.check(answer == {**answer, "status": "succeeded", "output": {"answer": 42}}, f"{answer} is no result", name)
    lab.check(lab.seen(run, message("live.run", way="<", run=run.run)), "the client must listen to the live copy", name)
    lab.check(monotonic() - began < 10, "the live copy must be heard", name)
    again = await lab.tested.ask("result", run=run.run)
    lab.check(again["output"] == {"answer": 42}, f"{again} is no result", name)


@case("T03", "client", alone=True)
async def a_live_copy_is_lost(lab: Lab) -> None:
    """A live copy may be lost: read what is stored now and then (Live copies)."""

    async def lose(event: Event) -> bool:
        return event.kind != "live.run"

    lab.proxy.delivered_hooks.append(lose)
    name = await declared(lab)
    run = root(name, (await lab.tested.ask("trigger", workflow=name, input=1))["run"])
    waiting = asyncio.create_task(lab.tested.ask("result", run=run.run))
    await asyncio.sleep(0.3)
    await lab.end(run, "failed")
    lab.check((await waiting)["status"] == "failed", "the result must be read", name)


@case("T04", "client")
async def it_pins_the_version(lab: Lab) -> None:
    """A run is pinned to the version that the registry bucket says, whatever it looks like (Names and tokens)."""
    name = await declared(lab)
    run = root(name, (await lab.tested.ask("trigger", workflow=name, input=1))["run"])
    await lab.expect(name, asked_for(run, **{"Jf-Version": "v1"}))


@case("T05", "client")
async def its_key_was_deleted(lab: Lab) -> None:
    """The key of a tree that was deleted within the hour is refused: RecentlyDeleted (Cancelling)."""
    name = await declared(lab)
    run = root(name, root_id(name, "gone"))
    await lab.broker.store(lab.subject("cancel", root=run.run, run=run.run), b'"deleted"')
    kind = await refusal(lab, name, 1, "gone")
    lab.check(kind == "RecentlyDeleted", f"a deleted key is RecentlyDeleted, not {kind or 'taken'}", name)


@case("T06", "client")
async def it_does_not_know_the_workflow(lab: Lab) -> None:
    """A name that nobody has declared is refused: UnknownWorkflow (Triggers)."""
    kind = await refusal(lab, name := f"raw-{new_id()[:8]}", 1, "k")
    if not lab.seen(name, message("in.trigger", workflow=name)):
        lab.check(kind == "UnknownWorkflow", f"an unknown name is UnknownWorkflow, not {kind or 'taken'}", name)


@case("T07", "client")
async def its_metadata_travel(lab: Lab) -> None:
    """Metadata are a JSON object in one header, which every descendant sees (Headers)."""
    name = await declared(lab)
    await lab.tested.ask("trigger", workflow=name, input=None, metadata={"by": "hånd"})

    def same(text: str) -> bool:
        return json.loads(text) == {"by": "hånd"}

    asked = any_of(
        message("task", workflow=name, headers={"Jf-Metadata": same}),
        message("in.trigger", workflow=name, headers={"Jf-Metadata": same}),
    )
    (sent,) = await lab.expect(name, asked)
    lab.check(sent.json is None, f"an input of nothing is null, not {sent.body!r}", name)
