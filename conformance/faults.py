"""Plays every planted fault against the cases that must catch it: ``python -m conformance.faults [NAME…]``.

``--at-once`` says how many are played at once; each takes most of a processor.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from dataclasses import dataclass
from time import monotonic
from typing import Final

import conformance.cases  # noqa: F401  the cases are there once they are imported
from conformance.lab import Lab
from conformance.suite import CASES, Result, play
from conformance.wrong_kit import FAULTS, Fault

PATIENCE: Final = 0.25
"""What the bounds of cases are multiplied with: most wait for what never comes."""


BROKEN: Final = ("AttributeError", "NameError", "TypeError", "UnboundLocalError")
"""Errors of a fault that does not do what it says, when they come from the wrong kit's own lines."""


@dataclass
class Played:
    """How the cases ended that must catch a fault, and where they were played."""

    fault: Fault
    results: list[Result]
    labs: list[Lab]

    @property
    def is_broken(self) -> bool:
        """Whether the fault itself fails: what a case then notices is not what was planted."""
        said = "\n".join(line for lab in self.labs if hasattr(lab, "tested") for line in lab.tested.said)
        stored = "\n".join(
            event.body.decode(errors="replace") for lab in self.labs if hasattr(lab, "proxy") for event in lab.proxy.log
        )
        return any("wrong_kit.py" in text and any(error in text for error in BROKEN) for text in (said, stored))


async def played(fault: Fault, gate: asyncio.Semaphore) -> Played:
    """Play the cases that must catch a fault."""
    async with gate:
        labs: list[Lab] = []
        command = [sys.executable, "-m", "conformance.wrong_kit", fault.name]
        cases = [CASES[id] for id in fault.caught_by]
        return Played(fault, await play(cases, command, patience=PATIENCE, on_lab=labs.append), labs)


def tell(played: Played) -> bool:
    """Print how the cases of a fault ended; return whether all have caught it."""
    well = True
    for result in played.results:
        told = result.problem.partition("\n")[0]
        honest = not result.passed and not played.is_broken and not told.startswith(("NotReady", "Traceback"))
        well = well and honest
        verdict = "caught" if honest else "BROKEN" if played.is_broken else "MISSED"
        print(f"{verdict} {played.fault.name:28} {result.case.id:5} {told}", flush=True)
        if not honest and result.problem:
            print(result.problem)
    return well


async def main(names: list[str], at_once: int) -> int:
    """Play faults, all without names; 1 if any is not caught."""
    began, gate = monotonic(), asyncio.Semaphore(at_once)
    faults = [FAULTS[name] for name in names] or list(FAULTS.values())
    playing = [asyncio.create_task(played(fault, gate)) for fault in faults]
    caught = sum([tell(await one) for one in playing])
    cases = {id for fault in faults for id in fault.caught_by}
    print(
        f"{len(faults)} planted faults, {caught} caught, by {len(cases)} of {len(CASES)} cases, "
        f"in {monotonic() - began:.1f} s"
    )
    return 0 if caught == len(faults) else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m conformance.faults", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("names", nargs="*", help="only these faults")
    parser.add_argument("--at-once", type=int, default=4, help="faults at once")
    given = parser.parse_args()
    sys.exit(asyncio.run(main(given.names, given.at_once)))
