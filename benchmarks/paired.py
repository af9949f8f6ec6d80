"""Two commits against one another: ``python -m benchmarks.paired --against COMMIT --workloads fanout,chain``.

The workloads of this checkout run in turn (old new old new ...) against the package of the older commit, which is
checked out beside it for the time of the comparison, and against the package as it stands here. Both use the same
virtual environment. Each workload measures its floor too, which is the same program on both sides: how far apart the
floors are tells how much of a ratio is the machine's doing.

``--bursts 400`` measures finer: a server, a worker and a client of both sides stay up, and short bursts of a workload
run in turn (old new new old ...), so that what the machine does meanwhile falls on both. Two processes of the same
program differ by two or three percent for as long as they live, by where their memory lies: so both sides are started
anew ``--starts`` times, and share the pairs out. The ratio is the median of the starts' ratios, each the median of its
pairs, with the bounds between which the median of many such starts lies nineteen times of twenty.
"""

from __future__ import annotations

import argparse
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

from benchmarks import machine
from benchmarks.bursts import SIZES, Burst
from benchmarks.measuring import middle
from benchmarks.report import say

HERE: Final = Path(__file__).parent.parent

FIGURES: Final[dict[str, tuple[str, ...]]] = {
    "fanout": ("floor_per_s", "jetflow_per_s", "cpu_us"),
    "boundary": ("floor_per_s", "jetflow_per_s", "cpu_us"),
    "tree": ("floor_per_s", "jetflow_per_s", "cpu_us"),
    "spawn": ("floor_per_s", "jetflow_per_s", "cpu_us"),
    "chain": ("floor_per_s", "jetflow_per_s", "one_step_jetflow_per_s", "cpu_us"),
    "latency": ("floor_p50_ms", "p50_ms", "p99_ms"),
    "resume": ("floor_p50_ms", "p50_ms", "p99_ms"),
    "retries": ("floor_per_s", "held_per_s", "timer_per_s", "calm_cpu_us", "held_cpu_us", "timer_cpu_us"),
    "idle": ("cpu_percent", "server_cpu_percent", "messages_per_s"),
}
"""What is compared, as the JSON of each workload names it."""

MORE_IS_BETTER: Final = "_per_s"
_TRAFFIC: Final = "messages_per_s"


class Comparison(msgspec.Struct):
    """One figure of both commits, in the order of the rounds."""

    workload: str
    figure: str
    old: list[float] = []
    new: list[float] = []
    starts: int = 1

    @property
    def of_starts(self) -> list[float]:
        """New over old: the median of the pairs of each start of both sides."""
        pairs = [new / (old or 1.0) for old, new in zip(self.old, self.new, strict=True)]
        of_each = len(pairs) // self.starts
        return [middle(pairs[at : at + of_each]) for at in range(0, len(pairs), of_each)]

    @property
    def ratio(self) -> float:
        """The new median over the old one."""
        return middle(self.new) / (middle(self.old) or 1.0)

    @property
    def slower(self) -> float:
        """How much more of a time, or of anything else that is paid, the new commit needs: 0.05 is 5 % more."""
        more = self.figure.endswith(MORE_IS_BETTER) and self.figure != _TRAFFIC
        return (1 / self.ratio if more else self.ratio) - 1


