"""W: a worker of one-step workflows, from its start to the acknowledgement of a task."""

from __future__ import annotations

import asyncio
import json
import math
from itertools import pairwise
from pathlib import Path
from time import time
from typing import Any, Final

from conformance.expected import (
    Expected,
    Run,
    ack,
    any_of,
    attempt,
    counted,
    delivered,
    looked,
    mark,
    message,
    nak,
    outcome,
    task,
    told,
    wpi,
)
from conformance.lab import Lab, encode
from conformance.suite import case
from conformance.wire import SEAL, Event, canonical, hashed, new_id

TOPOLOGY: Final = Path(__file__).parents[2] / "docs" / "topology.json"
CHUNK: Final = 256 * 1024


def topology(namespace: str) -> dict[str, Any]:
    """Return the streams and consumers of a namespace."""
    return json.loads(TOPOLOGY.read_text().replace("NAMESPACE", namespace))


def as_wanted(wanted: Any, found: Any) -> bool:
    """Tell whether a configuration says what is wanted; what the server adds, and defaults, do not count."""
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(as_wanted(value, found.get(name)) for name, value in wanted.items())
    return wanted == found or (not wanted and not found)


# --- starting


@case("W01", "child", alone=True)
async def it_declares_its_workflows(lab: Lab) -> None:
    """A worker declares each workflow: its graph under its version first, then what is newest (Registry bucket)."""
    name = lab.of_kit("square")
    version, _ = await lab.expect(
        f"_workflows.{name}", message("version", workflow=name), message("workflow", workflow=name)
    )
    newest = await lab.broker.last(lab.names.workflows, lab.subject("workflow", workflow=name))
    assert newest is not None
    declared = newest.json
    lab.check(declared["version"] == version.fields["version"], "the newest declaration does not name the version")
    lab.check(declared["graph"] == version.json, "the newest declaration has another graph than its version")
    lab.check([node["name"] for node in version.json["nodes"]] == ["run"], "a graph of one step, `run`, is expected")


@case("W02", "child", alone=True)
async def it_makes_the_streams(lab: Lab) -> None:
    """Who comes first makes the streams and consumers, as docs/topology.json has them (Streams and buckets)."""
    wanted = topology(lab.names.namespace)
    for stream in wanted["streams"]:
        found = await lab.broker.stream(stream["name"])
        lab.check(as_wanted(stream, found), f"{stream['name']} is not as docs/topology.json says: {found}")
        if stream["name"] not in (lab.names.inbox, lab.names.timers):  # schedules need it
            lab.check(not found.get("allow_rollup_hdrs"), f"{stream['name']} lets anybody roll it up")
    step = wanted["consumers"][0]["config"]
    for workflow in map(lab.of_kit, ("square", "slow")):
        found = await lab.broker.consumer(lab.names.tasks, f"{workflow}=run")
        said = json.dumps(step).replace("WORKFLOW", workflow).replace("STEP", "run")
        lab.check(
            as_wanted(json.loads(said), found), f"the consumer of a step is not as docs/topology.json says: {found}"
        )


@case("W03", "child", start=False)
async def it_leaves_streams_as_they_are(lab: Lab) -> None:
    """Streams that exist with other limits are left as an operator has set them (Streams and buckets)."""
    for stream in topology(lab.names.namespace)["streams"]:
        limited = stream | ({"max_age": 3600 * 10**9} if stream.get("max_age") else {})
        await lab.broker.api(f"STREAM.CREATE.{stream['name']}", limited)
    await lab.start()
    parent = await lab.parent()
    child = await lab.spawn(parent, "square", 2)
    await lab.expect(parent, outcome(child, "succeeded", output=4), ack(child))
    lab.check((await lab.broker.stream(lab.names.records))["max_age"] == 3600 * 10**9, "max_age was changed")


@case("W04", "child", start=False)
async def it_refuses_another_edition(lab: Lab) -> None:
    """Streams without this edition in their metadata are refused at the start (Streams and buckets)."""
    for stream in topology(lab.names.namespace)["streams"]:
        await lab.broker.api(f"STREAM.CREATE.{stream['name']}", stream | {"metadata": {}})
    try:
        await lab.start()
    except Exception as error:
        lab.check("did not print" in str(error), str(error))
    else:
        lab.check(False, "it works on streams of another edition")


