"""The benchmarks run: each workload, tiny, on real servers. Figures are not looked at, but sums are."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

PATIENCE = 90.0
REPOSITORY = Path(__file__).parents[2]


def bench(*arguments: str) -> Sequence[str]:
    return [sys.executable, "-m", "benchmarks", *arguments]


def report_of(tmp_path: Path, *arguments: str) -> dict[str, Any]:
    file = tmp_path / "report.json"
    done = subprocess.run(
        [*bench(*arguments, "--rounds", "1"), "--json", str(file)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(file.read_text())


@pytest.mark.parametrize(
    ("workload", "n"), [("fanout", 50), ("boundary", 50), ("tree", 16), ("chain", 20), ("spawn", 50)]
)
def test_a_workload_of_many_compares_rates(tmp_path: Path, workload: str, n: int) -> None:
    report = report_of(tmp_path, workload, "--n", str(n))
    assert (report["workload"], report["n"]) == (workload, n)
    assert report["floor_per_s"] > 0
    assert report["jetflow_per_s"] > 0
    assert report["ratio"] == pytest.approx(report["jetflow_per_s"] / report["floor_per_s"], rel=0.01)
    assert {"worker_rss_mb", "server_rss_mb", "machine"} <= report.keys()


@pytest.mark.parametrize("workload", ["latency", "resume"])
def test_a_workload_of_one_at_a_time_reports_percentiles(tmp_path: Path, workload: str) -> None:
    report = report_of(tmp_path, workload, "--n", "20")
    assert 0 < report["p50_ms"] <= report["p95_ms"] <= report["p99_ms"]
    assert report["floor_p50_ms"] > 0


def test_children_that_compute_are_compared_with_a_process_pool(tmp_path: Path) -> None:
    report = report_of(tmp_path, "cpu", "--n", "4")
    assert report["ratio"] == pytest.approx(report["floor_s"] / report["processes_s"], rel=0.01)
    assert report["threads_s"] > 0


def test_an_idle_worker_is_metered(tmp_path: Path) -> None:
    report = report_of(tmp_path, "idle", "--n", "1")
    assert report["cpu_percent"] >= 0
    assert report["messages_per_s"] >= 0


def test_a_killed_worker_is_recovered_from(tmp_path: Path) -> None:
    report = report_of(tmp_path, "recovery", "--n", "300")
    assert report["recovery_s"] > 0
    assert report["unguarded_s"] > report["recovery_s"]


def test_one_worker_process_is_compared_with_two(tmp_path: Path) -> None:
    report = report_of(tmp_path, "processes", "--n", "50")
    assert report["ratio"] == pytest.approx(report["jetflow_per_s"] / report["floor_per_s"], rel=0.01)


def test_a_retry_storm_is_compared_with_runs_that_do_not_fail(tmp_path: Path) -> None:
    report = report_of(tmp_path, "retries", "--n", "20")
    assert report["held_per_s"] > 0
    assert report["timer_per_s"] > 0
    assert report["floor_per_s"] > 0


@pytest.mark.parametrize("kill", [[], ["--kill-server"]], ids=["calm", "killed"])
def test_no_timer_is_lost_or_early(tmp_path: Path, kill: list[str]) -> None:
    report = report_of(tmp_path, "timers", "--n", "200", *kill)
    assert (report["lost"], report["early"]) == (0, 0)
    assert report["armed"] == 200
    assert 0 <= report["late_p50_s"] <= report["late_p99_s"] <= report["late_max_s"]
    assert report["kill_server"] is bool(kill)
    assert ("away_late_p99_s" in report) is bool(kill)


def test_two_commits_are_compared(tmp_path: Path) -> None:
    file = tmp_path / "paired.json"
    asked = ("--against", "HEAD", "--workloads", "latency", "--n", "latency=20", "--rounds", "1")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.paired", *asked, "--json", str(file)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = {figure["figure"]: figure for figure in json.loads(file.read_text())["figures"]}
    assert {"floor_p50_ms", "p50_ms", "p99_ms"} == found.keys()
    assert found["p50_ms"]["ratio"] > 0


def test_a_durable_server_is_compared_with_one_that_is_not(tmp_path: Path) -> None:
    report = report_of(tmp_path, "fanout", "--n", "50", "--durable")
    assert report["durable"] is True
    assert report["durable_ratio"] > 0


def test_ctrl_c_ends_the_bench_and_its_processes() -> None:
    running = subprocess.Popen(
        bench("idle", "--n", "600"), cwd=REPOSITORY, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    try:
        assert running.stderr is not None
        assert "idling" in running.stderr.readline()
        children = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
        assert len(children) >= 2
        running.send_signal(signal.SIGINT)
        assert running.wait(PATIENCE) == 128 + signal.SIGINT
        assert "Traceback" not in running.stderr.read()
        assert not [child for child in children if _alive(int(child))]
    finally:
        running.kill()
        running.wait()
        if running.stderr is not None:
            running.stderr.close()


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
