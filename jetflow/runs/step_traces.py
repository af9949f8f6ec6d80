"""Where the steps of a run stand, from their tasks, outcomes, join records and recorded attempts."""

from __future__ import annotations

from time import time
from typing import Any, Final, TypeAlias

import msgspec

from jetflow.broker.attendance import WAITED
from jetflow.broker.session import Session
from jetflow.broker.store import Stored, collect
from jetflow.engine.awaiting import Awaited
from jetflow.engine.conditions import ARMED, DECIDED, Armed, Decided, told
from jetflow.engine.events import NO_KEY
from jetflow.engine.graph import Graph, Node
from jetflow.engine.joins import JoinRecord
from jetflow.engine.levels import queue_of
from jetflow.engine.tasks import NULL, Attempt, Failure, Outcome, StepAddress, Task
from jetflow.errors import BrokerRefused, MalformedRecord
from jetflow.runs.missing import is_missed
from jetflow.runs.standing import read_places
from jetflow.runs.tasks import triggered_at
from jetflow.runs.trace import (
    LOST,
    AttemptTrace,
    ConditionTrace,
    JoinTrace,
    LargeValue,
    State,
    StepTrace,
    WaitTrace,
)
from jetflow.runs.values import size_of
from jetflow.wire.events import SIGNALS
from jetflow.wire.records import decode_attempt, decode_join, decode_outcome
from jetflow.wire.subjects import BEGUN, kind_of, last_token, run_of_outcome, turn_of_join

Turn: TypeAlias = tuple[Task, Stored]
"""A task, and the message that it stands in."""

_OPEN: Final = ("pending", "queued", "running", "waiting", "retrying")


class StepRecords:
    """What is stored of the steps of one run, by step; join records and times of the next attempt by turn."""

    def __init__(self) -> None:
        self.outcomes: dict[str, Outcome] = {}
        self.joins: dict[tuple[str, int], JoinRecord | None] = {}
        self.joined_at: dict[tuple[str, int], float] = {}
        self.attempts: dict[str, list[Attempt]] = {}
        self.begun: dict[str, list[Attempt]] = {}
        self.again: dict[tuple[str, int], float] = {}
        self.conditions: dict[str, ConditionTrace] = {}

    async def read_conditions(self, session: Session, root: str, run: str, steps: tuple[str, ...]) -> None:
        """Read what is recorded of the conditions of steps that have some."""
        names, store = session.names, session.store
        joins = {step: StepAddress(root, run, step) for step in steps}
        subjects = {names.once(join, name): step for step, join in joins.items() for name in (ARMED, DECIDED)}
        for message in await collect(store.many(names.records_stream, list(subjects))):
            step = subjects[message.subject]
            decided = last_token(message.subject) == DECIDED
            found = self.conditions.get(step, ConditionTrace())
            self.conditions[step] = _with_decision(found, message.body) if decided else _with_terms(found, message.body)

    @classmethod
    async def read(cls, session: Session, root: str, run: str) -> StepRecords:
        """Read all of them."""
        names, store, found = session.names, session.store, cls()
        filters = names.steps_of_run(root, run), names.joins_of_run(root, run), names.attempts_of_run(root, run)
        for message in await store.all_of(names.records_stream, *filters):
            last = last_token(message.subject)
            match kind_of(message.subject):
                case "step":
                    found.outcomes[last] = decode_outcome(message.body)
                case "join":
                    of_turn = message.subject.split(".")[5], turn_of_join(message.subject)
                    found.joins[of_turn], found.joined_at[of_turn] = _join(message), message.time
                case _:
                    found._note_attempt(message, last)
        return found

    def _note_attempt(self, message: Stored, number: str) -> None:
        step, turn = message.subject.split(".")[5:7]
        attempt = decode_attempt(message.body)
        if number.startswith(BEGUN):
            self.begun.setdefault(step, []).append(attempt)
            return
        if attempt.again is not None:
            self.again[step, int(turn)] = attempt.again
        if not attempt.returned:
            self.attempts.setdefault(step, []).append(attempt)