# --- one task


@case("W10", "child")
async def a_child_ends(lab: Lab) -> None:
    """A child's outcome is stored, told, counted, and only then is its task acknowledged (Running a task, 5 to 7)."""
    parent = await lab.parent()
    child = await lab.spawn(parent, "square", 7)
    await lab.expect(
        parent, outcome(child, "succeeded", output=49, attempt=1), told(child), counted(parent), ack(child, delivery=1)
    )
    lab.never(parent, message("mark", run=child.run), message("try", run=child.run), nak(child))
    tree, parents, step, run = child.root, child.parent, child.parent_step, child.run
    stored = await lab.broker.last(lab.names.records, f"jf.{lab.names.namespace}.run.{tree}.{parents}.{step}.{run}")
    lab.check(stored is not None and stored.json["workflow"] == child.workflow, "the outcome names its workflow")


@case("W11", "child")
async def a_child_fails(lab: Lab) -> None:
    """A child that fails at last stores its mark before its outcome, then counts (Finishing a step, 1)."""
    parent = await lab.parent()
    child = await lab.spawn(parent, "fail", 13)
    _, failed, _, _ = await lab.expect(
        parent, mark(child, "failed"), outcome(child, "failed"), counted(parent), ack(child)
    )
    error = failed.field("error")
    lab.check(error and error["type"] and "13 ends in 3" in error["message"], "the outcome has no error", parent)


@case("W12", "child")
async def a_child_is_tried_again(lab: Lab) -> None:
    """A failed attempt is stored, and counted by the next one; the third succeeds (Trying again)."""
    parent = await lab.parent()
    child = await lab.spawn(parent, "flaky", 1)
    parked = [attempt(child, turn=turn, attempt=turn + 1) for turn in (0, 1)]
    handed_back = [attempt(child, delivery=number, attempt=number) for number in (1, 2)]  # a child worker may do that
    await lab.expect(
        parent,
        any_of(parked[0], handed_back[0]),
        any_of(task(child, 1, headers={"Jf-Attempt": "1"}), nak(child, delivery=1)),
        any_of(parked[1], handed_back[1]),
        any_of(task(child, 2, headers={"Jf-Attempt": "2"}), nak(child, delivery=2)),
        outcome(child, "succeeded", output=3, attempt=3),
        counted(parent),
        any_of(ack(child, 2), ack(child, 0, delivery=3)),
    )
    lab.never(parent, message("mark", run=child.run))


@case("W13", "child")
async def its_outcome_exists_at_first(lab: Lab) -> None:
    """A stored outcome stands, whatever a later body returns; it is counted, and the task acknowledged (Running, 5)."""
    parent = await lab.parent()
    child = lab.child(parent, "square")
    await lab.end(child, output=-1, count=False)
    await lab.spawn_as(child, 3)
    await lab.expect(parent, counted(parent), ack(child))
    stored = await lab.broker.last(lab.names.records, lab.subject("run", **child.tokens))
    lab.check(stored is not None and stored.json["output"] == -1, "the stored outcome was overwritten", parent)


@case("W14", "child")
async def its_outcome_exists_when_redelivered(lab: Lab) -> None:
    """A redelivered task whose run has an outcome is not run: it is counted and acknowledged (Running, 2)."""
    parent = await lab.parent()
    child = lab.child(parent, "slow")
    lab.lost_before(child.run)
    await lab.end(child, output=1, count=False)
    await lab.spawn_as(child, 20)
    await lab.expect(parent, counted(parent), ack(child, delivery=2), within=5)
    lab.never(parent, outcome(child, "succeeded"))


@case("W15", "child")
async def its_workers_were_lost_too_often(lab: Lab) -> None:
    """A task past its attempts is not run: its run fails as Poisoned (Running, 7)."""
    parent = await lab.parent()
    child = lab.child(parent, "square")
    lab.lost_before(child.run, 4)
    for delivery in (2, 3, 4):
        begun = {"attempt": delivery - 1, "worker": "another", "started": 1}
        await lab.broker.store(lab.subject("try", **child.tokens, turn=0, delivery=f"begun-{delivery}"), encode(begun))
    await lab.spawn_as(child, 3)
    await lab.expect(
        parent,
        mark(child, "failed"),
        outcome(child, "failed", error=lambda error: error["type"] == "Poisoned"),
        counted(parent),
        ack(child, delivery=5),
    )


