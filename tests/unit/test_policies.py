"""When a join is decided, and how."""

from collections.abc import Callable
from itertools import product

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jetflow.engine.policies import JoinPolicy
from jetflow.wire.records import encode

policies = st.one_of(
    st.sampled_from([JoinPolicy.all_succeed(), JoinPolicy.fail_fast(), JoinPolicy.collect(), JoinPolicy.first()]),
    st.builds(JoinPolicy.of_quorum, st.integers(1, 8), cancel_rest=st.booleans()),
    st.builds(JoinPolicy.tolerate, st.integers(0, 8)),
    st.builds(lambda fraction: JoinPolicy.tolerate(fraction=fraction), st.floats(0, 1)),
)


@pytest.mark.parametrize(
    ("policy", "total", "succeeded", "ended", "verdict"),
    [
        (JoinPolicy.all_succeed(), 3, 2, 2, "open"),
        (JoinPolicy.all_succeed(), 3, 3, 3, "met"),
        (JoinPolicy.all_succeed(), 3, 1, 2, "open"),
        (JoinPolicy.all_succeed(), 3, 2, 3, "missed"),
        (JoinPolicy.all_succeed(), 0, 0, 0, "met"),
        (JoinPolicy.fail_fast(), 3, 0, 1, "missed"),
        (JoinPolicy.fail_fast(), 3, 2, 2, "open"),
        (JoinPolicy.collect(), 2, 0, 2, "met"),
        (JoinPolicy.collect(), 2, 0, 1, "open"),
        (JoinPolicy.tolerate(1), 3, 2, 3, "met"),
        (JoinPolicy.tolerate(1), 3, 1, 3, "missed"),
        (JoinPolicy.tolerate(fraction=0.5), 4, 2, 4, "met"),
        (JoinPolicy.tolerate(fraction=0.5), 5, 2, 5, "missed"),
        (JoinPolicy.first(), 3, 1, 2, "met"),
        (JoinPolicy.first(), 3, 0, 2, "open"),
        (JoinPolicy.first(), 3, 0, 3, "missed"),
        (JoinPolicy.of_quorum(2), 3, 0, 2, "missed"),
    ],
)
def test_verdicts(policy: JoinPolicy, total: int, succeeded: int, ended: int, verdict: str) -> None:
    assert policy.verdict(total, succeeded, ended) == verdict


@given(policies, st.integers(0, 7))
def test_every_join_is_decided_once_all_have_ended(policy: JoinPolicy, total: int) -> None:
    for succeeded in range(total + 1):
        assert policy.verdict(total, succeeded, total) != "open"


@given(policies, st.integers(1, 6), st.data())
def test_a_verdict_stands(policy: JoinPolicy, total: int, data: st.DataObject) -> None:
    ends = data.draw(st.lists(st.booleans(), min_size=total, max_size=total))
    seen = [policy.verdict(total, sum(ends[:ended]), ended) for ended in range(total + 1)]
    decided = [verdict for verdict in seen if verdict != "open"]
    assert len(set(decided)) == 1
    assert seen[-len(decided) :] == decided, "what is decided stays decided"


@given(policies, st.integers(1, 5), st.data())
def test_no_look_is_spared_that_would_decide(policy: JoinPolicy, total: int, data: st.DataObject) -> None:
    """Whatever the next ones do, the verdict stays open for as many as `missing` says, less one."""
    ended = data.draw(st.integers(0, total))
    succeeded = data.draw(st.integers(0, ended))
    missing = policy.missing(total, succeeded, ended)
    assert (missing == 0) == (policy.verdict(total, succeeded, ended) != "open")
    for ends in product((False, True), repeat=missing - 1) if missing else ():
        assert policy.verdict(total, succeeded + sum(ends), ended + len(ends)) == "open"


@given(policies, st.integers(0, 7))
def test_below_the_threshold_no_policy_is_met(policy: JoinPolicy, total: int) -> None:
    for ended in range(min(policy.threshold(total), total + 1)):
        for succeeded in range(ended + 1):
            assert policy.verdict(total, succeeded, ended) != "met"


def test_a_number_and_a_share_are_two_fields() -> None:
    """One that a reader tells apart who has one kind of number: 1 is one child, 1.0 is all of them."""
    assert encode(JoinPolicy.tolerate(1)) == b'{"tolerated":1}'
    assert encode(JoinPolicy.tolerate(fraction=1)) == b'{"fraction":1.0}'
    all_may_fail = msgspec.json.decode(b'{"fraction":1}', type=JoinPolicy)
    assert all_may_fail.verdict(3, 0, 3) == "met"
    none_may_fail = msgspec.json.decode(b'{"fraction":0}', type=JoinPolicy)
    assert none_may_fail.verdict(3, 2, 3) == "missed"


def test_a_bound_keeps_the_policy() -> None:
    assert JoinPolicy.first().within(5).seconds == 5
    assert JoinPolicy.first().within(5).quorum == 1


@pytest.mark.parametrize(
    "build",
    [
        JoinPolicy.tolerate,
        lambda: JoinPolicy.tolerate(1, fraction=0.5),
        lambda: JoinPolicy.tolerate(-1),
        lambda: JoinPolicy.tolerate(fraction=1.5),
        lambda: JoinPolicy.of_quorum(0),
        lambda: JoinPolicy.collect().within(0),
    ],
)
def test_policies_out_of_range(build: Callable[[], JoinPolicy]) -> None:
    with pytest.raises(ValueError, match="JoinPolicy"):
        build()
