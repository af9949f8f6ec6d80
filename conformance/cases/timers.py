"""R: waiting for times. A step that waits is parked, and a timer of the broker wakes it (Timers)."""

from __future__ import annotations

from datetime import datetime
from time import time
from typing import Any

from conformance.expected import (
    Run,
    ack,
    any_of,
    attempt,
    counted,
    delivered,
    join,
    message,
    nak,
    outcome,
    sealed,
    task,
    timer,
)
from conformance.lab import Lab, encode
from conformance.suite import case
from conformance.wire import SEAL, Event


def at(event: Event) -> float:
    """Return when a timer is due, in seconds since the epoch."""
    return datetime.fromisoformat(event.headers["Nats-Schedule"].removeprefix("@at ")).timestamp()


def parked_until(run: Run, until: float, tried: int) -> dict[str, Any]:
    """Return the record of a turn 0 whose attempt failed."""
    return {
        "kind": "parked",
        "turn": 0,
        "task": f"jf.conf.task.{run.workflow}.run.{run.root}.{run.parent}.{run.run}.0",
        "needed": 0,
        "until": until,
        "tried": tried,
    }


@case("R01", "parent")
async def a_failed_attempt_is_parked(lab: Lab) -> None:
    """A failed attempt: Attempt, parked record, timer, and then +ACK; the task is not handed back (Running, 4)."""
    parent = await lab.parent()
    child = await lab.spawn(parent, "again", {"seconds": 30})
    due = lab.subject("due", **child.tokens, turn=0)
    headers = {"Nats-Schedule-Target": due, "Jf-Attempt": "1"}
    tried, parked, armed, _ = await lab.expect(
        parent,
        attempt(child, attempt=1, returned=False, error=lambda error: error["type"] and error["message"]),
        join(child, "parked", needed=0, tried=1),
        timer(child, headers=headers),
        ack(child, delivery=1),
    )
    until = parked.field("until")
    lab.check(25 < until - time() < 31, f"it is parked until {until}: 30 s are asked for", parent)
    lab.check(abs(tried.field("again") - until) < 0.01, "the Attempt says when the next one is due: `again`", parent)
    lab.check(0 <= at(armed) - until < 0.01, "the timer is armed for this time, rounded up to a millisecond", parent)
    lab.check(not armed.body, "a timer has no body", parent)
    lab.never(parent, nak(child), counted(child), outcome(child, "failed"))


@case("R02", "full")
async def the_next_turn_counts_it(lab: Lab) -> None:
    """The timer becomes a due message, and that the task of the next turn, with Jf-Attempt (Timers)."""
    parent = await lab.parent()
    child = await lab.spawn(parent, "again", {"seconds": 2.5, "fails": 2})
    await lab.expect(
        parent,
        timer(child, 0, headers={"Jf-Attempt": "1"}),
        ack(child, 0),
        message("due", way="<", run=child.run, turn=0, headers={"Jf-Attempt": "1"}),
        task(child, 1, headers={"Jf-Attempt": "1", "Nats-Msg-Id": f"{child.run}.run.1", "Jf-Parent-Step": "scatter"}),
        timer(child, 1, headers={"Jf-Attempt": "2"}),
        task(child, 2, headers={"Jf-Attempt": "2"}),
        outcome(child, "succeeded", output=3, attempt=3),
        counted(parent),
        ack(child, 2),
    )
    began, next_one = lab.seen(parent, delivered(child))[0], lab.seen(parent, task(child, 1))[0]
    lab.check(next_one.at - began.at >= 2.5, "the next turn came too early", parent)


@case("R03", "parent")
async def a_parked_turn_is_redelivered(lab: Lab) -> None:
    """A redelivered task whose turn is parked for a time arms its timer again, and runs nothing (Running, 2)."""
    parent = await lab.parent()
    child = lab.child(parent, "again")
    lab.lost_before(f"{child.run}.0")
    until = round(time() + 20, 3)
    await lab.broker.store(lab.subject("join", **child.tokens, turn=0), encode(parked_until(child, until, 1)))
    await lab.spawn_as(child, {"seconds": 9})
    armed, _ = await lab.expect(parent, timer(child, headers={"Jf-Attempt": "1"}), ack(child, delivery=2))
    lab.check(0 <= at(armed) - until < 0.01, "it is armed for the time in the record", parent)
    lab.never(parent, message("try"), counted(child), outcome(child, "succeeded"))


@case("R04", "full")
async def a_due_message_comes_twice(lab: Lab) -> None:
    """A due message that comes twice is one next turn: the task is write-once (Timers)."""
    parent = await lab.parent()
    child = await lab.spawn(parent, "again", {"seconds": 30, "fails": 1})
    await lab.expect(parent, timer(child), ack(child))
    due = lab.subject("due", **child.tokens, turn=0)
    for _ in range(2):
        await lab.broker.store(due, headers={"Jf-Attempt": "1"})
    await lab.expect(parent, outcome(child, "succeeded", output=2), ack(child, 1))
    await lab.eventually(lambda: _acknowledged(lab, due, 2), "both due messages must be acknowledged")
    came = lab.seen(parent, delivered(child, 1))
    lab.check(len(came) == 1, f"the next turn was delivered {len(came)} times", parent)


async def _acknowledged(lab: Lab, subject: str, times: int) -> bool:
    return len(lab.seen(subject, message("ack"))) >= times


