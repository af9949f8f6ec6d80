"""Plays every planted fault against the cases that must catch it: ``python -m conformance.faults [NAME…]``."""

from __future__ import annotations

import asyncio
import sys
from time import monotonic
from typing import Final

import conformance.cases  # noqa: F401  the cases are there once they are imported
from conformance.suite import CASES, Result, play
from conformance.wrong_kit import FAULTS, Fault

AT_ONCE: Final = 4
PATIENCE: Final = 0.25
"""What the bounds of cases are multiplied with: most wait for what never comes."""


async def caught(fault: Fault, gate: asyncio.Semaphore) -> list[Result]:
    """Return how the cases ended that must catch a fault."""
    async with gate:
        command = [sys.executable, "-m", "conformance.wrong_kit", fault.name]
        return await play([CASES[id] for id in fault.caught_by], command, patience=PATIENCE)


async def main(names: list[str]) -> int:
    """Play faults, all without names; 1 if any is not caught."""
    began, gate = monotonic(), asyncio.Semaphore(AT_ONCE)
    faults = [FAULTS[name] for name in names] or list(FAULTS.values())
    missed = 0
    for fault, playing in [(fault, asyncio.create_task(caught(fault, gate))) for fault in faults]:
        for result in await playing:
            told = result.problem.partition("\n")[0]
            honest = not result.passed and not told.startswith(("NotReady", "Traceback"))
            missed += not honest
            print(f"{'caught' if honest else 'MISSED'} {fault.name:28} {result.case.id:5} {told}", flush=True)
            if not honest and result.problem:
                print(result.problem)
    cases = {id for fault in faults for id in fault.caught_by}
    print(
        f"{len(faults)} planted faults, {len(faults) - missed if missed < len(faults) else 0} caught, "
        f"by {len(cases)} cases, in {monotonic() - began:.1f} s"
    )
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1:])))
