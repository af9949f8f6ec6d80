"""``python -m tests.crash [POINT ...]``: kills a worker before and after every named point, and tells what follows."""

from __future__ import annotations

import argparse
import asyncio
import sys
from time import monotonic

import uvloop

from jetflow.runs.points import POINTS
from tests.crash.killing import Killing, Result
from tests.crash.scenarios import SCENARIOS


async def main(given: argparse.Namespace) -> int:
    chosen = given.points or POINTS
    started = monotonic()
    async with Killing() as killing:
        gate = asyncio.Semaphore(given.at_once)
        reached = await killing.record(gate)
        wrong = 0

        async def one(point: str) -> None:
            nonlocal wrong
            passing = [name for name in SCENARIOS if point in reached[name]]
            passing = passing if given.all else spread(passing, given.scenarios)
            results: list[Result] = []
            for number, name in enumerate(passing):
                for when in ("before", "after"):
                    async with gate:
                        results.append(await killing.kill(name, point, when, guarded=number % 2 == 0))
            bad = [result for result in results if result.wrong]
            wrong += bool(bad) or not results
            slowest = max((result.seconds for result in results), default=0.0)
            state = "WRONG" if bad else f"right, {slowest:.1f} s" if results else "NOT REACHED by any scenario"
            say(f"{point:22} killed before and after in {', '.join(passing) or 'none'}: {state}")
            for result in bad:
                for text in result.wrong:
                    say(f"    {result.scenario}, {result.when}: {text}")

        async with asyncio.TaskGroup() as group:
            for point in chosen:
                group.create_task(one(point))
    say(f"{len(chosen)} points, {wrong} wrong ({monotonic() - started:.0f} s)")
    return 1 if wrong else 0


def spread(names: list[str], most: int) -> list[str]:
    """Return at most so many of the scenarios, from the simple ones at the beginning to the rich ones at the end."""
    if len(names) <= most:
        return names
    return [names[number * (len(names) - 1) // max(1, most - 1)] for number in range(most)]


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("points", nargs="*", help="only these points")
    parser.add_argument("--scenarios", type=int, default=2, help="scenarios for each point, at most")
    parser.add_argument("--all", action="store_true", help="each point in every scenario that passes through it")
    parser.add_argument("--at-once", type=int, default=4, help="runs at once")
    sys.exit(uvloop.run(main(parser.parse_args())))
