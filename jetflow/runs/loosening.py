"""Loosening the policy of a join while its step waits, and reading which were: see `jetflow.engine.loosening`."""

from __future__ import annotations

import msgspec

from jetflow.broker.session import Session
from jetflow.broker.store import Stored
from jetflow.engine.joins import JoinRecord, Loosened
from jetflow.engine.loosening import COUNTED, is_of_retry, loosened, same, tighter, why_not
from jetflow.engine.policies import JoinPolicy
from jetflow.engine.tasks import StepAddress, Task
from jetflow.errors import NothingToLoosen, TighterPolicy, UnknownRun
from jetflow.runs import points
from jetflow.runs.joins import packed, read_record, spawned_by, unpacked
from jetflow.runs.tasks import find_first_task
from jetflow.wire.headers import Header
from jetflow.wire.records import header_block
from jetflow.wire.subjects import LOOSENED, last_token


class LoosenedJoin(msgspec.Struct, frozen=True, kw_only=True):
    """A join whose policy was loosened: of how many ``children``, so many ``successes`` are enough from now on.

    ``changed`` is false if it had this policy already.
    """

    step: str
    policy: JoinPolicy
    children: int
    successes: int
    changed: bool


async def loosen(session: Session, run: str, policy: JoinPolicy, step: str | None) -> LoosenedJoin:
    """Loosen the policy of the join at which a run waits, at one step. It may be asked for again at any time.

    Raises:
        UnknownRun: no run with this id is stored.
        NothingToLoosen: no such step waits for children, or several do, or its code does not know of it.
        TighterPolicy: the policy asks for more than the one that it has.
    """
    first = await find_first_task(session, run)
    if first is None:
        raise UnknownRun(run)
    join = StepAddress(first.root, run, await _waiting_step(session, first) if step is None else step)
    while True:
        stored = await _newest(session, join)
        record = None if stored is None else await unpacked(session, join, stored.body)
        if stored is None or record is None or not await _is_open(session, first, join, record):
            raise NothingToLoosen(run, f"step {join.step!r} does not wait: it runs, or waits in memory, or has ended")
        if (why := why_not(record)) is not None:
            raise NothingToLoosen(run, f"step {join.step!r} cannot be told to go on with fewer children: {why}")
        changed = not same(record.policy, policy)
        if changed:
            if (why := tighter(record.policy, policy, record.total)) is not None:
                raise TighterPolicy(run, join.step, why)
            if not await _store(session, join, stored, loosened(record, policy, await _members(session, join, record))):
                continue  # it was loosened by somebody else, or has gone on
        # Both may be repeated, and are where somebody has died who has stored the same.
        points.before("count_loosened")
        await session.publisher.store(session.names.counter("join", join), b"", _added())
        points.after("count_loosened")
        points.before("ask_look")
        await session.publisher.store(session.names.inbox_look(join), b"")
        points.after("ask_look")
        new = msgspec.structs.replace(policy, seconds=record.policy.seconds)
        return LoosenedJoin(
            step=join.step, policy=new, children=record.total, successes=new.successes(record.total), changed=changed
        )


async def read_loosened(session: Session, join: StepAddress) -> tuple[Loosened, ...]:
    """Return which joins of a step were loosened before its turn began: its newest record tells them all.

    The records of attempts that failed do not: then it is the newest of another kind.
    """
    stored = await _newest(session, join)
    if stored is None:
        return ()
    record = read_record(join, stored.body)
    if not is_of_retry(record):
        return record.loosened
    names, found = session.names, list[str]()
    async for page in session.store.leader_subjects(names.records_stream, names.joins_of_step(join)):
        found += page
    for subject in sorted(found, key=_age, reverse=True):
        older = await session.store.leader_last(names.records_stream, subject)
        if older is not None and not is_of_retry(record := read_record(join, older.body)):
            return record.loosened
    return ()


def _age(subject: str) -> tuple[int, int]:
    time, turn = divmod(int(last_token(subject)), LOOSENED)
    return turn, time


def _added() -> bytes:
    return header_block({Header.INCREMENT: f"+{COUNTED}"})


async def _newest(session: Session, join: StepAddress) -> Stored | None:
    return await session.store.leader_last(session.names.records_stream, session.names.joins_of_step(join))


async def _store(session: Session, join: StepAddress, made_of: Stored, record: JoinRecord) -> bool:
    """Store a record behind the one that it is made of. Returns False if there is a newer one."""
    names = session.names
    subject = names.loosened_join(join, record.turn, record.looser)
    seen = {Header.EXPECTED_LAST: str(made_of.sequence), Header.EXPECTED_LAST_OF: names.joins_of_step(join)}
    body = await packed(session, join.root, record)
    points.before("loosen_join")
    receipt = await session.publisher.store(subject, body, header_block(seen))
    points.after("loosen_join")
    return receipt.stored


async def _members(session: Session, join: StepAddress, record: JoinRecord) -> bytes | None:
    """Return the packed ids of the children that a join record counts.

    Raises:
        NothingToLoosen: nobody can tell which they are.
    """
    if record.members is not None:
        return record.members
    spawned = await spawned_by(session, join)
    if not record.is_whole(spawned):
        raise NothingToLoosen(join.run, f"step {join.step!r} does not name its children, and others are stored")
    return spawned


async def _waiting_step(session: Session, first: Task) -> str:
    """Return the only step of a run that waits for children.

    Raises:
        NothingToLoosen: there is none, or more than one.
    """
    names, found = session.names, set[str]()
    async for page in session.store.leader_subjects(names.records_stream, names.joins_of_run(first.root, first.run)):
        found.update(subject.split(".")[5] for subject in page)
    waiting: list[str] = []
    for step in sorted(found):
        join = StepAddress(first.root, first.run, step)
        stored = await _newest(session, join)
        record = None if stored is None else read_record(join, stored.body)
        if record is not None and record.counted and await _is_open(session, first, join, record):
            waiting.append(step)
    if len(waiting) != 1:
        why = (
            f"of its steps {', '.join(waiting)} wait: name one"
            if waiting
            else ("no step of it waits for children by its records: a join waits in memory before it is parked")
        )
        raise NothingToLoosen(first.run, why)
    return waiting[0]


async def _is_open(session: Session, first: Task, join: StepAddress, record: JoinRecord) -> bool:
    """Tell whether nothing that is stored follows a join."""
    names, store = session.names, session.store
    ended = (
        await store.leader_last(names.records_stream, names.run_of(first)),
        await store.leader_last(names.records_stream, names.step(join)),
    )
    if any(ended):
        return False
    if record.kind == "sealed":
        return True
    return await store.leader_last(names.tasks_stream, names.next_turn(record.task)) is None
