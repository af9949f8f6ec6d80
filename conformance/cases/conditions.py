"""D: conditions decide whether a step runs, is skipped or is cancelled (Conditions)."""

from __future__ import annotations

import asyncio
from time import time
from typing import Any

from conformance.cases.events import publish
from conformance.cases.worker import unknown
from conformance.expected import (
    Expected,
    Run,
    ack,
    join,
    message,
    outcome,
    recorded,
    stands,
    step_outcome,
    task,
    timer,
)
from conformance.lab import Lab, encode
from conformance.suite import case
from conformance.wire import NONE, new_id

GO, STOP = "conf.go", "conf.stop"


def key_of(run: Run) -> str:
    """Return the key of the events of a run: so that they stand in the log of its tree."""
    return run.root


def decided(run: Run, verdict: str) -> Expected:
    """Expect that it is recorded what the conditions of a step have come to."""

    def holds(value: Any) -> bool:
        return bool(value["verdict"] == verdict and isinstance(value.get("at", 0), int | float))

    return recorded(run, verdict, holds, "_decided")


def armed(run: Run, holds: Any = bool) -> Expected:
    """Expect that the conditions of a step are recorded."""
    return recorded(run, "its conditions", holds, "_armed")


async def choosing(lab: Lab, number: int, seconds: float = 60.0) -> Run:
    """Start a run of the kit's graph with conditions, and return its step that has them."""
    run = new_id()
    made = Run(lab.of_kit("choose"), "first", run, NONE, NONE, run)
    await lab.store_task(made, {"number": number, "key": run, "seconds": seconds}, {"Jf-Digest": "2-0"})
    return made.at("maybe")


async def waiting(lab: Lab, number: int = 1, seconds: float = 60.0) -> Run:
    """Start one whose conditions have to be waited for, and return that step when it is parked."""
    maybe = await choosing(lab, number, seconds)
    await lab.expect(maybe, join(maybe, "parked"), stands(maybe), ack(maybe, 0))
    return maybe


@case("D01", "full")
async def an_output_skips_it(lab: Lab) -> None:
    """What decides is recorded, then the step's Outcome is stored, skipped; what stands behind goes on (5)."""
    maybe = await choosing(lab, -1)
    behind, last = maybe.at("behind"), maybe.at("last")
    decision = (step_outcome(maybe.at("first"), "succeeded"), task(maybe), decided(maybe, "skip"))
    skipped = step_outcome(maybe, "skipped", attempt=0, error=None)
    await lab.expect(maybe, *decision, skipped, task(last), ack(maybe))
    await lab.expect(maybe, skipped, step_outcome(behind, "skipped", attempt=0), ack(maybe))
    await lab.expect(maybe, outcome(maybe, "succeeded", output={"last": True}))
    lab.never(maybe, task(behind), join(maybe, "parked"), stands(maybe))


@case("D02", "full")
async def it_waits_for_its_conditions(lab: Lab) -> None:
    """What cannot be decided is recorded as code said it, and the step is parked, with a timer and its waits (2, 4)."""
    maybe = await choosing(lab, 1)

    def said(value: Any) -> bool:
        (fact,), (stop,), terms = value["skip"][0], value["cancel"][0], value["run"][0]
        (go,) = [term["event"] for term in terms if "event" in term]
        (until,) = [term["until"] for term in terms if "until" in term]
        return bool(
            fact["holds"] is False
            and (stop["event"]["topic"], go["topic"]) == (STOP, GO)
            and stop["event"]["key"] == go["key"] == key_of(maybe)
            and abs(until - value["at"] - 60) < 1
        )

    def both(waits: Any) -> bool:
        return {wait["topic"] for wait in waits} == {GO, STOP}

    stored, record, *_ = await lab.expect(
        maybe, armed(maybe, said), join(maybe, "parked", needed=0, until=bool, waits=both), timer(maybe), ack(maybe, 0)
    )
    lab.check(record.field("until") <= stored.json["at"] + 61, "it is parked until the nearest time", maybe)
    for topic in ("conf=go", "conf=stop"):
        await lab.expect(maybe, join(maybe, "parked"), stands(maybe, topic=topic), ack(maybe, 0))
    lab.never(maybe, message("count", run=maybe.run, step="maybe"), step_outcome(maybe, "succeeded"))
    await publish(lab, key_of(maybe), GO, None, new_id())
    await lab.expect(
        maybe,
        task(maybe, 1),
        decided(maybe, "run"),
        step_outcome(maybe, "succeeded", output="ran", attempt=1),
        task(maybe.at("last")),
        ack(maybe, 1),
    )
    await lab.expect(maybe, outcome(maybe, "succeeded", output={"behind": "behind", "last": False}))


