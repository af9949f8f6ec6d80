"""The kit with a planted fault: ``python -m conformance.wrong_kit FAULT`` is the Python kit that gets one rule wrong.

Each fault reaches into jetflow and breaks one thing, as another implementation might well do it, and names the cases
that must notice. So each of these cases is known to be able to fail: ``python -m conformance.faults`` plays them.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import msgspec

import jetflow.runs.values
from conformance import kit
from jetflow import triggering
from jetflow.broker import registry, topology
from jetflow.engine import (
    admission,
    attempts,
    conditions,
    effects,
    endings,
    events,
    joins,
    levels,
    policies,
    refusals,
    tasks,
    transitions,
)
from jetflow.engine.awaiting import WaitNames
from jetflow.engine.effects import Count, Start, StoreMark, StoreRun, StoreStep
from jetflow.errors import InvalidInput, KeyConflict, MalformedRecord, UnknownWorkflow
from jetflow.runs import cancelling, following, looks, marks, performer, targets, timers
from jetflow.runs import joins as stored_joins
from jetflow.runs.awaiting import Awaiting
from jetflow.runs.performer import Performer
from jetflow.subscriptions import Subscription
from jetflow.wire import events as event_names
from jetflow.wire import records
from jetflow.wire.codec import ANY
from jetflow.wire.events import EventNames
from jetflow.wire.headers import Header
from jetflow.wire.subjects import Subjects
from jetflow.worker import (
    answers,
    cancellation,
    event_runs,
    expecting,
    failures,
    inbox,
    spawning,
    sweeper,
    wakes,
)
from jetflow.worker.assignment import Assignment
from jetflow.worker.bodies import Bodies
from jetflow.worker.deciding import Deciding
from jetflow.worker.deliveries import ACK, Deliveries
from jetflow.worker.execution import Execution
from jetflow.worker.executor import Executor
from jetflow.worker.heartbeat import Heartbeat
from jetflow.worker.recorder import Recorder
from jetflow.worker.starting import Starting


@dataclass(frozen=True)
class Fault:
    """One planted fault, and the cases that must catch it."""

    name: str
    plant: Callable[[], None]
    caught_by: tuple[str, ...]

    @property
    def about(self) -> str:
        """What is wrong."""
        return (self.plant.__doc__ or "").strip()


FAULTS: Final[dict[str, Fault]] = {}

FULL: Final = 10077
"""The server's code for a stream that is full, among others."""


def fault(*caught_by: str) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Make a function that breaks something a fault, named as the function is."""

    def add(plant: Callable[[], None]) -> Callable[[], None]:
        name = plant.__name__.replace("_", "-")
        FAULTS[name] = Fault(name, plant, caught_by)
        return plant

    return add


def replace(module: Any, name: str, wrong: Any) -> Any:
    """Put something wrong in the place of something, wherever it was imported; return what was right."""
    right = getattr(module, name)
    for other in list(sys.modules.values()):
        if getattr(other, "__name__", "").startswith("jetflow") and getattr(other, name, None) is right:
            setattr(other, name, wrong)
    setattr(module, name, wrong)
    return right


def put(owner: Any, name: str, wrong: Any) -> Any:
    """Put something wrong in the place of an attribute; return what was right."""
    right = getattr(owner, name)
    setattr(owner, name, wrong)
    return right


def skip(effect: Any, when: Callable[[Any], bool] = lambda _: True, result: Any = None) -> None:
    """Have an effect of the engine's rules not performed."""
    right = Performer.__init__

    def wrong(self: Performer, session: Any) -> None:
        right(self, session)
        perform = self._perform[effect]

        def maybe(asked: Any, procedure: Any, done: Any) -> None:
            if when(asked):
                self._advance(procedure, result if result is not None else getattr(asked, "outcome", None), done)
            else:
                perform(asked, procedure, done)

        self._perform[effect] = maybe

    Performer.__init__ = wrong


async def nothing(*_: Any, **__: Any) -> None:
    """Do nothing."""


def changed(record: Any, **fields: Any) -> Any:
    """Return a record with other fields."""
    return msgspec.structs.replace(record, **fields)


# --- starting


@fault("W01")
def newest_before_version() -> None:
    """The newest declaration is written before the graph of its version."""

    async def wrong(self: Any, declaration: Any) -> None:
        subject = self._names.workflow(declaration.graph.workflow)
        await self._publisher.store(subject, records.encode(declaration))
        await right(self, declaration)

    right = put(registry.Registry, "_store_version", wrong)


@fault("W02")
def streams_without_batches() -> None:
    """Streams are made without a setting that others rely on."""
    right = replace(
        topology,
        "streams_of",
        lambda *given: [stream | {"allow_batched": False, "allow_atomic": False} for stream in right(*given)],
    )


@fault("W03")
def streams_updated() -> None:
    """Streams that exist get the worker's own settings."""

    async def wrong(connection: Any, config: dict[str, Any]) -> None:
        await right(connection, config)
        await connection.api(f"STREAM.UPDATE.{config['name']}", config)

    right = replace(topology, "ensure_stream", wrong)