@case("W37", "child")
async def its_deliveries_reached_nobody(lab: Lab) -> None:
    """A delivery is an attempt when its body has begun, and by nothing else (Running, 6)."""
    parent = await lab.parent()
    child = lab.child(parent, "slow")
    lab.lost_before(child.run, 5)
    await lab.spawn_as(child, 0)
    await lab.expect(
        parent,
        outcome(child, "succeeded", output=1, attempt=1),
        ack(child, delivery=6),
    )


@case("W16", "child")
async def it_was_handed_back(lab: Lab) -> None:
    """A delivery that was handed back is no attempt (Attempts)."""
    parent = await lab.parent()
    child = lab.child(parent, "slow")
    lab.lost_before(child.run, 2)
    for delivery in (1, 2):
        handed_back = {"attempt": 1, "worker": "another", "started": 1, "ended": 1, "returned": True}
        await lab.broker.store(lab.subject("try", **child.tokens, turn=0, delivery=delivery), encode(handed_back))
    await lab.spawn_as(child, 0)
    await lab.expect(parent, outcome(child, "succeeded", output=1, attempt=1), ack(child, delivery=3))


@case("W17", "child")
async def it_is_no_task(lab: Lab) -> None:
    """A message on a task subject that no rule produces is terminated, and nothing is stored (Task messages)."""
    name, run = lab.of_kit("square"), new_id()
    where = lab.subject("task", workflow=name, step="run", root=run, parent=new_id(), run=new_id(), turn="0")
    strange = {
        f"jf.{lab.names.namespace}.task.{name}.run.{run}.{new_id()}.{new_id()}.01": {"Jf-Parent-Step": "scatter"},
        where: {},
        f"jf.{lab.names.namespace}.task.{name}.run.{run}.{new_id()}.notanid.0": {"Jf-Parent-Step": "scatter"},
    }
    for subject, headers in strange.items():
        await lab.broker.store(subject, b"3", headers)
        await lab.expect(subject, message("term"))
    lab.never(run, message("run"), message("try"), message("count"), message("ack"))


@case("W18", "child")
async def it_takes_its_time(lab: Lab) -> None:
    """A task that runs longer than ack_wait is kept alive, and delivered once (Running, 1)."""
    parent = await lab.parent()
    child = await lab.spawn(parent, "slow", 7)
    await lab.expect(parent, wpi(child), outcome(child, "succeeded", output=1), ack(child))
    signs = [*lab.seen(parent, delivered(child)), *lab.seen(parent, wpi(child)), *lab.seen(parent, ack(child))]
    silence = max(after.at - before.at for before, after in pairwise(signs))
    lab.check(silence < 4, f"nothing was said of the task for {silence:.1f} s, and ack_wait is 5 s", parent)
    came = len(lab.seen(parent, delivered(child)))
    lab.check(came == 1, f"it was delivered {came} times", parent)


@case("W19", "child")
async def it_comes_too_late(lab: Lab) -> None:
    """A task whose Jf-Deadline has passed is not run: timed_out, by RunTimeout (Running, 3)."""
    parent = await lab.parent()
    child = await lab.spawn(parent, "square", 3, Jf_Deadline=f"{time() - 1:.3f}")
    await lab.expect(
        parent,
        mark(child, "timed_out"),
        outcome(child, "timed_out", error=lambda error: error["type"] == "RunTimeout"),
        counted(parent),
        ack(child),
    )


@case("W23", "child")
async def its_input_does_not_fit(lab: Lab) -> None:
    """A body that does not fit fails the run as InvalidInput, at the first attempt (Task messages)."""
    parent = await lab.parent()
    child = await lab.spawn(parent, "square", "three")
    await lab.expect(
        parent,
        mark(child, "failed"),
        outcome(child, "failed", attempt=1, error=lambda error: error["type"] == "InvalidInput"),
        counted(parent),
        ack(child, delivery=1),
    )
    lab.never(parent, message("try", run=child.run), task(child, 1))


