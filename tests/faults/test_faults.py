"""Each fault of the shell can be planted; that its tests notice it is left to ``make mutants``."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from tests.faults.planted import FAULTS
from tests.faults.playing import ROOT, Fault, planted


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_can_be_planted_and_its_tests_exist(fault: Fault) -> None:
    assert planted(fault) != (ROOT / "jetflow" / fault.module).read_text()
    for test in fault.noticed_by:
        file, _, name = test.partition("::")
        assert re.search(
            rf"^(async )?def {re.escape(name.partition('[')[0])}\(", (ROOT / file).read_text(), re.MULTILINE
        )


def test_a_fault_whose_place_is_gone_is_refused_by_name() -> None:
    gone = Fault("nothing", "worker/sweeper.py", "what is not there", "", ())
    with pytest.raises(ValueError, match=r"nothing: worker/sweeper.py holds 'what is not there' 0 times"):
        planted(gone)


def test_faults_have_names_of_their_own() -> None:
    assert max(Counter(fault.name for fault in FAULTS).values()) == 1