@fault("W04")
def edition_unchecked() -> None:
    """Streams of another edition are used all the same."""
    replace(topology, "check_stream", lambda *_: None)


# --- the order of one task


@fault("W10", "J01")
def count_before_outcome() -> None:
    """A child is counted before its outcome is stored."""

    def wrong(task: Any, outcome: Any, graph: Any = None) -> Any:
        yield from transitions.count_up(task, well=outcome.status == "succeeded")
        if outcome.status != "succeeded":
            yield StoreMark(task, outcome)
        yield StoreRun(task, outcome)

    replace(transitions, "conclude", wrong)


@fault("W28")
def ack_before_outcome() -> None:
    """A task is acknowledged while its outcome is on its way."""

    def wrong(self: Any, work: Any, *given: Any) -> None:
        right(self, work, *given)
        self._session.connection.send(work.delivery.reply, ACK)

    right = put(Recorder, "drive", wrong)


@fault("W11", "F01")
def no_mark() -> None:
    """A run that failed stores no mark."""
    skip(StoreMark)


@fault("W11", "W19", "C01", "C07")
def mark_after_outcome() -> None:
    """The mark stands behind the outcome: a join in between takes the child for a success."""

    def wrong(task: Any, outcome: Any, graph: Any = None) -> Any:
        yield StoreRun(task, outcome)
        if outcome.status != "succeeded":
            yield StoreMark(task, outcome)
        yield from transitions.count_up(task, well=outcome.status == "succeeded")
        if graph is not None and outcome.status in endings.FAILED:
            yield from transitions.after_failure(task, graph)

    replace(transitions, "conclude", wrong)


@fault("W10", "M01")
def never_counted() -> None:
    """Children are not counted: their parents wait for the sweeper."""
    skip(Count, lambda effect: effect.by == 1)


@fault("W12", "R01")
def attempts_not_stored() -> None:
    """Attempts that failed leave no record."""
    skip(effects.StoreAttempt)


@fault("W13")
def taken_is_trouble() -> None:
    """A subject that is taken is an error, and the task handed back for ever."""

    async def wrong(self: Any, write: Any) -> None:
        raise MalformedRecord("record", "somebody else has stored it")

    put(Performer, "_confirm", wrong)


@fault("W14", "P14", "P15", "P09c", "R03")
def runs_again() -> None:
    """A redelivered task is run, whatever earlier deliveries have left."""

    def wrong(task: Any, graph: Any) -> Any:
        yield effects.ReadEnded(task)
        return False

    replace(transitions, "redelivered", wrong)


@fault("W15")
def never_poisoned() -> None:
    """A task is run however often its workers were lost."""
    replace(attempts, "attempts_made", lambda _: 0)


@fault("W16")
def returned_counts() -> None:
    """A delivery that was handed back counts as an attempt."""
    replace(attempts, "attempts_made", lambda recorded: len({one.delivery for one in recorded}))


@fault("W37")
def deliveries_count() -> None:
    """A delivery that reached nobody counts as an attempt."""

    async def wrong(self: Any, work: Any) -> bool:
        done = await right(self, work)
        work.attempt = work.task.tried + work.delivery.count
        return done

    right = put(Executor, "_is_done", wrong)


@fault("W17")
def malformed_comes_back() -> None:
    """A message that is no task is handed back, to come again."""

    def wrong(self: Any, delivery: Any, error: Any) -> None:
        self.nak(delivery, 1.0)

    put(Deliveries, "reject", wrong)


@fault("W18", "W24")
def no_heartbeat() -> None:
    """Nothing keeps tasks alive."""
    put(Heartbeat, "start", nothing)


@fault("W19", "F11")
def deadline_ignored() -> None:
    """Jf-Deadline is not read."""
    _unread(Header.DEADLINE)


@fault("W23")
def bad_input_tried_again() -> None:
    """An input that does not fit is tried again."""
    replace(failures, "FINAL", tuple(kind for kind in failures.FINAL if kind is not InvalidInput))


# --- large values


@fault("W20")
def large_output_inside() -> None:
    """A large output stands in its record."""
    replace(jetflow.runs.values, "is_large", lambda *_: False)


@fault("W21")
def large_input_ignored() -> None:
    """Jf-Value is not read: the body is empty."""
    right = replace(records, "parse_task", lambda *given: changed(right(*given), value=None))


@fault("W22")
def digest_unchecked() -> None:
    """What a reference names is taken as it is."""

    async def wrong(session: Any, root: str, reference: str) -> bytes:
        names, (name, _, count) = session.names, reference.partition(".")
        parts = [
            await session.store.leader_last(names.values_stream, names.value(root, name, number))
            for number in range(int(count))
        ]
        return b"".join(part.body for part in parts if part is not None)

    replace(jetflow.runs.values, "get", wrong)


# --- what a worker does not know, and stopping


