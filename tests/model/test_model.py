"""The quick part of the model, as tests: small configurations, some planted bugs, and the model's own soundness."""

from __future__ import annotations

import pytest

from tests.model.configurations import CONFIGURATIONS, NEED_A_SWEEPER
from tests.model.explorer import explore, search
from tests.model.model import Model
from tests.model.mutants import ALL_BUGS, hunt
from tests.model.planting import Bug
from tests.model.scenario import Configuration

QUICK = (
    "three children, counted twice, one worker",
    "a retry spawns nothing",
    "a step that waits warm",
    "a child run with two last steps",
    "a shared child fails",
    "a later step shares a child of an attempt that failed",
    "a step fails beside one that waits",
    "a forged outcome beside a borrowed child",
    "two of three, one fails",
    "one failure is tolerated",
    "a step runs after a failure",
)
SLOW_BUGS = (
    "woken steps wake back",
    "the ledger takes borrowed children for increments to come",
    "a look takes the record of an old turn",
    "a redelivery does not wake what is beside",
    "a finished step wakes nobody",
    "a borrowed child is awaited on the own counter",
    "a recount takes any of the spawned",
    "the ledger is not kept per join",
    "an ended step is not counted again",
)
"""Left to ``make mutants``."""


def named(name: str) -> Configuration:
    return next(one for one in CONFIGURATIONS if one.name == name)


@pytest.mark.parametrize("name", QUICK)
def test_no_interleaving_breaks_a_rule(name: str) -> None:
    report = explore(named(name))
    assert not report.violations, "\n".join(report.trace)
    assert report.finals


@pytest.mark.parametrize("bug", [bug for bug in ALL_BUGS if bug.name not in SLOW_BUGS], ids=lambda bug: bug.name)
def test_a_planted_bug_is_caught(bug: Bug) -> None:
    report = hunt(bug)
    assert report is not None
    assert not report.first.startswith("broken")


@pytest.mark.parametrize("configuration", NEED_A_SWEEPER, ids=lambda one: one.name)
def test_what_only_a_sweeper_mends_is_known(configuration: Configuration) -> None:
    report = explore(configuration, stop_at_first=True)
    assert report.first.startswith("stuck"), "it mends itself now: move it to the other configurations"


@pytest.mark.parametrize("name", ["one failure is tolerated", "three children, counted twice, one worker"])
def test_taking_deliveries_with_the_same_future_for_the_same_loses_no_ending(name: str) -> None:
    merged = search(Model(named(name)))
    apart = search(Model(named(name), merge=False))
    assert merged.finals == apart.finals
    assert merged.states < apart.states
