"""E: events start runs, and wake the steps that wait for them (Events, Waiting for events)."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from datetime import datetime
from time import time
from typing import Any

from conformance.expected import (
    Expected,
    Run,
    ack,
    counted,
    event,
    join,
    mark,
    message,
    outcome,
    purged,
    recorded,
    stands,
    task,
    timer,
)
from conformance.lab import Lab, encode
from conformance.suite import case
from conformance.wire import NONE, digest, hashed, new_id

NEWS = "conf.news"
PAID = "conf.paid"


async def publish(lab: Lab, key: str, topic: str, payload: Any, id: str = "") -> int:
    """Publish an event as any client does, and return its place in the stream."""
    return await lab.broker.store(
        lab.subject("event", key=key, topic=topic), encode(payload), {"Nats-Msg-Id": id} if id else {}
    )


def started_by(lab: Lab, id: str) -> Run:
    """Return the run that an event starts."""
    name = lab.of_kit("paid")
    run = hashed(f"-\n{name}\nevent\n{id}".encode())
    return Run(name, "run", run, NONE, NONE, run)


def handled(lab: Lab, key: str) -> Expected:
    """Expect that the event with a key is acknowledged by whoever starts runs for it."""
    return message("ack", key=key, topic=PAID, consumer=f"on={lab.of_kit('paid')}")


def given_to_waits(key: str, topic: str = NEWS) -> Expected:
    """Expect that an event is acknowledged by whoever wakes steps."""
    return message("ack", key=key, topic=topic, consumer="waits")


# --- starting runs


@case("E01", "full")
async def an_event_starts_a_run(lab: Lab) -> None:
    """An event starts one run, whose id is of the workflow and the event's id; then it is acknowledged (Events)."""
    id = f"{PAID}/{new_id()}"
    run = started_by(lab, id)
    key = run.run  # so that the event stands in the log of its run's tree
    sequence = await publish(lab, key, PAID, {"amount": 20}, id)
    told = {"id": id, "topic": PAID, "key": key, "sequence": sequence}
    headers = {
        "Jf-Digest": digest({"amount": 20}),
        "Jf-Metadata": lambda text: json.loads(text)["jetflow_event"] == told,
    }
    await lab.expect(run, event(key, PAID), task(run, headers=headers), handled(lab, key))
    await lab.expect(run, outcome(run, "succeeded", output=20), ack(run))
    (sent,) = lab.seen(run, task(run))
    lab.check("Jf-Key" not in sent.headers, "a run of an event has no key", run)


@case("E02", "full")
async def an_event_without_an_id(lab: Lab) -> None:
    """The id of an event without a message id is its sequence and the whole seconds of its time (Events)."""
    sequence = await publish(lab, new_id(), PAID, {"amount": 21})
    asked = {"seq": sequence}
    stored = (await lab.broker.api(f"STREAM.MSG.GET.{lab.names.events}", asked))["message"]["time"]
    seconds = int(datetime.fromisoformat(f"{stored[:19]}+00:00").timestamp())
    run = started_by(lab, f"{sequence}.{seconds}")
    await lab.expect(run, task(run), outcome(run, "succeeded", output=21), ack(run))


@case("E03", "full")
async def an_event_that_does_not_fit(lab: Lab) -> None:
    """An event whose conditions do not hold is acknowledged, and starts nothing (Events)."""
    for payload in ({"amount": 5}, {"amount": "20"}, {"amount": True}, {}, None):
        id = f"{PAID}/{new_id()}"
        run = started_by(lab, id)
        await publish(lab, run.run, PAID, payload, id)
        await lab.expect(run, handled(lab, run.run))
        lab.never(run, message("task"), message("run"))


@case("E04", "full")
async def an_event_that_is_no_input(lab: Lab) -> None:
    """An event whose payload is no input becomes a run that failed as InvalidInput, then +ACK (Events)."""
    id = f"{PAID}/{new_id()}"
    run = started_by(lab, id)
    await publish(lab, run.run, PAID, {"amount": 20.5}, id)
    await lab.expect(
        run,
        mark(run, "failed"),
        outcome(run, "failed", error=lambda error: error["type"] == "InvalidInput"),
        handled(lab, run.run),
    )
    lab.never(run, message("task"))


# --- waking steps


def waits_for(topic: str, **fields: Any) -> Callable[[Any], bool]:
    """Return what tells whether the waits of a record are this one."""

    def holds(waits: Any) -> bool:
        (wait,) = waits
        return bool(wait["topic"] == topic and all(wait.get(name) == value for name, value in fields.items()))

    return holds