@fault("W26")
def unknown_fails_at_once() -> None:
    """A step that is not known fails its run at once."""
    put(kit, "UNKNOWN_STEP_GRACE", 0)


@fault("W27")
def unknown_version_is_the_newest() -> None:
    """A version that nobody has declared is taken for the newest."""

    async def wrong(self: Any, workflow: str, version: str) -> Any:
        return await right(self, workflow, version) or await right(self, workflow, "")

    right = put(registry.Registry, "graph", wrong)


@fault("W25")
def handed_back_without_record() -> None:
    """A task is handed back without an Attempt that says so."""
    put(Deliveries, "store_attempt", nothing)


@fault("W32")
def redelivered_without_look() -> None:
    """A redelivered task whose run has ended is counted, and nobody looks."""

    def wrong(task: Any, graph: Any) -> Any:
        ended = yield effects.ReadEnded(task)
        if ended.run is not None:
            yield Count(task.parent_join, "join", 1)
        return ended.run is not None

    replace(transitions, "redelivered", wrong)


# --- trouble with the broker


@fault("W28")
def full_is_taken() -> None:
    """Every 10077 is taken for `the subject is taken`, and that for `stored`."""

    async def wrong(self: Any, write: Any) -> Any:
        return write.outcome

    put(Performer, "_confirm", wrong)

    def taken(code: int, err_code: int, description: str = "") -> Any:
        return refusals.Refusal.TAKEN if err_code == FULL else right(code, err_code, description)

    right = replace(refusals, "refusal_of", taken)


@fault("W29")
def taken_is_stored() -> None:
    """A subject that is taken is not read from the leader."""

    async def wrong(self: Any, write: Any) -> Any:
        return write.outcome

    put(Performer, "_confirm", wrong)


@fault("W30", "W31", "W33", "P09a", "P09b")
def ack_at_first() -> None:
    """A task is acknowledged when it comes: what its worker had not done when it died, nobody does."""

    async def wrong(self: Any, delivery: Any, slots: Any) -> None:
        self._session.connection.send(delivery.reply, ACK)
        await right(self, delivery, slots)

    right = put(Executor, "execute", wrong)


@fault("W34")
def defaults_required() -> None:
    """A record that leaves its defaults out cannot be read."""

    def wrong(body: bytes) -> Any:
        return msgspec.json.decode(body, type=_StrictAttempt)

    replace(records, "decode_attempt", wrong)


class _StrictAttempt(msgspec.Struct):
    attempt: int
    worker: str
    started: float
    ended: float
    error: Any = None
    returned: bool = False


@fault("W36")
def unreadable_attempt_ignored() -> None:
    """An Attempt that cannot be read is taken for one that was handed back."""
    right = records._read_attempt

    def wrong(body: bytes) -> Any:
        try:
            return right(body)
        except MalformedRecord:
            return tasks.Attempt(returned=True)

    replace(records, "decode_attempt", wrong)


@fault("W35")
def headers_not_repeated() -> None:
    """Later tasks of a run have lost its metadata and key."""
    right = records.task_headers

    def wrong(task: Any, message_id: str) -> dict[str, str]:
        return right(changed(task, metadata=None, key=None), message_id)

    replace(performer, "task_headers", wrong)


@fault("J19")
def outcome_beside_not_compared() -> None:
    """The outcome of a shared child is refused by one under its own step only."""
    replace(Subjects, "run_of_any_step", Subjects.run_of)


@fault("P05")
def shared_not_said() -> None:
    """Children of a step that others stand beside carry no Jf-Shared."""
    right = spawning._common_headers

    def wrong(task: Any, target: Any, policy: Any, **more: Any) -> dict[str, str]:
        changed: dict[str, Any] = more | {"shared": False}
        return right(task, target, policy, **changed)

    replace(spawning, "_common_headers", wrong)


# --- looks


def _count_up(*, reached: bool = True, eager: bool = True, failed: bool = True) -> None:
    def wrong(task: Any, *, well: bool = False) -> Any:
        join = task.parent_join
        if join is None:
            return
        value = yield Count(join, "join", 1)
        if eager and task.eager and not well:
            yield from transitions.settle(join)
        elif reached and value is not None and value >= joins.SEAL:
            yield from transitions.settle(join, value)
        elif failed and value is not None and joins.SEAL // 2 < value < joins.SEAL and not well:
            yield from transitions.settle(join, failure=True)

    replace(transitions, "count_up", wrong)


@fault("J01", "J04", "W33", "M04")
def no_look() -> None:
    """Whose count reaches SEAL does not look."""
    _count_up(reached=False)


@fault("J02")
def eager_ignored() -> None:
    """Jf-Eager is not read."""
    _count_up(eager=False)


@fault("J03")
def parked_failure_ignored() -> None:
    """A child that failed looks at SEAL only: a parked join that fails fast waits for all."""
    _count_up(failed=False)