@case("R05", "full")
async def a_timer_of_a_run_that_ended(lab: Lab) -> None:
    """A due message of a run that has ended, or whose task is gone, is only acknowledged (Timers)."""
    parent = await lab.parent()
    ended, gone = lab.child(parent, "again"), lab.child(parent, "again")
    await lab.spawn_as(ended, {"seconds": 30})
    await lab.expect(parent, timer(ended), ack(ended))
    await lab.end(ended)
    for child in (ended, gone):
        due = lab.subject("due", **child.tokens, turn=0)
        await lab.broker.store(due)
        await lab.expect(due, message("ack"))
        lab.never(parent, task(child, 1))


@case("R06", "full")
async def a_cancelled_run_has_no_timer(lab: Lab) -> None:
    """Who cancels a run purges its timers, and those of its tree (Cancelling)."""
    parent = await lab.parent()
    child = await lab.spawn(parent, "again", {"seconds": 40})
    await lab.expect(parent, timer(child), ack(child))
    await lab.tested.ask("cancel", run=child.run)
    await lab.expect(parent, outcome(child, "cancelled"), counted(parent))
    left = await lab.broker.subjects(lab.names.timers, f"jf.*.timer.wake.*.*.{parent.root}.>")
    lab.check(not left, f"timers are left: {left}", parent)


def bounded(lab: Lab, inputs: list[float], seconds: float) -> dict[str, Any]:
    """Return an input for the kit's join with a deadline."""
    return {"child": lab.of_kit("slow"), "inputs": inputs, "seconds": seconds}


@case("R07", "full")
async def a_join_has_a_deadline(lab: Lab) -> None:
    """A join with a deadline parks: record, timer, count, ack; its time wakes it (Timers)."""
    parent = await lab.parent()
    run = await lab.spawn(parent, "bounded", bounded(lab, [0.1, 30], 4))
    parked, *_ = await lab.expect(
        parent,
        join(run, "parked", needed=lambda needed: needed > 0, until=bool),
        timer(run),
        sealed(run, SEAL - 2),
        ack(run, delivery=1),
        task(run, 1),
        outcome(run, "succeeded", output=1, attempt=1),
        ack(run, 1),
    )
    armed = lab.seen(parent, timer(run))[0]
    lab.check(0 <= at(armed) - parked.field("until") < 0.01, "the timer is armed for the time in the record", parent)


@case("R08", "full")
async def a_join_is_woken_before_its_deadline(lab: Lab) -> None:
    """Who wakes a bounded join by its children purges its timer (Timers)."""
    parent = await lab.parent()
    run = await lab.spawn(parent, "bounded", bounded(lab, [1.5, 1.6], 40))
    purged = message("purge", step="run", run=run.run, turn=0)
    await lab.expect(parent, timer(run), ack(run), task(run, 1), purged)
    await lab.expect(parent, outcome(run, "succeeded", output=2), ack(run, 1))
    left = await lab.broker.subjects(lab.names.timers, f"jf.*.timer.wake.*.*.{parent.root}.>")
    lab.check(not left, f"timers are left: {left}", parent)


@case("R09", "parent")
async def a_short_delay(lab: Lab) -> None:
    """A delay below a second may be kept in memory, but is recorded all the same; then the next turn, then +ACK."""
    parent = await lab.parent()
    child = await lab.spawn(parent, "again", {"seconds": 0.5})
    went_on = any_of(timer(child), task(child, 1, headers={"Jf-Attempt": "1"}))
    await lab.expect(parent, attempt(child, attempt=1), join(child, "parked", needed=0, tried=1), went_on, ack(child))
    lab.never(parent, nak(child))


@case("R10", "parent", alone=True)
async def killed_before_the_timer(lab: Lab) -> None:
    """A worker dies between parking a failed attempt and arming its timer: the redelivery arms it (Running, 2)."""
    parent = await lab.parent()
    child = lab.child(parent, "again")
    died = await lab.killed_at(timer(child), lab.spawn_as(child, {"seconds": 20}), parent)
    await lab.expect(parent, join(child, "parked", tried=1), timer(child))
    await lab.expect(parent, timer(child, headers={"Jf-Attempt": "1"}), ack(child), within=20, since=died)
    lab.check(len(lab.seen(parent, message("try", run=child.run))) == 1, "one attempt was made", parent)


@case("R11", "parent")
async def a_turn_that_waits_for_something_new(lab: Lab) -> None:
    """A parked record that needs no child is not counted, whatever else it waits for: fields are added (Parking)."""
    parent = await lab.parent()
    child = lab.child(parent, "again")
    lab.lost_before(f"{child.run}.0")
    record = parked_until(child, 0.0, 0) | {"waits": [{"n": 0, "topic": "approval"}], "tide": {"level": "high"}}
    del record["until"]
    await lab.broker.store(lab.subject("join", **child.tokens, turn=0), encode(record))
    await lab.spawn_as(child, {"seconds": 9})
    await lab.expect(parent, ack(child, delivery=2))
    lab.never(parent, message("try"), counted(child), task(child, 1), outcome(child, "succeeded"))


@case("R12", "parent")
async def a_run_begins_later(lab: Lab) -> None:
    """The first turn of a run with Jf-Not-Before is parked until then, and no body runs (Running)."""
    parent = await lab.parent()
    child = lab.child(parent, "again")
    begins = round(time() + 20, 3)
    await lab.spawn_as(child, {"seconds": 9}, Jf_Not_Before=f"{begins:.3f}")
    parked, armed, _ = await lab.expect(parent, join(child, "parked", needed=0), timer(child), ack(child, delivery=1))
    lab.check(parked.field("until") == begins and parked.field("tried") == 0, "it is parked until then", parent)
    lab.check(0 <= at(armed) - begins < 0.01, "its timer is armed for this time", parent)
    lab.never(parent, message("try"), counted(child), message("run", run=child.run))
