"""Plays the cases against a command: ``python -m conformance [options] -- COMMAND…``."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from time import monotonic

import conformance.cases  # noqa: F401  the cases are there once they are imported
from conformance.suite import LEVELS, Result, chosen, play

EXAMPLE = """\
example:
  python -m conformance -- python -m conformance.kit
  python -m conformance --level child --only 'W1*,J01' -- ./my-kit

The command gets NATS_URL, JETFLOW_NAMESPACE, PREFIX, SLOTS and SWEEP_EVERY in its environment, prints `ready`, and
reads commands for its client on standard input; see conformance/README.md.
"""


def main() -> int:
    """Play the cases that the command line asks for; 1 if any failed."""
    parser = argparse.ArgumentParser(
        "python -m conformance",
        description="Check that a worker, or a client, keeps to jetflow's wire format.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--level", choices=LEVELS, default="full", help="what the command is (default: full)")
    parser.add_argument("--only", default="", metavar="IDS", help="ids of cases, or patterns, divided by commas")
    parser.add_argument("--prefix", default="", help="stands before the names of the kit's workflows")
    parser.add_argument("--json", action="store_true", help="print one JSON object a case")
    parser.add_argument("--list", action="store_true", help="list the cases, and play none")
    parser.add_argument("command", nargs="*", help="the kit to test, behind --")
    given = parser.parse_args()
    cases = chosen(given.level, [one for one in given.only.split(",") if one])
    if given.list:
        for case in cases:
            print(f"{case.id:5} {case.level:7} {case.rule}")
        return 0
    if not given.command:
        parser.error("a command is needed, behind --")
    if not cases:
        parser.error("no case has such an id: see --list")
    show = _print_json if given.json else _print
    began = monotonic()
    try:
        results = asyncio.run(play(cases, given.command, prefix=given.prefix, on_result=show))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    failed = [one.case.id for one in results if not one.passed]
    if not given.json:
        skipped = sum(one.skipped for one in results)
        passed = len(results) - len(failed) - skipped
        aside = f" ({skipped} skipped)" if skipped else ""
        print(f"{passed} of {len(results)} cases passed{aside}, in {monotonic() - began:.1f} s")
        if failed:
            print(f"failed: {' '.join(failed)}")
    return 1 if failed else 0


def _print(result: Result) -> None:
    verdict = "skip" if result.skipped else "pass" if result.passed else "FAIL"
    print(f"{verdict} {result.case.id:5} {result.seconds:5.1f} s  {result.case.rule}")
    if not result.passed:
        print("     " + result.problem.replace("\n", "\n     "))
    sys.stdout.flush()


def _print_json(result: Result) -> None:
    line = {"id": result.case.id, "level": result.case.level, "passed": result.passed}
    line |= {"skipped": result.skipped, "seconds": result.seconds, "problem": result.problem}
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    sys.exit(main())