@fault("J04")
def counter_decides() -> None:
    """A counter at SEAL is taken for a complete join."""

    async def wrong(self: Any, join: Any, record: Any, *, likely: bool) -> Any:
        return max(record.needed, record.total), record.members

    put(looks.Looks, "_ended", wrong)


@fault("J05")
def sums_unchecked() -> None:
    """Of a clean record only the number of outcomes counts."""
    put(joins.Tally, "disputed", property(lambda _: False))


@fault("J06")
def members_ignored() -> None:
    """All outcomes under the step count, also those that are no members."""
    right = replace(looks, "Tally", lambda record, members=None: right(changed(record, members=None), None))


@fault("J07")
def lenders_silent() -> None:
    """Who finishes a step does not look at the steps beside it."""

    def wrong(*_: Any) -> Any:
        yield from ()

    replace(transitions, "wake_beside", wrong)


@fault("J08")
def whole_ignored() -> None:
    """A record that is kept apart is read as if it were all."""

    async def wrong(session: Any, join: Any, body: bytes) -> Any:
        return stored_joins.read_record(join, body)

    replace(stored_joins, "unpacked", wrong)


@fault("J09")
def marks_decide() -> None:
    """A mark is taken for a failure, whatever the outcome says."""
    right = put(looks, "decode_outcome", lambda body: changed(right(body), status="failed"))


@fault("J10")
def excused_ignored() -> None:
    """A failed child that the step has seen fails it."""

    async def wrong(*given: Any) -> Any:
        return changed(await right(*given), excused=())

    right = replace(stored_joins, "unpacked", wrong)


@fault("J11")
def fraction_ignored() -> None:
    """A policy's fraction is not read."""
    put(policies.JoinPolicy, "_allowed", lambda self, total: total if self.anything else self.tolerated)


@fault("J12", "P10")
def next_task_by_chance() -> None:
    """The message of a next task has an id by chance, and a turn that is not its own."""

    def wrong(self: Any, effect: Any, procedure: Any, done: Any) -> None:
        right(self, changed(effect, turn=effect.turn + secrets.randbelow(10**6) + 1), procedure, done)

    right = put(Performer, "_start", wrong)


@fault("J13", "P08", "R02", "M03")
def wrong_next_turn() -> None:
    """The turn behind a parked one has the wrong number."""

    def wrong(task: Any, tried: int) -> Any:
        yield Start(task, task.step, task.turn + 2, tried)

    replace(transitions, "wake", wrong)


@fault("J14")
def rest_goes_on() -> None:
    """What is open when a policy is met is not cancelled."""
    skip(effects.CancelRest)


@fault("J15", "J16")
def joins_only_of_steps() -> None:
    """A join that ends a run stores the step's outcome only."""

    def wrong(task: Any, graph: Any, outcome: Any, *, spawned: bool = False, woken: Any = None) -> Any:
        yield StoreStep(task, outcome)
        if graph.downstream[task.step]:
            yield from transitions.advance(task, graph, task.step, outcome)

    replace(transitions, "finish", wrong)


@fault("J17", "J18")
def broken_joins_wait() -> None:
    """A join that cannot be decided is left for ever."""
    put(looks.Looks, "_broken", nothing)


# --- limits


@fault("W35")
def places_not_repeated() -> None:
    """Later tasks of a run have lost its places: who ends it gives none back."""
    right = records.task_headers

    def wrong(task: Any, message_id: str) -> dict[str, str]:
        return right(changed(task, places=None, held=None), message_id)

    replace(performer, "task_headers", wrong)


@fault("P01", "M06")
def places_not_told_to_children() -> None:
    """Children are not told of the places that their parent, and those above it, have: they wait for these for ever."""
    right = spawning._common_headers

    def wrong(task: Any, *given: Any, **more: Any) -> dict[str, str]:
        return right(changed(task, places=None, held=None), *given, **more)

    replace(spawning, "_common_headers", wrong)


@fault("L01", "L03")
def never_gone() -> None:
    """Entries are removed, and it is not stored that their run has gone: one that is slow enters again."""
    skip(effects.StoreGone)


@fault("L01", "L03", "M07")
def nobody_looks_behind() -> None:
    """Who gives a place back does not look who is next."""
    skip(effects.LookAtGate)


@fault("L02")
def limits_unheeded() -> None:
    """A step that is limited runs as any other."""

    async def wrong(*_: Any) -> bool:
        return True

    put(Executor, "_has_places", wrong)


@fault("L04")
def turn_unheeded() -> None:
    """A run begins, whatever its rate limits say."""

    def wrong(*_: Any) -> Any:
        return True
        yield

    replace(admission, "_may_begin", wrong)


# --- parents


@fault("P01")
def keys_as_digests() -> None:
    """The id of a child with a key is derived as if the key were a digest."""
    right = replace(spawning, "child_ids", lambda parent, workflow, keyed: right(parent, workflow, keyed=False))