def main() -> int:
    """Run the command; returns its exit status."""
    asked = _parse(sys.argv[1:])
    sizes = dict(size.split("=") for size in asked.n)
    comparisons: list[Comparison] = []
    commits = {"old": _git("describe", "--always", asked.against), "new": _git("describe", "--always", "--dirty")}
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # the checkout is removed on the way out
    with _packages(asked.against) as (old, new):
        if asked.bursts:
            say(
                _of_bursts(
                    commits, {name: _starts(name, old, new, asked.bursts, asked.starts) for name in asked.workloads}
                )
            )
            return 0
        for workload in asked.workloads:
            size = ["--n", sizes[workload]] if workload in sizes else []
            found = [Comparison(workload, figure) for figure in FIGURES[workload]]
            for number in range(1, asked.rounds + 1):
                for side, place in (("old", old), ("new", new)):
                    sys.stderr.write(f"{workload}, round {number} of {asked.rounds}, {side}\n")
                    report = _measure(place, workload, size)
                    for comparison in found:
                        values: list[float] = getattr(comparison, side)
                        values.append(float(report[comparison.figure]))
            comparisons += found
    say(_as_text(commits, comparisons))
    if asked.json is not None:
        asked.json.write_bytes(_as_json(commits, comparisons))
    return 0


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    def workloads(text: str) -> list[str]:
        names = text.split(",")
        if unknown := [name for name in names if name not in FIGURES]:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: use some of {', '.join(FIGURES)}")
        return names

    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.paired", description="Measure two commits of jetflow in turn, with these workloads."
    )
    parser.add_argument("--against", required=True, metavar="COMMIT", help="the older commit")
    parser.add_argument("--workloads", type=workloads, required=True, help=f"some of {', '.join(FIGURES)}")
    parser.add_argument("--rounds", type=int, default=3, help="how often each side runs (3)")
    parser.add_argument("--bursts", type=int, default=0, help=f"pairs of short bursts instead: {', '.join(SIZES)}")
    parser.add_argument("--starts", type=int, default=8, help="how often both sides of bursts are started anew (8)")
    parser.add_argument("--n", action="append", default=[], metavar="WORKLOAD=N", help="another size of one workload")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there as one JSON object")
    asked = parser.parse_args(arguments)
    if asked.bursts and not set(asked.workloads) <= set(SIZES):
        parser.error(f"--bursts knows the workloads {', '.join(SIZES)}")
    if asked.bursts and not 1 <= asked.starts <= asked.bursts:
        parser.error(f"--starts shares out the bursts: 1 to {asked.bursts}")
    return asked


@contextmanager
def _packages(commit: str) -> Iterator[tuple[Path, Path]]:
    """Give two directories, each with these benchmarks: one with the package of a commit, one with that of here.

    ``python -m`` looks for both in the directory in which it is called, before it looks for installed ones.
    """
    with tempfile.TemporaryDirectory(prefix="jetflow-paired-") as scratch:
        checkout = Path(scratch, "checkout")
        _git("worktree", "add", "--detach", "--quiet", str(checkout), commit)
        try:
            yield _side(Path(scratch, "old"), checkout), _side(Path(scratch, "new"), HERE)
        finally:
            _git("worktree", "remove", "--force", str(checkout))


def _side(place: Path, package: Path) -> Path:
    """Copy what is measured, so that it stays the same while somebody goes on editing."""
    shutil.copytree(HERE / "benchmarks", place / "benchmarks")
    shutil.copytree(package / "jetflow", place / "jetflow")
    return place


def _measure(place: Path, workload: str, size: Sequence[str]) -> dict[str, Any]:
    file = place / "report.json"
    file.unlink(missing_ok=True)
    command = [sys.executable, "-m", "benchmarks", workload, "--rounds", "1", *size, "--json", str(file)]
    environment = os.environ | {"PYTHONPATH": str(place)}
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return msgspec.json.decode(file.read_bytes())


def _starts(workload: str, old: Path, new: Path, pairs: int, starts: int) -> dict[str, Comparison]:
    """Run short bursts of both sides in turn, both started anew so many times."""
    found = {field.name: Comparison(workload, field.name, starts=starts) for field in msgspec.structs.fields(Burst)}
    of_each = pairs // starts
    for start in range(starts):
        with _both(workload, old, new, swapped=bool(start % 2)) as sides:
            for number in range(of_each):
                for name, side in reversed(sides) if number % 2 else sides:
                    burst = msgspec.to_builtins(_ask(side))
                    for figure, comparison in found.items():
                        values: list[float] = getattr(comparison, name)
                        values.append(burst[figure])
        sys.stderr.write(f"{workload}, pair {(start + 1) * of_each} of {starts * of_each}\n")
    return found


