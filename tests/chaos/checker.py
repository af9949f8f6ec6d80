"""The independent checker: reads the streams with a plain NATS client and compares them with the model.

It knows the wire format (``docs/wire.md``) and nothing of jetflow's code, so that a mistake there cannot hide itself.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from nats.aio.client import Client
from nats.aio.msg import Msg

from tests.chaos.counting import check_limits
from tests.chaos.driver import Acknowledged
from tests.chaos.mending import check_reruns
from tests.chaos.plan import FRAIL, GRAPHS, POISONED, ending
from tests.chaos.servers import api
from tests.chaos.steps import check_steps, check_times

SHOWN = 20


@dataclass
class Task:
    """A stored task: which turn of which step of which run, and when it was stored, in seconds since the epoch."""

    workflow: str
    step: str
    root: str
    parent: str
    run: str
    turn: int
    parent_step: str
    depth: int
    input: Any
    time: float
    key: str | None = None
    elder: str = ""
    """The run that it is made of, if it is of a rerun."""

    @property
    def is_again(self) -> bool:
        return bool(self.elder)


@dataclass
class Ended:
    """A stored outcome, where it stands in the stream, and since when, in seconds since the epoch."""

    sequence: int
    time: float
    root: str
    parent: str
    parent_step: str
    outcome: dict[str, Any]


@dataclass
class Verdict:
    """What the streams say."""

    runs: int = 0
    children: int = 0
    joins: int = 0
    parked: int = 0
    poisoned: int = 0
    frail: int = 0
    frail_lost: int = 0
    cancelled: int = 0
    timed: int = 0
    expecting: int = 0
    across_restarts: int = 0
    decisions: Counter[str] = field(default_factory=Counter)
    """How many steps their conditions have decided so."""
    limited: int = 0
    paced: int = 0
    most_at_once: int = 0
    reruns: int = 0
    run_again: int = 0
    adopted: int = 0
    needlessly: list[str] = field(default_factory=list)
    """What was run again though it had succeeded: a replica that lagged may not have told."""
    stored_by: Counter[int] = field(default_factory=Counter)
    """How many outcomes of runs each process has stored."""
    not_permitted: set[str] = field(default_factory=set)
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    early: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def complaints(self) -> list[str]:
        return [
            f"{kind}: {text}"
            for kind in ("lost", "doubled", "early", "stuck", "wrong")
            for text in getattr(self, kind)[:SHOWN]
        ]


class Streams:
    """Everything that the streams of a namespace hold. A mark is of a parent's child, and names a status."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        self.tasks: dict[tuple[str, str, int], Task] = {}
        self.runs: dict[str, Task] = {}
        self.ended: dict[str, list[Ended]] = defaultdict(list)
        self.steps: dict[tuple[str, str], list[Ended]] = defaultdict(list)
        self.joins: dict[tuple[str, str, int], tuple[str, dict[str, Any]]] = {}
        self.marks: list[tuple[str, str, str]] = []
        self.once: dict[tuple[str, str, str], Any] = {}
        self.events: list[tuple[str, float]] = []
        self.replicas = 1
        self._turns: dict[tuple[str, str], list[Task]] = defaultdict(list)

    def turns(self, run: str, step: str) -> list[Task]:
        """Return the tasks of one step of a run."""
        return self._turns.get((run, step), [])

    async def read(self, client: Client) -> None:
        async for subject, _, moment, headers, body in messages(client, f"JF_{self.namespace}_tasks"):
            if len(subject.split(".")) != 9:
                continue  # no task: workers reject it
            _, _, _, workflow, step, root, parent, run, turn = subject.split(".")
            task = Task(
                workflow,
                step,
                root,
                parent,
                run,
                int(turn),
                headers.get("Jf-Parent-Step", "-"),
                int(headers.get("Jf-Depth", "0")),
                json.loads(body or b"null"),
                moment,
                json.loads(headers.get("Jf-Key", "null")),
                headers.get("Jf-Elder", "").partition(",")[0].rpartition(".")[2],
            )
            self.tasks[run, step, task.turn] = task
            self._turns[run, step].append(task)
            self.runs.setdefault(run, task)
        async for subject, sequence, moment, _, body in messages(client, f"JF_{self.namespace}_records"):
            _, _, kind, root, *rest = subject.split(".")
            if kind == "run":
                parent, parent_step, run = rest
                self.ended[run].append(Ended(sequence, moment, root, parent, parent_step, json.loads(body)))
            elif kind == "step":
                run, step = rest
                self.steps[run, step].append(Ended(sequence, moment, root, run, step, json.loads(body)))
            elif kind == "mark":
                parent, _, status, _, run = rest
                self.marks.append((parent, run, status))
            elif kind == "join":
                self.joins[rest[0], rest[1], int(rest[2])] = root, json.loads(body)
            elif kind == "once" and len(rest) == 3:
                self.once[rest[0], rest[1], rest[2]] = json.loads(body)
        info = await api(client, f"STREAM.INFO.JF_{self.namespace}_events")
        if "error" not in info:
            self.replicas = info["config"]["num_replicas"]
            async for subject, _, moment, _, _ in messages(client, f"JF_{self.namespace}_events"):
                self.events.append((subject, moment))


