"""The conformance suite as a program: it passes what is right, names what is wrong, and says so by its exit status.

``make conformance`` plays all cases against jetflow's worker, ``make conformance-faults`` all planted faults.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import conformance.cases
from conformance.suite import CASES, LEVELS, chosen
from conformance.wrong_kit import FAULTS

SECONDS = 90


def suite(*arguments: str, kit: tuple[str, ...] = ("conformance.kit",)) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "conformance", *arguments, "--", sys.executable, "-m", *kit]
    return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)


def test_a_selection_passes() -> None:
    """One case or two of each family; `make conformance` plays all."""
    selection = "W02,W10,W11,J01,J07,P01,P10,F01,F05,C01,C06,R01,T01,I01"
    played = suite("--only", selection, "--json")
    results = [json.loads(line) for line in played.stdout.splitlines()]
    assert [result["problem"] for result in results if not result["passed"]] == []
    assert sorted(result["id"] for result in results) == sorted(selection.split(","))
    assert played.returncode == 0


def test_another_implementation_passes() -> None:
    """A worker that shares no code with jetflow: what the cases ask for is in the page."""
    kit = [sys.executable, str(Path(__file__).with_name("foreign_kit.py"))]
    only = "W01,W02,W10,W11,W12,W13,W14,W15,W16,W17,W19,W2[0123],W29,W3[46],J0[123]"
    played = subprocess.run(
        [sys.executable, "-m", "conformance", "--level", "child", "--only", only, "--", *kit],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert played.returncode == 0, played.stdout
    assert "21 of 21 cases passed" in played.stdout


def test_a_fault_is_named_with_what_was_seen() -> None:
    played = suite("--only", "W10,W11", kit=("conformance.wrong_kit", "mark-after-outcome"))
    assert played.returncode == 1
    assert "pass W10" in played.stdout
    assert "FAIL W11" in played.stdout
    assert "wrong order" in played.stdout
    assert "failed: W11" in played.stdout


def test_a_kit_that_does_not_start_is_told() -> None:
    played = suite("--only", "W10", kit=("conformance.no_such_kit",))
    assert played.returncode == 1
    assert "No module named conformance.no_such_kit" in played.stdout


def test_the_list_tells_each_rule() -> None:
    played = suite("--list", "--level", "child")
    lines = played.stdout.splitlines()
    assert len(lines) == len(chosen("child"))
    assert all(len(line.split(maxsplit=2)) == 3 for line in lines)


def test_ctrl_c_ends_it_with_the_kit(tmp_path: Path) -> None:
    noted = tmp_path / "pid"
    kit = f"import os, pathlib, sys; pathlib.Path({str(noted)!r}).write_text(str(os.getpid())); sys.stdin.read()"
    command = [sys.executable, "-m", "conformance", "--only", "W10", "--", sys.executable, "-c", kit]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as playing:
        while not (noted.exists() and noted.read_text()):
            assert playing.poll() is None
            time.sleep(0.02)
        playing.send_signal(signal.SIGINT)
        assert playing.wait(10) == 130
    with pytest.raises(ProcessLookupError):
        os.kill(int(noted.read_text()), 0)


def test_levels_hold_the_ones_before_them() -> None:
    sizes = [len(chosen(level)) for level in LEVELS]
    assert sizes == sorted(sizes)
    assert sizes[-1] == len(CASES)


def test_every_case_can_fail() -> None:
    """Each has a planted fault that it must catch; `make conformance-faults` plays them."""
    assert conformance.cases.__all__
    caught = {case for fault in FAULTS.values() for case in fault.caught_by}
    assert caught == CASES.keys()