@contextmanager
def _both(workload: str, old: Path, new: Path, *, swapped: bool) -> Iterator[list[tuple[str, subprocess.Popen[str]]]]:
    places = [("old", old), ("new", new)]
    (first, its), (second, the_others) = reversed(places) if swapped else places
    with _bursting(its, workload) as one, _bursting(the_others, workload) as other:
        yield [(first, one), (second, other)]


@contextmanager
def _bursting(place: Path, workload: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "benchmarks.bursts", workload]
    environment = os.environ | {"PYTHONPATH": str(place)}
    side = subprocess.Popen(
        command, cwd=place, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert side.stdout is not None
        if side.stdout.readline().strip() != "ready":
            raise RuntimeError(f"{' '.join(command)} did not start")
        yield side
    finally:
        side.communicate(timeout=60)  # closes its input, which ends it


def _ask(side: subprocess.Popen[str]) -> Burst:
    assert side.stdin is not None
    assert side.stdout is not None
    side.stdin.write("\n")
    side.stdin.flush()
    return msgspec.json.decode(side.stdout.readline(), type=Burst)


def _bounds(values: Sequence[float]) -> tuple[float, float]:
    """Return between which values of a sample its distribution's median lies, at 95 %, by the ranks of the binomial."""
    ordered, half = sorted(values), 0.98 * math.sqrt(len(values))
    low = max(0, math.floor(len(ordered) / 2 - half))
    return ordered[low], ordered[-1 - low]


def _of_bursts(commits: dict[str, str], found: dict[str, dict[str, Comparison]]) -> str:
    lines = [f"{'':<26}{'old':>10}{'new':>10}{'new/old':>10}   95 % of its medians"]
    for workload, figures in found.items():
        for figure, of in figures.items():
            low, high = _bounds(of.of_starts)
            old, new, ratio = middle(of.old), middle(of.new), middle(of.of_starts)
            lines.append(
                f"{workload + ' ' + figure:<26}{old:>10,.1f}{new:>10,.1f}{ratio:>10.3f}   {low:.3f} to {high:.3f}"
            )
    known = "\n".join(f"  {name}: {text}" for name, text in commits.items())
    some = next(iter(next(iter(found.values())).values()))
    counted = f"{len(some.old)} pairs of bursts, in turn, with {some.starts} starts of both sides"
    return f"{counted}; microseconds a child or a run\n{known}\n\n" + "\n".join(lines)


def _as_text(commits: dict[str, str], comparisons: Sequence[Comparison]) -> str:
    lines = [f"{'':<34}{'old':>12}{'new':>12}{'new/old':>10}{'slower':>10}   each round, new/old"]
    lines += [
        f"{comparison.workload + ' ' + comparison.figure:<34}{middle(comparison.old):>12,.2f}"
        f"{middle(comparison.new):>12,.2f}{comparison.ratio:>10.2f}{comparison.slower:>+10.1%}   "
        + " ".join(f"{new / (old or 1.0):.2f}" for old, new in zip(comparison.old, comparison.new, strict=True))
        for comparison in comparisons
    ]
    known = "\n".join(f"  {name}: {text}" for name, text in commits.items())
    return f"medians of both commits, in turn\n{known}\n\n" + "\n".join(lines)


def _as_json(commits: dict[str, str], comparisons: Sequence[Comparison]) -> bytes:
    figures = [
        {**msgspec.to_builtins(comparison), "ratio": comparison.ratio, "slower": comparison.slower}
        for comparison in comparisons
    ]
    told = {"commits": commits, "figures": figures, "machine": machine.description()}
    return msgspec.json.format(msgspec.json.encode(told), indent=2) + b"\n"


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=HERE, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
