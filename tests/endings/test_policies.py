"""What `tests/unit/test_policies.py` leaves out of the rules of join policies: fractions, records, sleeping parents."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jetflow import JoinPolicy

policies = st.one_of(
    st.sampled_from([JoinPolicy.all_succeed(), JoinPolicy.fail_fast(), JoinPolicy.collect(), JoinPolicy.first()]),
    st.builds(JoinPolicy.of_quorum, st.integers(1, 30), cancel_rest=st.booleans()),
    st.builds(JoinPolicy.tolerate, st.integers(0, 30)),
    st.builds(lambda fraction: JoinPolicy.tolerate(fraction=fraction), st.floats(0, 1)),
)
endings = st.lists(st.booleans(), max_size=25)
"""How children end, in the order in which they do: well or not."""


def verdicts(policy: JoinPolicy, ends: list[bool]) -> list[str]:
    return [policy.verdict(len(ends), sum(ends[:ended]), ended) for ended in range(len(ends) + 1)]


@given(policies, endings)
def test_a_parent_may_sleep_until_the_threshold_or_a_failure(policy: JoinPolicy, ends: list[bool]) -> None:
    """What decides earlier than ``threshold`` children is a failure, and only under an early policy."""
    found = verdicts(policy, ends)
    for ended in range(1, policy.threshold(len(ends))):
        if found[ended] != "open" and found[ended - 1] == "open":
            assert (found[ended], policy.early, ends[ended - 1]) == ("missed", True, False)


@given(policies, endings)
def test_a_policy_survives_its_record(policy: JoinPolicy, ends: list[bool]) -> None:
    again = msgspec.json.decode(msgspec.json.encode(policy), type=JoinPolicy)
    assert again == policy
    assert verdicts(again, ends) == verdicts(policy, ends)


@given(st.integers(0, 1000), st.integers(1, 1000))
def test_a_fraction_means_what_it_says(failures: int, total: int) -> None:
    """0.29 of 100 is 28.999… in binary, and means 29."""
    failures = min(failures, total)
    policy = JoinPolicy.tolerate(fraction=failures / total)
    assert policy.verdict(total, total - failures, total) == "met"
    if failures < total:
        assert policy.verdict(total, total - failures - 1, total) == "missed"


@pytest.mark.parametrize("children", [0, 1, 3])
def test_a_quorum_of_more_than_there_are_is_missed_before_anything_has_ended(children: int) -> None:
    policy = JoinPolicy.of_quorum(4)
    assert policy.verdict(children, 0, 0) == "missed"
    assert policy.threshold(children) == 0