@fault("P01")
def message_id_without_digest() -> None:
    """The message id of a child with a key lacks its digest: another input would pass unseen."""

    def wrong(self: Any, value: Any, key: Any) -> Any:
        planned = right(self, value, key)
        block = planned.item.headers.replace(f".{planned.digest}\r\n".encode(), b"\r\n", 1)
        return changed(planned, item=changed(planned.item, headers=block))

    right = put(spawning._Planner, "plan", wrong)


@fault("P02")
def twice_needed() -> None:
    """Equal inputs are needed as often as they were spawned."""
    replace(joins, "distinct_ids", lambda packed: packed)


@fault("P03", "P07", "P09d")
def every_attempt_clean() -> None:
    """A later attempt writes a record without members."""

    def wrong(self: Any, *given: Any, **named: Any) -> None:
        right(self, *given, **named)
        self.clean = True

    right = put(Execution, "__init__", wrong)


@fault("P04")
def conflict_tried_again() -> None:
    """A KeyConflict is tried again."""
    replace(failures, "FINAL", tuple(kind for kind in failures.FINAL if kind is not KeyConflict))


@fault("P05")
def borrowed_as_own() -> None:
    """A child that another step spawned first is counted as one's own."""
    put(spawning.Spawner, "owned", lambda self: spawning.distinct_ids(b"".join(group.ids for group in self.groups)))
    put(Execution, "_borrowed", staticmethod(lambda _: ()))


@fault("P06", "F12")
def no_total() -> None:
    """A sealed record says nothing of how many children decide: none of them can fail the step."""

    async def wrong(*given: Any) -> Any:
        return changed(await right(*given), total=0)

    right = replace(stored_joins, "unpacked", wrong)


@fault("P02", "M02")
def seal_not_counted() -> None:
    """A sealed join is stored, and not counted: nobody looks."""
    skip(Count, lambda effect: effect.kind == "join" and effect.by > 1, result=0)


@fault("P08")
def parked_without_record() -> None:
    """A parked step counts before its record is stored."""

    def wrong(task: Any, record: Any) -> Any:
        yield Count(task.join, "join", record.increment)
        yield effects.StoreJoin(task, record)
        yield from transitions.settle(task.join)

    replace(transitions, "seal", wrong)


@fault("P10")
def references_not_loaded() -> None:
    """Outputs that are kept by reference are missing in the output of a run with several last steps."""

    async def wrong(self: Any, task: Any, step: str, ended: Any) -> Any:
        return ended

    put(Performer, "_whole", wrong)


@fault("P11")
def failure_step_skipped() -> None:
    """A redelivered on_failure step finds its run ended, and is skipped."""

    def wrong(task: Any, graph: Any) -> Any:
        ended = yield effects.ReadEnded(task)
        return ended.run is not None

    replace(transitions, "redelivered", wrong)


@fault("P11", "F06")
def no_failure_step() -> None:
    """Nothing follows a failed run."""

    def wrong(*_: Any) -> Any:
        yield from ()

    replace(transitions, "after_failure", wrong)


@fault("P12")
def detached_in_its_tree() -> None:
    """A detached child belongs to the tree of who spawned it."""

    async def wrong(session: Any, task: Any, *, timeout: Any) -> bool:
        return await right(session, changed(task, parent=task.root, parent_step="run"), timeout=timeout)

    right = put(spawning, "start_root", wrong)


@fault("P13")
def depth_stands_still() -> None:
    """Children are as deep as their parents."""

    def wrong(task: Any, *given: Any, **more: Any) -> Any:
        return right(task, *given, **more) | {Header.DEPTH: str(task.depth)}

    right = replace(spawning, "_common_headers", wrong)


@fault("P16")
def ended_step_not_counted() -> None:
    """A redelivered step whose end is stored is not counted, whoever ended it."""

    async def wrong(performer: Any, effect: Any) -> Any:
        ended = await right(performer, effect)
        return ended if ended.step is None else changed(ended, joined=False)

    right = put(Performer, "_read_ended", wrong)


# --- failing steps


@fault("F01", "F02", "F03", "F07")
def first_failure_ends_the_run() -> None:
    """A step that fails ends the run at once, without a step Outcome: the rule of the first edition."""

    def wrong(task: Any, graph: Any, outcome: Any, **more: Any) -> Any:
        if outcome.status in endings.FAILED and task.step != graph.on_failure:
            yield from transitions.conclude(task, outcome, graph)
        else:
            yield from right(task, graph, outcome, **more)

    right = replace(transitions, "finish", wrong)


@fault("F02", "F04", "F09")
def failures_decide_nothing() -> None:
    """What stands behind a failed step runs."""
    replace(endings, "decide", lambda *_, **__: "run")


@fault("F03")
def one_error() -> None:
    """A failed run tells its first error only."""
    right = replace(endings, "ending", lambda *given: changed(right(*given), errors=()))


@fault("F04")
def gates_count_successes() -> None:
    """A step that failed does not come to the gate behind it."""
    skip(Count, lambda effect: effect.kind == "gate" and effect.address.step == "d", result=0)