async def parked(lab: Lab, parent: Run, **wanted: Any) -> Run:
    """Spawn a child that waits for events with the key of its tree, and return it when it is parked."""
    child = await lab.spawn(parent, "wait", {"topic": NEWS, "key": parent.root, **wanted})
    await lab.expect(parent, join(child, "parked"), stands(child), ack(child, 0))
    return child


def taken(run: Run, which: int, sequence: int, payload: Any) -> Expected:
    """Expect that a step records which event has ended its wait."""

    def holds(value: Any) -> bool:
        said = {"which": which, "sequence": sequence, "payload": payload}
        return all(value[name] == wanted for name, wanted in said.items()) and bool(value["id"] and value["at"])

    return recorded(run, f"event {sequence}", holds)


@case("E10", "full")
async def a_step_waits_for_an_event(lab: Lab) -> None:
    """A step that waits: parked record, wait, one more look, then +ACK; it is not counted (Waiting for events, 2)."""
    parent = await lab.parent()
    child = await lab.spawn(parent, "wait", {"topic": NEWS, "key": parent.root})
    record, stood, acked = await lab.expect(
        parent,
        join(child, "parked", needed=0, until=None, waits=waits_for(NEWS, key=parent.root)),
        stands(child, topic="conf=news", key=parent.root, n="all-0"),
        ack(child, delivery=1),
    )
    lab.check(stood.json == record.field("waits")[0], "the wait says what the record says", parent)
    looks = lab.seen(parent, message("get", key=parent.root, topic=NEWS))
    again = any(stood.number < look.number < acked.number for look in looks)
    lab.check(again, "it must look once more behind the wait: an event may have come before it stood", parent)
    lab.never(parent, message("count", run=child.run), task(child, 1), outcome(child, "succeeded"))


@case("E11", "full")
async def an_event_wakes_all_that_wait(lab: Lab) -> None:
    """An event wakes who waits for its key, and who waits for any: the next turns, then the waits go, then +ACK."""
    parent = await lab.parent()
    topic = f"conf.{new_id()[:8]}"  # of this case alone, for one waits for any key
    children = [await lab.spawn(parent, "wait", {"topic": topic, "key": key}) for key in (parent.root, None)]
    for child, key in zip(children, (parent.root, "="), strict=True):
        await lab.expect(parent, stands(child, key=key), ack(child, 0))
    sequence = await publish(lab, parent.root, topic, {"news": 1}, f"{topic}/1")
    for child in children:
        headers = {"Nats-Msg-Id": f"{child.run}.run.1", "Jf-Parent-Step": "scatter"}
        gone = purged("wait", f"{parent.root}.{parent.run}.{child.run}")
        await lab.expect(
            parent, event(parent.root, topic), task(child, 1, headers=headers), given_to_waits(parent.root, topic)
        )
        await lab.expect(
            parent, taken(child, 0, sequence, {"news": 1}), outcome(child, "succeeded", output=[{"news": 1}], attempt=1)
        )
        await lab.expect(parent, task(child, 1), gone, given_to_waits(parent.root, topic))
        await lab.expect(parent, counted(parent), ack(child, 1))


@case("E12", "full")
async def early_events_are_found(lab: Lab) -> None:
    """An event that is stored before it is waited for is found; each is taken once, and in order (1)."""
    parent = await lab.parent()
    child = lab.child(parent, "wait")
    begins = f"{time() + 2:.3f}"
    await lab.spawn_as(child, {"topic": NEWS, "key": parent.root, "n": 2}, Jf_Not_Before=begins)
    await lab.expect(parent, timer(child), ack(child, 0))
    first = await publish(lab, parent.root, NEWS, "first", new_id())
    second = await publish(lab, parent.root, NEWS, "second", new_id())
    await lab.expect(
        parent,
        task(child, 1),
        taken(child, 0, first, "first"),
        taken(child, 0, second, "second"),
        outcome(child, "succeeded", output=["first", "second"]),
        ack(child, 1),
    )
    lab.never(parent, stands(child, 1))


@case("E13", "full")
async def its_time_is_over(lab: Lab) -> None:
    """A wait with a time has a timer beside it; that it was over is recorded once, as {} (1, 2)."""
    parent = await lab.parent()
    child = await lab.spawn(parent, "wait", {"topic": NEWS, "key": parent.root, "seconds": 1.5})
    await lab.expect(parent, join(child, "parked", needed=0, until=bool), timer(child), ack(child, 0))
    await lab.expect(
        parent,
        stands(child, n="all-timed-0"),
        ack(child, 0),
        task(child, 1),
        recorded(child, "nothing came", lambda value: value == {}),
        outcome(child, "succeeded", output=[None], attempt=1),
        ack(child, 1),
    )