# --- large values


@case("W20", "child")
async def its_output_is_large(lab: Lab) -> None:
    """An output of more than 256 KiB is stored in chunks first, then referred to (Large values)."""
    parent = await lab.parent()
    child = await lab.spawn(parent, "big", {"text": "ab", "n": 300_000})
    text = canonical("ab" * 300_000)
    count = math.ceil(len(text) / CHUNK)
    name = f"{hashed(text)}-{CHUNK}"
    chunks = [message("value", root=child.root, digest=name, chunk=number) for number in range(count)]
    await lab.expect(parent, chunks[0], outcome(child, "succeeded", value=f"{name}.{count}", output=None), ack(child))
    stored = lab.seen(parent, outcome(child, "succeeded"))[0]
    for chunk in chunks:
        sent = lab.seen(parent, chunk)
        lab.check(sent and sent[0].number < stored.number, f"{chunk} must stand before the outcome", parent)
    sizes = [len(lab.seen(parent, chunk)[0].body) for chunk in chunks]
    lab.check(sizes[0] == CHUNK and sum(sizes) == len(text), f"the chunks have {sizes} bytes")


async def large_input(lab: Lab, *, spoil: str = "") -> tuple[Run, Run]:
    """Spawn a child whose input travels by reference; ``spoil`` leaves a chunk out, or changes one."""
    parent = await lab.parent()
    child = lab.child(parent, "big")
    text = canonical({"n": 1, "text": "z" * 600_000})
    name = f"{hashed(text)}-{CHUNK}"
    chunks = [text[at : at + CHUNK] for at in range(0, len(text), CHUNK)]
    if spoil == "change":
        chunks[1] = b"y" * CHUNK
    for number, chunk in enumerate(chunks):
        if not (spoil == "leave out" and number == 1):
            await lab.broker.store(lab.subject("value", root=child.root, digest=name, chunk=number), chunk)
    headers = {"Jf-Parent-Step": child.parent_step, "Jf-Value": f"{name}.{len(chunks)}", "Jf-Depth": "1"}
    await lab.store_task(child, None, headers, body=b"")
    return parent, child


@case("W21", "child")
async def its_input_is_large(lab: Lab) -> None:
    """An input that Jf-Value refers to is read from its chunks (Large values)."""
    parent, child = await large_input(lab)
    text = canonical("z" * 600_000)
    reference = f"{hashed(text)}-{CHUNK}.{math.ceil(len(text) / CHUNK)}"
    await lab.expect(parent, outcome(child, "succeeded", value=reference), counted(parent), ack(child))


@case("W22", "child")
async def its_input_is_lost(lab: Lab) -> None:
    """A large input that is not there, or is not what its digest says, fails the run (Large values)."""
    for spoil in ("leave out", "change"):
        parent, child = await large_input(lab, spoil=spoil)
        await lab.expect(
            parent,
            mark(child, "failed"),
            outcome(child, "failed", error=lambda error: error["type"] == "LostValue"),
            counted(parent),
            ack(child),
        )


# --- what a worker does not know


async def unknown(lab: Lab, child: Run, parent: Run, error: str) -> None:
    """Expect that a task is left to others for a while, then ends its run by name."""
    await lab.expect(
        parent,
        attempt(child, 1, returned=True, error=lambda found: found["type"] == error),
        nak(child, delivery=1),
        delivered(child, delivery=2),
        mark(child, "failed"),
        outcome(child, "failed", error=lambda found: found["type"] == error),
        counted(parent),
        ack(child),
        within=20,
    )
    back = lab.seen(parent, nak(child))[0].body
    delay = json.loads(back.removeprefix(b"-NAK") or b"{}").get("delay", 0)
    lab.check(0 < delay <= 2 * 10**9, f"it is handed back with {back!r}: a delay of about a second is expected", parent)