@fault("F05", "F10", "F13")
def fast_without_cancelling() -> None:
    """fail_fast ends the run, and lets its other steps go on."""
    skip(effects.CancelRun)


@fault("F05")
def fast_as_slow() -> None:
    """fail_fast is not read."""

    def wrong(task: Any, graph: Any, step: str, ended: Any) -> Any:
        return right(task, changed(graph, fail_fast=False), step, ended)

    right = replace(transitions, "advance", wrong)


@fault("F08")
def failed_steps_do_not_seal() -> None:
    """A step that failed and had spawned leaves no join: who has borrowed from it is never woken."""
    put(Assignment, "may_have_spawned", False)


# --- timers


@fault("R01", "R07")
def no_timer() -> None:
    """A step that waits for a time is parked, and no timer is armed."""
    skip(effects.Arm, result=0)


@fault("R01")
def timers_come_early() -> None:
    """The time of a timer is rounded down."""
    right = replace(timers, "written", lambda seconds: right(int(seconds) - 0.0))


@fault("R01", "R09")
def handed_back_with_delay() -> None:
    """A failed attempt holds its place: -NAK with a delay, and no record."""

    def wrong(task: Any, delivery: int, tried: Any, record: Any) -> Any:
        yield effects.StoreAttempt(task, delivery, tried)
        raise MalformedDelay

    replace(transitions, "postpone", wrong)
    put(Recorder, "_driven", _driven_with_delay(Recorder._driven))


class MalformedDelay(Exception):
    """Says that a task is to be handed back with a delay."""


def _driven_with_delay(right: Any) -> Any:
    def wrong(self: Any, work: Any, *given: Any, **named: Any) -> None:
        if isinstance(given[-1], MalformedDelay):
            self._record_less(work.size)
            self._deliveries.nak(work.delivery, 0.5)
        else:
            right(self, work, *given, **named)

    return wrong


@fault("W12", "R02", "R04")
def attempts_forgotten() -> None:
    """The task of a next turn does not say how many attempts were made."""
    right = records.task_headers

    def wrong(task: Any, message_id: str) -> dict[str, str]:
        return right(changed(task, tried=0), message_id)

    replace(performer, "task_headers", wrong)
    turn = wakes.next_turn
    replace(wakes, "next_turn", lambda subject, headers, _: turn(subject, headers, 0))


@fault("R03", "R10")
def not_armed_again() -> None:
    """A redelivered turn that is parked for a time is acknowledged, and no timer is armed."""

    def wrong(task: Any, graph: Any) -> Any:
        ended = yield effects.ReadEnded(task)
        if ended.join is not None and ended.join.until is not None:
            return True
        return (yield from right(task, graph))

    right = replace(transitions, "redelivered", wrong)


@fault("R05", "E17")
def wakes_the_ended() -> None:
    """A due message, or an event, wakes a step of a run that has ended."""

    async def wrong(*_: Any) -> bool:
        return True

    put(wakes.Wakes, "_is_sequel", wrong)


@fault("R11")
def counts_what_waits_for_news() -> None:
    """A parked record that needs no child and has no time is counted."""
    put(joins.JoinRecord, "counted", property(lambda record: record.until is None or record.needed > 0))


@fault("R12")
def begun_at_once() -> None:
    """Jf-Not-Before is not read."""
    _unread(Header.NOT_BEFORE)


def _unread(header: str) -> None:
    def wrong(headers: Any, name: str) -> float | None:
        return None if name == header else right(headers, name)

    right = replace(records, "read_time", wrong)


@fault("R06", "C06")
def timers_stay() -> None:
    """Cancelling leaves timers."""

    async def wrong(session: Any, stream: str, subjects: Any) -> int:
        return 0 if stream == session.names.timers_stream else await right(session, stream, subjects)

    right = replace(cancelling, "purge", wrong)


@fault("R07")
def bounded_joins_not_counted() -> None:
    """A join with a deadline waits for its time alone."""
    put(joins.JoinRecord, "counted", property(lambda self: self.until is None))


@fault("R08")
def not_disarmed() -> None:
    """Who wakes a bounded join by its children leaves its timer."""
    skip(effects.Disarm)


# --- events


@fault("E01")
def runs_of_events_by_chance() -> None:
    """A run that an event starts has an id of its own: an event that is delivered twice starts two."""
    replace(events, "run_of_event", lambda *_: secrets.token_hex(16))


@fault("E01")
def events_unsaid() -> None:
    """A run does not say which event has started it."""
    replace(event_names, "STARTED_BY", "event")


@fault("E02")
def events_by_sequence() -> None:
    """The id of an event without a message id is its sequence alone, which a stream that is made anew repeats."""
    replace(events, "event_id", lambda given, sequence, _: given or str(sequence))


@fault("E03")
def all_events_fit() -> None:
    """The conditions of events that start runs are not read."""
    put(Subscription, "takes", lambda *_: True)


@fault("E04")
def unfit_events_dropped() -> None:
    """An event that is no input vanishes."""
    put(event_runs.Starting, "_fail", nothing)


