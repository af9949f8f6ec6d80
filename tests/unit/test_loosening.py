"""What is looser: whatever meets a policy meets every looser one, and nothing else may replace it."""

from __future__ import annotations

from itertools import product

import pytest

from jetflow.engine.joins import JoinRecord, Loosened
from jetflow.engine.loosening import is_of_retry, loosened, name_of, policy_of, same, tighter, why_not
from jetflow.engine.policies import JoinPolicy

TOTAL = 4
IDS = [bytes([number]) * 16 for number in range(TOTAL)]
POLICIES = [
    JoinPolicy.all_succeed(),
    JoinPolicy.fail_fast(),
    JoinPolicy.collect(),
    *(JoinPolicy.tolerate(number) for number in range(TOTAL + 1)),
    *(JoinPolicy.tolerate(fraction=number / TOTAL) for number in range(TOTAL + 1)),
    *(JoinPolicy.of_quorum(number + 1) for number in range(TOTAL + 1)),
    JoinPolicy.of_quorum(2, cancel_rest=False),
]
STATES = [(ended, good) for ended in range(TOTAL + 1) for good in range(ended + 1)]


@pytest.mark.parametrize(("old", "new"), list(product(POLICIES, POLICIES)))
def test_what_meets_a_policy_meets_a_looser_one(old: JoinPolicy, new: JoinPolicy) -> None:
    kept = all(
        new.verdict(TOTAL, good, ended) == "met" for ended, good in STATES if old.verdict(TOTAL, good, ended) == "met"
    )
    if tighter(old, new, TOTAL) is None:
        assert kept
    elif old.quorum is None or old.quorum < TOTAL:
        assert not kept or (new.early and not old.early)


def test_a_time_limit_stays() -> None:
    record = parked(JoinPolicy.all_succeed().within(5))
    assert tighter(record.policy, JoinPolicy.of_quorum(1).within(9), TOTAL) is not None
    assert loosened(record, JoinPolicy.of_quorum(1), record.members).policy.seconds == 5
    assert same(JoinPolicy.of_quorum(1).within(5), JoinPolicy.of_quorum(1))


def test_a_record_is_loosened_again_and_tells_the_last() -> None:
    once = loosened(parked(JoinPolicy.all_succeed()), JoinPolicy.of_quorum(3), b"".join(IDS))
    twice = loosened(once, JoinPolicy.of_quorum(2), once.members)
    assert (once.looser, once.needed, once.policy) == (1, 3, JoinPolicy.of_quorum(3))
    assert (twice.looser, twice.needed) == (2, 2)
    assert twice.loosened == (Loosened(name_of(IDS), JoinPolicy.of_quorum(2)),)
    assert policy_of(twice.loosened, reversed(IDS)) == JoinPolicy.of_quorum(2)
    assert policy_of(twice.loosened, IDS[1:]) is None


def test_what_cannot_be_loosened() -> None:
    assert why_not(parked(JoinPolicy.all_succeed())) is None
    assert why_not(JoinRecord(kind="parked", turn=0, task="", needed=TOTAL)) is not None
    assert why_not(JoinRecord(kind="parked", turn=0, task="", needed=0, until=1.0)) is not None
    assert why_not(JoinRecord(kind="sealed", turn=0, task="", needed=TOTAL, total=TOTAL)) is None
    assert why_not(JoinRecord(kind="sealed", turn=0, task="", needed=0, status="failed")) is not None


def test_the_record_of_an_attempt_tells_of_no_join() -> None:
    assert is_of_retry(JoinRecord(kind="parked", turn=0, task="", needed=0, until=1.0, tried=1))
    assert not is_of_retry(parked(JoinPolicy.all_succeed()))


def parked(policy: JoinPolicy) -> JoinRecord:
    return JoinRecord(
        kind="parked",
        turn=0,
        task="",
        needed=TOTAL,
        total=TOTAL,
        policy=policy,
        members=b"".join(IDS),
        loosable=True,
    )