@case("W26", "child", start=False)
async def its_step_is_unknown(lab: Lab) -> None:
    """A step that the worker does not know is left to others, then fails the run: UnknownStep (Running)."""
    for stream in topology(lab.names.namespace)["streams"]:
        await lab.broker.api(f"STREAM.CREATE.{stream['name']}", stream)
    name = lab.of_kit("square")
    subject = f"jf.{lab.names.namespace}.task.{name}.old.>"
    await lab.broker.make_consumer(lab.names.tasks, f"{name}=old", subject)  # its worker of yesterday made it
    graph = {"workflow": name, "nodes": [{"name": "old", "after": []}]}
    await lab.broker.store(lab.subject("version", workflow=name, version="v0"), encode(graph))
    await lab.start()
    parent = await lab.parent()
    child = await lab.spawn(parent, "square", 3, step="old", Jf_Version="v0")
    await unknown(lab, child, parent, "UnknownStep")


@case("W27", "child")
async def its_version_is_unknown(lab: Lab) -> None:
    """A version that nobody has declared is left to others, then fails the run: UnknownVersion (Records)."""
    parent = await lab.parent()
    child = await lab.spawn(parent, "square", 3, Jf_Version="nobody-declared")
    await unknown(lab, child, parent, "UnknownVersion")


# --- slots and stopping


async def busy(lab: Lab) -> tuple[Run, list[Run]]:
    """Give a worker of two slots, that has had short tasks, two long ones and some that have to wait."""
    parent = await lab.parent()
    for _ in range(12):
        short = await lab.spawn(parent, "slow", 0)
        await lab.expect(parent, ack(short))
    children = [await lab.spawn(parent, "slow", 7) for _ in range(2)]
    children += [await lab.spawn(parent, "slow", 0) for _ in range(4)]
    return parent, children


@case("W24", "child", SLOTS="2")
async def it_has_more_tasks_than_slots(lab: Lab) -> None:
    """A fetched task that waits for a slot is kept alive too, or handed back (Running a task, 1)."""
    parent, children = await busy(lab)
    for child in children:
        await lab.expect(parent, outcome(child, "succeeded", output=1, attempt=1), ack(child), within=25)
        for again in lab.seen(parent, delivered(child)):
            back = attempt(child, again.delivery - 1, returned=True)
            given_back = again.delivery == 1 or lab.seen(parent, back)
            lab.check(given_back, f"delivery {again.delivery} came without a hand-back of the one before", parent)


@case("W25", "child", SLOTS="2")
async def it_is_told_to_stop(lab: Lab) -> None:
    """At SIGTERM what was fetched is handed back, and what runs may end within the grace time (Handing back)."""
    parent, children = await busy(lab)
    running = children[:2]
    for child in running:
        await lab.expect(parent, delivered(child))
    await asyncio.sleep(3)  # they have four seconds left, and the grace time is five
    told_to_stop = lab.now
    await lab.tested.stop()
    for child in running:
        await lab.expect(parent, outcome(child, "succeeded", output=1), ack(child), within=1, since=told_to_stop)
    await lab.expect(parent, counted(parent), within=1, since=told_to_stop)
    for child in children[2:]:
        for came in lab.seen(parent, delivered(child)):
            returned = attempt(child, came.delivery, returned=True)
            ended = lab.seen(parent, ack(child, delivery=came.delivery))
            if not ended:
                await lab.expect(parent, returned, nak(child, delivery=came.delivery), within=1)


# --- trouble


@case("W28", "child", alone=True)
async def the_stream_is_full(lab: Lab) -> None:
    """10077 that says `maximum bytes exceeded` means not stored: publish again, and do not go on (Subjects)."""
    parent = await lab.parent()
    await lab.broker.change_stream(lab.names.records, max_bytes=1)
    child = await lab.spawn(parent, "square", 3)
    stored = outcome(child, "succeeded", output=9)
    await lab.expect(parent, stored)
    await asyncio.sleep(1.5)
    lab.never(parent, counted(parent), ack(child))
    lab.check(len(lab.seen(parent, stored)) >= 2, "the outcome must be published again", parent)
    await lab.broker.change_stream(lab.names.records, max_bytes=-1)
    await lab.expect(parent, stored, counted(parent), ack(child))
    kept = await lab.broker.last(lab.names.records, lab.subject("run", **child.tokens))
    lab.check(kept is not None, "the outcome is not stored", parent)