@fault("E10", "E16")
def no_look_behind_the_wait() -> None:
    """Who has stored its wait does not look again: an event that came meanwhile wakes nobody."""

    async def wrong(self: Any, effect: Any) -> bool:
        blind = Awaiting(self._session)
        put(blind, "earliest", nothing)
        await right(blind, effect)
        return False

    right = put(Awaiting, "stand", wrong)


@fault("E11")
def waits_stay() -> None:
    """Who wakes a step leaves its waits."""
    put(expecting.Waker, "_purge", nothing)


@fault("E11")
def waits_for_any_key_unread() -> None:
    """An event wakes those alone that wait for its key."""
    right = put(EventNames, "waits_for", lambda self, *given: right(self, *given)[:1])


@fault("E12")
def events_taken_twice() -> None:
    """Each wait looks from the beginning of its run."""
    put(WaitNames, "behind", lambda *_: 0)


@fault("E13", "E14")
def timed_waits_unsaid() -> None:
    """A wait does not say that its turn has a timer: whoever wakes it leaves that."""
    right = put(EventNames, "wait", lambda self, *given, **_: right(self, *given))


@fault("E15")
def conditions_of_waits_unread() -> None:
    """An event wakes all that wait for such, whatever their conditions say."""

    async def wrong(_: Any, __: Any, waits: list[str]) -> list[str]:
        return waits

    put(expecting.Waker, "_those_that_fit", wrong)


@fault("E16", "E18")
def waits_not_stored_again() -> None:
    """A redelivered turn that waits for an event is acknowledged, and nothing stands for it."""

    def wrong(task: Any, graph: Any) -> Any:
        ended = yield effects.ReadEnded(task)
        if ended.join is not None and ended.join.waits:
            return True
        return (yield from right(task, graph))

    right = replace(transitions, "redelivered", wrong)


# --- conditions


def weighed_wrong(changes: Callable[[Any, float, Any], tuple[Any, float, Any]]) -> None:
    """Have conditions weighed by something else than what is there."""
    right = replace(conditions, "weigh", lambda *given: right(*changes(*given)))


@fault("D01", "D05")
def skip_if_ignored() -> None:
    """Nothing skips a step."""
    weighed_wrong(lambda armed, now, came: (changed(armed, skip=()), now, came))


@fault("D03")
def cancel_if_ignored() -> None:
    """Nothing cancels a step."""
    weighed_wrong(lambda armed, now, came: (changed(armed, cancel=()), now, came))


@fault("D05")
def looking_decides() -> None:
    """An event counts as come when it is seen: a time that was over later goes before it."""
    weighed_wrong(lambda armed, now, came: (armed, now, dict.fromkeys(came, now)))


@fault("D02")
def conditions_unrecorded() -> None:
    """What code says of conditions is not recorded: each turn, and each version of the code, asks it again."""

    async def wrong(self: Any, task: Any, name: str, body: bytes, point: str) -> bytes:
        return body if name == conditions.ARMED else await right(self, task, name, body, point)

    right = put(Deciding, "_record", wrong)


@fault("D02", "D04")
def conditions_without_a_timer() -> None:
    """A step whose conditions have a time is parked without one."""
    right = put(Deciding, "parking", lambda self, *given: changed(right(self, *given), until=None))


@fault("D06")
def decisions_unread() -> None:
    """What was decided is decided anew."""

    async def wrong(self: Any, task: Any, name: str) -> Any:
        return None if name == conditions.DECIDED else await right(self, task, name)

    right = put(Deciding, "_recorded", wrong)


@fault("D07")
def predicates_tried_again() -> None:
    """A condition whose code fails is an attempt that failed."""

    def wrong(self: Any, work: Any, failure: Any, *given: Any) -> None:
        if failure.type == "PredicateFailed":
            self._postpone(work, failure, 1.0)
        else:
            right(self, work, failure, *given)

    right = put(Recorder, "end", wrong)


@fault("D01", "D08")
def conditional_as_any() -> None:
    """A step that conditions decide runs as any other."""

    async def wrong(*_: Any) -> bool:
        return True

    put(Executor, "_is_decided", wrong)


# --- cancelling


@fault("C01")
def no_mark_of_its_own() -> None:
    """A child of a cancelled run ends without a cancel mark of its own: its children go on."""
    put(cancellation.Cancellations, "knows", lambda *_: True)


@fault("C02")
def alone_is_for_all() -> None:
    """A mark that says "alone" covers what the run has spawned."""
    replace(cancellation, "_FOR_ONE", (None,))


@fault("C12")
def rest_is_for_all() -> None:
    """A mark of a run that failed fast covers what its step on failure spawns."""
    put(cancellation, "REST", b"never")


@fault("C03")
def deleted_is_cancelled() -> None:
    """Of a deleted tree outcomes are stored."""
    put(cancellation.Cancellations, "deleted", lambda *_: False)