@case("E14", "full")
async def an_event_is_before_the_time(lab: Lab) -> None:
    """Who wakes a turn that has a timer removes that, too (3)."""
    parent = await lab.parent()
    child = await parked(lab, parent, seconds=40)
    await publish(lab, parent.root, NEWS, 1, new_id())
    await lab.expect(parent, task(child, 1), message("purge", step="run", run=child.run, turn=0))
    await lab.expect(parent, outcome(child, "succeeded", output=[1]), ack(child, 1))
    left = await lab.broker.subjects(lab.names.timers, f"jf.*.timer.wake.*.*.{parent.root}.>")
    lab.check(not left, f"timers are left: {left}", parent)


@case("E15", "full")
async def a_wait_has_conditions(lab: Lab) -> None:
    """An event whose conditions do not hold wakes nobody, and is acknowledged (3)."""
    parent = await lab.parent()
    child = await lab.spawn(parent, "wait", {"topic": NEWS, "key": parent.root, "above": 10})
    await lab.expect(parent, stands(child, n="if-0"), ack(child, 0))
    (stood,) = lab.seen(parent, stands(child))
    lab.check(stood.json["if"] == [["amount", ">", 10]], "the wait says its conditions", parent)
    await publish(lab, parent.root, NEWS, {"amount": 10}, new_id())
    await lab.expect(parent, given_to_waits(parent.root))
    lab.never(parent, task(child, 1), purged("wait", parent.root))
    sequence = await publish(lab, parent.root, NEWS, {"amount": 11}, new_id())
    await lab.expect(parent, task(child, 1), taken(child, 0, sequence, {"amount": 11}), ack(child, 1))


async def parked_before(lab: Lab, parent: Run, topic: str, meanwhile: Callable[[], Awaitable[object]]) -> Run:
    """Have a turn delivered whose worker was lost behind its parked record, and before its wait stood."""
    child = lab.child(parent, "wait")
    lab.lost_before(f"{child.run}.0")
    wait = {"topic": topic, "key": parent.root, "since": time() - 10}
    record = {
        "kind": "parked",
        "turn": 0,
        "task": lab.subject("task", **child.tokens, turn=0),
        "needed": 0,
        "waits": [wait],
    }
    await lab.broker.store(lab.subject("join", **child.tokens, turn=0), encode(record))
    await meanwhile()
    await lab.spawn_as(child, {"topic": topic, "key": parent.root})
    return child


@case("E16", "full")
async def a_waiting_turn_is_redelivered(lab: Lab) -> None:
    """A redelivered turn that waits stores its waits again, and looks; what has come wakes it at once (2)."""
    parent = await lab.parent()
    await parked(lab, parent)  # so that the streams are there

    async def nothing() -> None: ...

    child = await parked_before(lab, parent, "conf.later", nothing)
    stood, acked = await lab.expect(parent, stands(child, n="all-0"), ack(child, delivery=2))
    looks = lab.seen(parent, message("get", key=parent.root, topic="conf.later"))
    again = any(stood.number < look.number < acked.number for look in looks)
    lab.check(again, "it must look behind the wait", parent)
    child = await parked_before(
        lab, parent, "conf.earlier", lambda: publish(lab, parent.root, "conf.earlier", "early", new_id())
    )
    await lab.expect(parent, stands(child), task(child, 1), ack(child, 0, delivery=2))
    await lab.expect(parent, outcome(child, "succeeded", output=["early"]), ack(child, 1))


@case("E17", "full")
async def it_waits_in_a_run_that_ended(lab: Lab) -> None:
    """An event wakes no step of a run that has ended (3)."""
    parent = await lab.parent()
    child = await parked(lab, parent)
    await lab.end(child)
    await publish(lab, parent.root, NEWS, 1, new_id())
    await lab.expect(parent, given_to_waits(parent.root))
    lab.never(parent, task(child, 1))


@case("E18", "full", alone=True)
async def killed_before_the_wait(lab: Lab) -> None:
    """A worker dies between parking a turn and storing its wait: the redelivery stores it, and runs nothing (2)."""
    parent = await lab.parent()
    child = lab.child(parent, "wait")
    died = await lab.killed_at(stands(child), lab.spawn_as(child, {"topic": NEWS, "key": parent.root}), parent)
    await lab.expect(parent, stands(child), ack(child, 0), within=20, since=died)
    lab.check(len(lab.seen(parent, join(child, "parked"))) == 1, "it is parked once", parent)
    await publish(lab, parent.root, NEWS, 1, new_id())
    await lab.expect(parent, task(child, 1), outcome(child, "succeeded", output=[1], attempt=1))