async def read_steps(
    session: Session, graph: Graph, tasks: list[Turn], outcome: Outcome | None
) -> tuple[StepTrace, ...]:
    """Return where the steps of a run stand.

    ``outcome`` is the run's, as it is stored.
    """
    root, run = tasks[0][0].root, tasks[0][0].run
    records = await StepRecords.read(session, root, run)
    if graph.conditional:
        await records.read_conditions(session, root, run, graph.conditional)
    if outcome is not None and graph.sinks == (outcome.step,):
        records.outcomes.setdefault(outcome.step, outcome)  # the end of the only last step is the run's
    traces: list[StepTrace] = []
    for node in _shown(graph, tasks):
        turns = [turn for turn in tasks if turn[0].step == node.name]
        trace = await _step(session, node, turns, records, root)
        if node.name in graph.limited and turns and outcome is None and trace.status in _OPEN:
            places = await read_places(session, turns[0][0], node.name)
            trace = msgspec.structs.replace(trace, places=places)
        if outcome is not None and trace.status in _OPEN and node.name not in graph.sequels:
            trace = msgspec.structs.replace(
                trace, status="cancelled", again=None, sleeps_until=None
            )  # as a whole, or by a failing fast
        traces.append(trace)
    return tuple(traces)


def _shown(graph: Graph, tasks: list[Turn]) -> list[Node]:
    """Return the steps to tell of: one that runs behind the end is among them once it was started."""
    return [*graph.nodes, *(Node(one) for one in graph.sequels if any(task.step == one for task, _ in tasks))]


async def _step(session: Session, node: Node, turns: list[Turn], records: StepRecords, root: str) -> StepTrace:
    outcome = records.outcomes.get(node.name)
    output, large = (None, None) if outcome is None else await _output(session, root, outcome)
    failed = records.attempts.get(node.name, [])
    key = node.name, turns[-1][0].turn if turns else 0
    record, again = records.joins.get(key), records.again.get(key)
    status = await _status(session, turns, outcome, key in records.joins, again)
    begun, condition = records.begun.get(node.name, []), records.conditions.get(node.name)
    attempts = _attempts(status, outcome, record, turns, failed, begun)
    if condition is not None and condition.verdict is None and outcome is None:
        attempts = 0  # its body has not begun
    if status == "waiting" and record is not None and record.gate is not None:
        attempts = record.tried
    last = outcome or record
    adopted = "" if outcome is None else outcome.adopted
    waits = status == "queued" and time() - turns[-1][1].time > WAITED
    return StepTrace(
        name=node.name,
        status=status,
        after=node.after,
        turns=len(turns),
        attempts=attempts,
        queued=triggered_at(turns[0][1]) if turns else None,
        started=None if last is None else last.started or None,
        ended=None if outcome is None else outcome.ended or None,
        worker=None if last is None else last.worker or None,
        error=None if outcome is None else outcome.error,
        output=output,
        large_output=large,
        unattended=waits and await is_missed(session, turns[-1][0].workflow, turns[-1][0].version),
        again=again if status == "retrying" else None,
        sleeps_until=record.until if status == "waiting" and record is not None and not record.counted else None,
        failures=() if adopted else _failures(failed, begun, attempts - (status != "retrying"), outcome),
        condition=condition,
        join=None
        if record is None or (status == "retrying" and not record.counted)
        else _joined(record, records.joined_at.get(key)),
        adopted=run_of_outcome(adopted) if adopted else None,
    )


def _with_terms(found: ConditionTrace, body: bytes) -> ConditionTrace:
    try:
        armed = msgspec.json.decode(body, type=Armed)
    except msgspec.DecodeError:
        return found
    return msgspec.structs.replace(found, skip=told(armed.skip), cancel=told(armed.cancel), run=told(armed.run))


