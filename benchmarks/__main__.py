"""The command: ``python -m benchmarks NAME``."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from typing import Final

import uvloop

from benchmarks import machine, plot
from benchmarks.options import Options
from benchmarks.report import publish
from benchmarks.workloads import (
    boundary,
    chain,
    cpu,
    dashboard,
    fanout,
    gather,
    history,
    idle,
    latency,
    limits,
    priorities,
    processes,
    recovery,
    reduce,
    rerun,
    resume,
    retries,
    sdk,
    spawn,
    timers,
    tree,
    waking,
    window,
)
from benchmarks.workloads.workload import Workload

WORKLOADS: Final[dict[str, Workload]] = {
    module.WORKLOAD.name: module.WORKLOAD
    for module in (
        fanout,
        rerun,
        gather,
        window,
        reduce,
        boundary,
        latency,
        resume,
        chain,
        tree,
        spawn,
        cpu,
        sdk,
        retries,
        timers,
        waking,
        limits,
        priorities,
        history,
        recovery,
        processes,
        idle,
        dashboard,
    )
}

_EXAMPLES: Final = """\
examples:
  python -m benchmarks fanout --n 10000
  python -m benchmarks boundary --n 100000 --rounds 1 --json boundary.json
  python -m benchmarks fanout --n 10000 --durable
  python -m benchmarks timers --kill-server
  python -m benchmarks plot --n 100000

Two commits in turn: python -m benchmarks.paired --help
"""


def main() -> int:
    """Run the command; returns its exit status."""
    asked, options = _parse(sys.argv[1:])
    found = machine.description()
    try:
        if asked == plot.NAME:
            uvloop.run(plot.run(options, found))
        else:
            publish(uvloop.run(WORKLOADS[asked].run(options)), found)
    except KeyboardInterrupt:
        sys.stderr.write("\nstopped\n")
        return 128 + signal.SIGINT
    return 0


def _parse(arguments: list[str]) -> tuple[str, Options]:
    named = "\n".join(
        f"  {workload.name:<10}{workload.summary}; n: {workload.n_is}, {workload.n:,}"
        for workload in WORKLOADS.values()
    )
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure jetflow against a bare nats-py program, both in turn on servers of their own.",
        epilog=f"workloads, and what n counts:\n{named}\n  {plot.NAME:<10}{plot.SUMMARY}\n\n{_EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", choices=[*WORKLOADS, plot.NAME], metavar="NAME", help="one of the workloads below")
    parser.add_argument("--n", type=_positive, help="the size; see below")
    parser.add_argument("--workers", type=_positive, help="worker processes on each side (1; timers: 2)")
    parser.add_argument(
        "--rounds",
        type=_positive,
        help="how often both sides run (3; recovery: 5; dashboard: 7; idle, timers, history: 1)",
    )
    parser.add_argument("--slots", type=_positive, help="steps that a jetflow worker runs at once (100; timers: 1000)")
    parser.add_argument("--durable", action="store_true", help="the server flushes to disk before it acknowledges")
    parser.add_argument("--kill-server", action="store_true", help="timers: kill the server in the middle")
    parser.add_argument("--part", choices=dashboard.PARTS, help="dashboard: measure this part alone")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there as one JSON object")
    asked = parser.parse_args(arguments)
    defaults = WORKLOADS.get(asked.name)
    options = Options(
        n=asked.n or (plot.LARGEST if defaults is None else defaults.n),
        workers=asked.workers or (1 if defaults is None else defaults.workers),
        rounds=asked.rounds or (plot.ROUNDS if defaults is None else defaults.rounds),
        slots=asked.slots or (100 if defaults is None else defaults.slots),
        durable=asked.durable,
        kill_server=asked.kill_server,
        part=asked.part,
        json=asked.json,
    )
    return asked.name, options


def _positive(text: str) -> int:
    number = int(text.replace("_", "").replace(",", ""))
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


if __name__ == "__main__":
    sys.exit(main())