@fault("C13")
def many_unread() -> None:
    """A mark of many deleted trees is not understood."""
    replace(marks, "deleted_by", lambda _: [])


@fault("C04", "M05")
def running_goes_on() -> None:
    """A step that is running is not told that its run is cancelled."""
    put(Bodies, "cancel", lambda *_: None)


@fault("C08")
def no_catching_up() -> None:
    """After a reconnect no marks are read."""
    put(cancellation.Cancellations, "_catch_up", lambda _: None)


@fault("C09")
def marks_not_read() -> None:
    """When a worker starts, it reads no marks."""
    put(cancellation.Cancellations, "_read", nothing)


@fault("C05")
def ends_twice() -> None:
    """A task that was put back gets a second outcome."""
    put(Recorder, "_read_end", nothing)


@fault("C06", "C10")
def queued_tasks_stay() -> None:
    """Cancelling leaves the queued tasks."""
    replace(cancelling, "purge", nothing)


@fault("C11")
def deleted_without_a_mark() -> None:
    """Deleting a tree leaves no mark: what is under way of it stores its outcomes."""
    replace(marks, "DELETED", b"")


# --- clients


@fault("T01")
def conflict_unseen() -> None:
    """A key that was used with another input is taken for the same run."""

    async def wrong(*given: Any, **named: Any) -> bool:
        try:
            return await right(*given, **named)
        except KeyConflict:
            return False

    right = replace(targets, "start_root", wrong)


@fault("T02")
def live_copies_unheard() -> None:
    """A client reads every few seconds, and does not listen."""
    put(following, "CHECK_EVERY", 3.0)
    right = put(Subjects, "live_run_by_id", lambda self, run: right(self, run) + ".never")


@fault("T03")
def live_copies_trusted() -> None:
    """A client waits for the live copy alone."""
    put(following, "CHECK_EVERY", 1000.0)


@fault("T04")
def version_computed() -> None:
    """A run is pinned to a version that was computed, not to the one in the registry."""

    async def wrong(session: Any, workflow: Any) -> Any:
        target = await right(session, workflow)
        if isinstance(workflow, str):
            target = target._replace(version=(await session.registry.find(workflow)).graph.version)
        return target

    right = replace(targets, "resolve", wrong)


@fault("T05")
def deleted_keys_taken() -> None:
    """The key of a tree that was just deleted is used again."""

    async def wrong(*_: Any) -> bool:
        return False

    replace(marks, "was_deleted", wrong)


@fault("T06")
def unknown_names_started() -> None:
    """A client starts runs of a workflow that nobody has declared."""
    right = targets.resolve

    async def wrong(session: Any, workflow: Any) -> Any:
        try:
            return await right(session, workflow)
        except UnknownWorkflow:
            return targets.Target(workflow, "run", "", ANY, ANY)

    replace(targets, "resolve", wrong)


@fault("T07")
def metadata_dropped() -> None:
    """A client does not send metadata."""
    put(triggering, "_encoded", lambda _: None)


# --- what a full worker does for all


@fault("I01")
def keys_of_triggers_ignored() -> None:
    """A trigger's key is not read."""
    right = replace(inbox, "_run_id", lambda delivery, workflow, _, asked: right(delivery, workflow, None, asked))


@fault("I02", "I03")
def bad_triggers_dropped() -> None:
    """A trigger that cannot become a run vanishes."""
    put(Starting, "_fail", nothing)


@fault("I04")
def bad_triggers_end_runs() -> None:
    """A trigger that fails ends the run that exists under its id."""

    async def wrong(self: Any, task: Any, error: Any) -> None:
        failure = tasks.Failure(type(error).__name__, str(error))
        await self._performer.run(transitions.conclude(task, tasks.Outcome(status="failed", error=failure)))

    put(Starting, "_fail", wrong)


@fault("I05")
def looks_not_taken() -> None:
    """Requests to look are acknowledged, and nobody looks."""

    async def wrong(self: Any, delivery: Any) -> bytes:
        return ACK if ".in.look." in delivery.subject else await right(self, delivery)

    right = put(inbox.Inbox, "_handle", wrong)


@fault("I06")
def strange_looks_come_back() -> None:
    """A message that asks for nothing comes again, for ever."""
    put(answers.Answers, "reject", lambda *_: answers.LATER)


@fault("I07")
def levels_forgotten() -> None:
    """All tasks of a step stand in one queue, whatever the level of their run is."""
    replace(levels, "at_level", lambda task, _: task)


@fault("G01")
def no_sweeper() -> None:
    """Nobody sweeps."""
    put(sweeper.Sweeper, "start", nothing)


@fault("G02")
def no_success_step() -> None:
    """Nothing follows a run that has succeeded."""

    def wrong(*_: Any) -> Any:
        yield from ()

    replace(transitions, "after_success", wrong)


def main() -> None:
    """Plant the fault that the command line names, and run the kit."""
    FAULTS[sys.argv[1]].plant()
    asyncio.run(kit.main())


if __name__ == "__main__":
    main()