def _with_decision(found: ConditionTrace, body: bytes) -> ConditionTrace:
    try:
        decided = msgspec.json.decode(body, type=Decided)
    except msgspec.DecodeError:
        return found
    return msgspec.structs.replace(found, verdict=decided.verdict, reason=decided.reason)


def _joined(record: JoinRecord, since: float | None) -> JoinTrace:
    return JoinTrace(
        kind=record.kind,
        needed=record.needed,
        total=record.total,
        policy=record.policy,
        since=since,
        until=record.until,
        waits=tuple(map(_waited, record.waits)),
    )


def _waited(awaited: Awaited) -> WaitTrace:
    name = awaited.topic.removeprefix(f"{SIGNALS}.")
    is_signal = name != awaited.topic
    return WaitTrace(
        topic=name,
        key=None if is_signal or awaited.key == NO_KEY else awaited.key,
        signal=is_signal,
        conditions=awaited.if_,
    )


async def _status(
    session: Session, turns: list[Turn], outcome: Outcome | None, joined: bool, again: float | None
) -> State:
    if outcome is not None:
        return outcome.status
    if not turns:
        return "pending"
    if joined:
        return "waiting" if again is None else "retrying"
    return "running" if await is_delivered(session, *turns[-1]) else "queued"


def _attempts(
    status: State,
    outcome: Outcome | None,
    record: JoinRecord | None,
    turns: list[Turn],
    failed: list[Attempt],
    begun: list[Attempt],
) -> int:
    """Return how many attempts were begun, as far as it is recorded."""
    if outcome is not None:
        # One too many deliveries is what told that a task is poison: it was not run.
        return outcome.attempt - (outcome.error is not None and outcome.error.type == "Poisoned")
    if status == "retrying" and record is not None:
        return record.attempt
    if status == "waiting" and record is not None and record.kind == "sealed":
        return record.attempt
    known = max(turns[-1][0].tried if turns else 0, max((attempt.attempt for attempt in failed), default=0))
    last_begun = max((attempt.attempt for attempt in begun), default=0)
    return max(last_begun, known + (status in ("running", "waiting")))


def _failures(
    failed: list[Attempt], begun: list[Attempt], before: int, outcome: Outcome | None
) -> tuple[AttemptTrace, ...]:
    """Return the attempts before the last one, in their order: those that were recorded, and those that were lost."""
    rows = {
        attempt.attempt: AttemptTrace(
            attempt=attempt.attempt,
            worker=attempt.worker,
            started=attempt.started,
            ended=attempt.ended,
            error=attempt.error,
        )
        for attempt in failed
    }
    if outcome is not None and outcome.error is not None and outcome.error.type == "Poisoned":
        before += 1  # the last one was lost as well
    lost = Failure(LOST, "its worker was lost before it could record an outcome")
    for one in begun:
        if one.attempt <= before:
            row = AttemptTrace(attempt=one.attempt, worker=one.worker, started=one.started, error=lost)
            rows.setdefault(one.attempt, row)
    for number in range(1, before + 1):
        rows.setdefault(number, AttemptTrace(attempt=number, error=lost))
    return tuple(rows[number] for number in sorted(rows))


async def _output(session: Session, root: str, outcome: Outcome) -> tuple[Any, LargeValue | None]:
    if outcome.value is not None:
        return None, LargeValue(outcome.value, await size_of(session, root, outcome.value))
    return None if outcome.output == NULL else msgspec.json.decode(outcome.output), None


def _join(message: Stored) -> JoinRecord | None:
    try:
        return decode_join(message.body)
    except MalformedRecord:
        return None


async def is_delivered(session: Session, task: Task, message: Stored) -> bool:
    """Tell whether a task has been delivered, by how far its consumer has come."""
    consumer = session.names.consumer(task.workflow, queue_of(task, task.step))
    try:
        info = await session.connection.api(f"CONSUMER.INFO.{session.names.tasks_stream}.{consumer}")
    except BrokerRefused:
        return False
    return int(info["delivered"]["stream_seq"]) >= message.sequence