@case("D03", "full")
async def an_event_cancels_it(lab: Lab) -> None:
    """A step that its conditions cancel did not run, and cancels what stands behind it (5)."""
    maybe = await waiting(lab)
    await publish(lab, key_of(maybe), STOP, None, new_id())

    def cancelled(error: Any) -> bool:
        return error["type"] == "Cancelled"

    await lab.expect(
        maybe,
        task(maybe, 1),
        decided(maybe, "cancel"),
        step_outcome(maybe, "cancelled", attempt=0, error=cancelled),
        outcome(maybe, "cancelled"),
        ack(maybe, 1),
    )
    lab.never(maybe, task(maybe.at("last")), task(maybe.at("behind")))


@case("D04", "full")
async def its_time_comes(lab: Lab) -> None:
    """The next turn of a step that waited for a time begins with what is recorded, and runs it (4)."""
    maybe = await choosing(lab, 1, 4.0)
    await lab.expect(
        maybe,
        timer(maybe),
        ack(maybe, 0),
        task(maybe, 1),
        decided(maybe, "run"),
        step_outcome(maybe, "succeeded", output="ran"),
        ack(maybe, 1),
    )
    lab.check(len(lab.seen(maybe, armed(maybe))) == 1, "conditions are recorded once", maybe)


async def standing(lab: Lab, records: dict[str, Any]) -> Run:
    """Have a step with conditions delivered of which something is recorded, and return it."""
    run = new_id()
    made = Run(lab.of_kit("choose"), "first", run, NONE, NONE, run)
    maybe = made.at("maybe")
    ended = {"status": "succeeded", "workflow": made.workflow, "step": "first", "output": 1}
    await lab.broker.store(lab.subject("step", **made.tokens), encode(ended))
    for name, record in records.items():
        await lab.broker.store(lab.subject("once", **maybe.tokens, name=name), encode(record))
    await lab.store_task(maybe, {"number": 1, "key": run}, {"Jf-Digest": "2-0"})
    return maybe


@case("D05", "full")
async def what_came_first_decides(lab: Lab) -> None:
    """The kind that came first decides, whenever it is looked at: an event, or a time that was over before (3)."""
    for patience, verdict, status in ((0.4, "skip", "skipped"), (-0.4, "run", "succeeded")):
        key = new_id()
        now = time()
        await publish(lab, key, STOP, None, new_id())
        await asyncio.sleep(0.8)  # both have come when it is looked at
        event = {"topic": STOP, "key": key, "since": now - 20}
        conditions = {
            "at": now - 10,
            "skip": [[{"event": event, "said": "an event"}]],
            "run": [[{"until": now + patience, "said": "a time"}]],
        }
        maybe = await standing(lab, {"_armed": conditions})
        await lab.expect(maybe, decided(maybe, verdict), step_outcome(maybe, status), ack(maybe))
        lab.never(maybe, armed(maybe), stands(maybe))


@case("D06", "full")
async def what_was_decided_stands(lab: Lab) -> None:
    """What is recorded as decided stands, whatever would be decided now (1)."""
    maybe = await standing(lab, {"_decided": {"verdict": "skip", "reason": "so it was", "at": 1.0}})
    await lab.expect(maybe, step_outcome(maybe, "skipped", attempt=0), ack(maybe))
    lab.never(maybe, armed(maybe), stands(maybe), join(maybe, "parked"))


@case("D07", "full")
async def a_condition_fails(lab: Lab) -> None:
    """A condition whose code fails ends its step as PredicateFailed, without further attempts (5)."""
    maybe = await choosing(lab, 0)

    def failed(error: Any) -> bool:
        return error["type"] == "PredicateFailed"

    await lab.expect(maybe, step_outcome(maybe, "failed", error=failed), outcome(maybe, "failed"), ack(maybe))
    lab.never(maybe, join(maybe, "parked"), message("try", step="maybe"), message("once", step="maybe"))


@case("D08", "child")
async def its_conditions_are_unknown(lab: Lab) -> None:
    """A step whose conditions a worker does not know is handed back, and not run: UnknownStep (Conditions)."""
    name = lab.of_kit("slow")
    graph = {"workflow": name, "nodes": [{"name": "run", "after": []}], "conditional": ["run"]}
    version = f"c{new_id()[:8]}"
    await lab.broker.store(lab.subject("version", workflow=name, version=version), encode(graph))
    parent = await lab.parent()
    child = await lab.spawn(parent, "slow", 0, Jf_Version=version)
    await unknown(lab, child, parent, "UnknownStep")
    lab.never(parent, outcome(child, "succeeded"))
