"""``python -m tests.faults [part of a name]``: plant faults in the shell, and expect the named tests to notice each."""

from __future__ import annotations

import asyncio
import re
import sys
from time import monotonic
from typing import Final

from tests.faults.planted import FAULTS
from tests.faults.playing import Played, planted, play, sound
from tests.model.explorer import say

AT_ONCE: Final = 2

NOTICED: Final = re.compile(r"^(?:FAILED|ERROR) \S*?::(\S+)", re.MULTILINE)


def tell(played: Played) -> bool:
    """Print how the tests of a fault ended; return whether they have noticed it."""
    noticed = NOTICED.search(played.said)
    by = noticed[1] if noticed else played.said.strip().rpartition("\n")[2]
    say(f"{played.verdict:<8} {played.fault.name}: {by}, {played.seconds:.1f} s")
    if played.verdict == "BROKEN":
        say(played.said)
    return played.verdict == "caught"


async def main(wanted: str = "") -> int:
    """Plant the faults whose names contain ``wanted``; return the exit code."""
    began, gate = monotonic(), asyncio.Semaphore(AT_ONCE)
    faults = [fault for fault in FAULTS if wanted in fault.name]
    if not faults:
        say(f"no fault's name contains {wanted!r}")
        return 2
    for fault in faults:
        planted(fault)  # all can be, before any is
    problem = await sound(test for fault in faults for test in fault.noticed_by)
    if problem:
        say(f"these tests fail without a fault:\n{problem}")
        return 1
    playing = [asyncio.create_task(play(fault, gate)) for fault in faults]
    caught = sum([tell(await one) for one in playing])
    say(f"shell: {len(faults)} planted faults, {caught} caught, in {monotonic() - began:.0f} s")
    return 0 if caught == len(faults) else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main(*sys.argv[1:2])))