@case("W29", "child", alone=True)
async def what_was_taken_is_gone(lab: Lab) -> None:
    """A subject that was taken is read from the leader; if nothing is there, publish again (Subjects)."""
    parent = await lab.parent()
    child = lab.child(parent, "square")
    subject = lab.subject("run", **child.tokens)
    await lab.end(child, output=-1, count=False)

    async def remove(event: Event) -> bool:
        if event.kind == "get" and event.subject == subject:
            await lab.broker.purge(lab.names.records, subject)
            lab.proxy.sent_hooks.remove(remove)
        return True

    lab.proxy.sent_hooks.append(remove)
    await lab.spawn_as(child, 3)
    await lab.expect(parent, outcome(child, "succeeded", output=9), counted(parent), ack(child))
    kept = await lab.broker.last(lab.names.records, subject)
    lab.check(kept is not None and kept.json.get("output") == 9, "the outcome is not stored", parent)


async def killed(lab: Lab, parent: Run, child: Run, point: Expected) -> None:
    """Kill the worker as it is about to send a message; start it again, and expect that the join is complete."""
    began = await lab.killed_at(point, lab.spawn_as(child, 3), parent)
    await lab.expect(parent, ack(child), within=20, since=began)
    outcomes = await lab.broker.subjects(lab.names.records, f"jf.*.run.*.*.*.{child.run}")
    lab.check(len(outcomes) == 1, f"one outcome is expected: {outcomes}", parent)
    value = await lab.count(child, 0)
    lab.check(value >= 1, f"the counter is at {value}: the child must be counted", parent)
    if value >= SEAL:
        await lab.expect(parent, task(parent.at("sum")))


@case("W30", "child", alone=True)
async def killed_after_the_outcome(lab: Lab) -> None:
    """A worker dies when the outcome is stored: the redelivery counts, and runs nothing (Running, 2)."""
    parent = await lab.parent()
    child = lab.child(parent, "square")
    await killed(lab, parent, child, told(child))


@case("W31", "child", alone=True)
async def killed_after_the_live_copy(lab: Lab) -> None:
    """A worker dies when the outcome is told: the redelivery counts, and runs nothing (Running, 2)."""
    parent = await lab.parent()
    child = lab.child(parent, "square")
    await killed(lab, parent, child, counted(parent))


@case("W32", "parent", alone=True)
async def killed_after_the_count(lab: Lab) -> None:
    """A worker dies when it has counted: the redelivery counts again, and looks (Running, 6)."""
    parent = await lab.parent()
    child = lab.child(parent, "square")
    await lab.seal(parent, [child])
    await killed(lab, parent, child, looked(parent))


@case("W33", "parent", alone=True)
async def killed_before_the_ack(lab: Lab) -> None:
    """A worker dies before it acknowledges: the redelivery repeats what is stored, once for all (Running, 7)."""
    parent = await lab.parent()
    child = lab.child(parent, "square")
    await lab.seal(parent, [child])
    await killed(lab, parent, child, ack(child))


# --- records and headers of others


@case("W34", "child")
async def records_of_other_versions(lab: Lab) -> None:
    """Unknown fields are ignored, and what is left out has its default: an Attempt `{}` is one attempt (Records)."""
    for record, number in ((b"{}", 2), (b'{"attempt":1,"mood":"new"}', 2), (b'{"returned":true,"x":[]}', 1)):
        parent = await lab.parent()
        child = lab.child(parent, "slow")
        lab.lost_before(child.run)
        await lab.broker.store(lab.subject("try", **child.tokens, turn=0, delivery=1), record)
        await lab.spawn_as(child, 0)
        await lab.expect(parent, outcome(child, "succeeded", output=number, attempt=number), ack(child, delivery=2))


@case("W36", "child")
async def an_attempt_that_cannot_be_read(lab: Lab) -> None:
    """An Attempt that cannot be read counts as one attempt; nothing is redelivered for ever (Records)."""
    parent = await lab.parent()
    child = lab.child(parent, "slow")
    lab.lost_before(child.run)
    await lab.broker.store(lab.subject("try", **child.tokens, turn=0, delivery=1), b"not json")
    await lab.spawn_as(child, 0)
    await lab.expect(parent, outcome(child, "succeeded", output=2, attempt=2), ack(child, delivery=2))