NO_STREAM = 10059
"""The server's code for a stream that is not there."""

PULL = 500
"""Messages asked for at once, so that the server never has more on its way than is soon taken."""


class Message(NamedTuple):
    """A stored message. ``time`` is seconds since the epoch."""

    subject: str
    sequence: int
    time: float
    headers: dict[str, str]
    body: bytes


async def messages(client: Client, stream: str) -> AsyncIterator[Message]:
    """Yield every message of a stream, as the leader has them."""
    info = await api(client, f"STREAM.INFO.{stream}")
    last = info["state"]["last_seq"]
    arrived: asyncio.Queue[Msg] = asyncio.Queue()
    subscription = await client.subscribe(inbox := client.new_inbox(), cb=arrived.put)
    config = {"ack_policy": "none", "deliver_policy": "all", "mem_storage": True, "num_replicas": 1}
    created = await api(client, f"CONSUMER.CREATE.{stream}", {"stream_name": stream, "config": config})
    if "error" in created:
        raise RuntimeError(f"{stream} cannot be read: {created['error']}")
    name, pending = created["name"], created["num_pending"]
    try:
        while pending:
            asked = json.dumps({"batch": PULL, "expires": 20_000_000_000}).encode()
            await client.publish(f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{name}", asked, reply=inbox)
            for _ in range(min(PULL, pending)):
                message = await asyncio.wait_for(arrived.get(), 30)
                if not message.reply.startswith("$JS.ACK."):
                    break  # the request has ended, and is made again
                tokens = message.reply.split(".")
                pending = int(tokens[-1])
                sequence = int(tokens[-4])
                moment = int(tokens[-2]) / 1e9
                yield Message(message.subject, sequence, moment, message.headers or {}, message.data)
                if sequence >= last:
                    return
    finally:
        await subscription.unsubscribe()
        await api(client, f"CONSUMER.DELETE.{stream}.{name}")


async def unsettled(client: Client, namespace: str) -> list[str]:
    """Return what the consumers still have to do."""
    found: list[str] = []
    for stream in (f"JF_{namespace}_{name}" for name in ("tasks", "inbox", "timers", "events")):
        answer = await api(client, f"CONSUMER.LIST.{stream}")
        if answer.get("error", {}).get("err_code") == NO_STREAM and stream.endswith("_events"):
            continue  # nothing was published
        if "error" in answer:
            return [f"{stream}: {answer['error']}"]
        found += [
            f"{consumer['name']}: {consumer['num_pending']} queued, {consumer['num_ack_pending']} not acknowledged"
            for consumer in answer.get("consumers") or []
            if (consumer["num_pending"] or consumer["num_ack_pending"])
            and consumer["config"]["ack_policy"] != "none"  # one that only counts, for somebody who looked
        ]
        if answer.get("missing"):
            found.append(f"{stream}: consumers {answer['missing']} do not answer")
    if left := await timers_left(client, namespace):
        found.append(f"{left} timers are left")
    return found + [f"the first task of {root} is not put back" for root in await _purged_roots(client, namespace)]


async def _purged_roots(client: Client, namespace: str) -> list[str]:
    """Return the cancelled roots whose first task was purged and is there as a copy only."""
    stream = f"JF_{namespace}_tasks"
    copies = await api(client, f"STREAM.INFO.{stream}", {"subjects_filter": f"jf.{namespace}.cancel.*.kept.*"})
    roots = {subject.split(".")[3] for subject in copies.get("state", {}).get("subjects") or {}}
    first = {root: {"last_by_subj": f"jf.{namespace}.task.*.*.{root}.-.{root}.*"} for root in roots}
    return [root for root in roots if "error" in await api(client, f"STREAM.MSG.GET.{stream}", first[root])]


async def timers_left(client: Client, namespace: str) -> int:
    """Return how many messages the stream of timers holds, armed ones and due ones, without schedules and kept keys."""
    stream, left = f"STREAM.INFO.JF_{namespace}_timers", 0
    for kind in ("schedule.*", "key.>"):
        asked = {"subjects_filter": f"jf.{namespace}.timer.{kind}"}
        state = (await api(client, stream, asked)).get("state", {})
        left -= len(state.get("subjects") or {})
    return left + int(state.get("messages", 0))


async def check(
    client: Client,
    namespace: str,
    log: dict[str, Acknowledged],
    restarts: Sequence[float] = (),
    died_in: Set[str] = frozenset(),
    held_up: Sequence[float] = (),
) -> Verdict:
    """Compare what is stored with what was acknowledged, and with the model.

    ``restarts`` are when servers were started again, in seconds since the epoch; ``held_up`` when something else ended
    that had held up what is published. ``died_in`` are the runs whose body was begun by a worker that was killed: no
    other may lose its only attempt.
    """
    streams = Streams(namespace)
    await streams.read(client)
    verdict = Verdict(stuck=await unsettled(client, namespace))
    verdict.not_permitted = _not_permitted(streams)
    cancelled = {run for run, told in log.items() if told.cancelled}
    hasty = {run for run, task in streams.runs.items() if task.workflow == "hasty" and _failed(streams, run)}
    for told in log.values():
        if told.run not in streams.runs:
            verdict.lost.append(f"trigger of {told.workflow} was acknowledged, and run {told.run} does not exist")
        elif told.run not in streams.ended:
            verdict.lost.append(f"run {told.run} of {told.workflow} was acknowledged and has no outcome")
    for run, task in streams.runs.items():
        verdict.runs += 1
        verdict.children += task.parent != "-"
        if task.workflow == FRAIL and run in died_in and _failed(streams, run):
            verdict.frail_lost += 1
            continue
        _check_run(verdict, streams, run, task, may_be_cancelled=task.root in cancelled or task.parent in hasty)
    for run in streams.ended.keys() - streams.runs.keys():
        ended = streams.ended[run][0]
        is_adopted = bool(ended.outcome.get("adopted"))
        if not is_adopted and ended.root not in cancelled and ended.parent not in hasty:  # whose tasks were removed
            verdict.wrong.append(f"run {run} has an outcome and was never asked for")
    check_joins(verdict, streams, cancelled | {streams.runs[run].root for run in hasty})
    check_order(verdict, streams, cancelled)
    check_times(verdict, streams, restarts)
    check_limits(verdict, streams, restarts, held_up)
    check_reruns(verdict, streams)
    return verdict


def _not_permitted(streams: Streams) -> set[str]:
    """Return the runs of which a step failed, or the end, as not permitted, and all above them."""
    found = {run for run, endings in streams.ended.items() if any(_tells_not_permitted(one) for one in endings)}
    found |= {run for (run, _), endings in streams.steps.items() if any(_tells_not_permitted(one) for one in endings)}
    for run in list(found):
        found |= {again for again, task in streams.runs.items() if task.elder == run}
    for run in list(found):
        task = streams.runs.get(run)
        while task is not None and task.parent not in found:
            found.add(task.parent)
            task = streams.runs.get(task.parent)
    return found - {"-"}


def _tells_not_permitted(ended: Ended) -> bool:
    errors = [ended.outcome.get("error"), *(ended.outcome.get("errors") or ())]
    return any(error and error["type"] == "PermissionDenied" for error in errors)


def _failed(streams: Streams, run: str) -> bool:
    return any(ended.outcome["status"] == "failed" for ended in streams.ended.get(run, []))


def _check_run(verdict: Verdict, streams: Streams, run: str, task: Task, *, may_be_cancelled: bool) -> None:
    ended = streams.ended.get(run, [])
    if not ended:
        verdict.stuck.append(f"run {run} of {task.workflow} (root {task.root}, depth {task.depth}) has no outcome")
        return
    if len(ended) > 1:
        verdict.doubled.append(f"run {run} of {task.workflow} has {len(ended)} outcomes")
    outcome = ended[0].outcome
    verdict.stored_by[int(outcome.get("worker", "").replace(":", "-").rpartition("-")[2] or 0)] += 1
    got = outcome["status"], outcome.get("output") if outcome["status"] == "succeeded" else None
    verdict.poisoned += task.workflow == POISONED
    verdict.frail += task.workflow == FRAIL
    if run in verdict.not_permitted:
        return
    if got[0] == "cancelled" and may_be_cancelled:
        verdict.cancelled += 1
        return
    again = task.is_again and task.elder in streams.ended  # else its elder's parent had failed before it spawned it
    expected = ending(task.workflow, task.input, again=again)
    if got != expected and not (may_be_cancelled and got[0] == "failed"):
        verdict.wrong.append(
            f"run {run} of {task.workflow} on {json.dumps(task.input)} ended as {json.dumps(got)}, "
            f"and {json.dumps(expected)} is right: {json.dumps(outcome.get('error'))}"
        )
    if task.workflow in GRAPHS and not may_be_cancelled:
        check_steps(verdict, streams, run, task, ended[0])


def check_joins(verdict: Verdict, streams: Streams, cancelled: set[str]) -> None:
    """Every join must have been moved on: by its run's or step's outcome, or by the next turn.

    Of ``cancelled`` roots something was removed.
    """
    for (run, step, turn), (root, record) in streams.joins.items():
        verdict.joins += record["kind"] == "sealed"
        verdict.parked += record["kind"] == "parked"
        moved = run in streams.ended or (run, step) in streams.steps
        if record["kind"] == "parked":
            moved = moved or (run, step, turn + 1) in streams.tasks
            moved = moved or (run, step, turn) not in streams.tasks  # removed, with what had spawned it
        if not moved and root not in cancelled:
            verdict.stuck.append(f"the join of step {step}, turn {turn}, of run {run} is open ({record['kind']})")


def check_order(verdict: Verdict, streams: Streams, cancelled: set[str]) -> None:
    """No step, and no run, may have succeeded before the last of its children ended, unless its policy says so.

    A step that failed waits for none of its children. In trees of ``cancelled`` roots a second step may have spawned a
    child again whose task was removed.
    """
    eager = {
        (run, step) for (run, step, _), (_, record) in streams.joins.items() if record.get("policy", {}).get("early")
    }
    latest: Counter[tuple[str, str]] = Counter()
    for run, task in streams.runs.items():
        for ended in streams.ended.get(run, []):
            address = ended.parent, ended.parent_step
            if (task.parent, task.parent_step) != address and task.root not in cancelled:
                verdict.wrong.append(f"the outcome of run {run} is stored under a step that did not spawn it")
            latest[address] = max(latest[address], ended.sequence)
    for (run, step), sequence in latest.items():
        if run == "-" or (run, step) in eager:
            continue
        for ended in streams.steps.get((run, step), []):
            if ended.outcome["status"] == "succeeded" and ended.sequence < sequence:
                verdict.early.append(f"step {step} of run {run} ended before its children did")
        for ended in streams.ended.get(run, []):
            if ended.outcome["status"] == "succeeded" and ended.sequence < sequence:
                verdict.early.append(f"run {run} ended before the children of its step {step} did")
