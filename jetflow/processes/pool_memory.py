"""Whether the kernel has killed for want of memory: by its own counts of that, as far as they can be read."""

from __future__ import annotations

from pathlib import Path
from time import monotonic
from typing import Final

_ROOT: Final = Path("/sys/fs/cgroup")
_OWN: Final = Path("/proc/self/cgroup")
_WHOLE_MACHINE: Final = Path("/proc/vmstat")
_COUNT: Final = "oom_kill "

_JUST_NOW: Final = 1.0
"""Seconds in which one look may see what several processes have died of."""

PAGES: Final = Path("/proc/self/statm")
"""Where a process reads how much memory it holds."""


class OutOfMemory:
    """Tells whether the kernel has killed a process for want of memory since it was last asked."""

    def __init__(self) -> None:
        self._seen = times_out_of_memory()
        self._at = -_JUST_NOW

    def has_struck(self) -> bool:
        """Whether it just has."""
        count, now = times_out_of_memory(), monotonic()
        if count > self._seen:
            self._seen, self._at = count, now
        return now - self._at < _JUST_NOW


def times_out_of_memory() -> int:
    """Return how often the kernel has killed a process so: in this control group and those above, or anywhere."""
    return sum(_count(file) for file in [*_files_of_group(), _WHOLE_MACHINE])


def _files_of_group() -> list[Path]:
    try:
        lines = _OWN.read_text().splitlines()
    except OSError:  # no Linux
        return []
    own = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), "")
    group = _ROOT / own
    return [place / "memory.events" for place in (group, *group.parents) if place.is_relative_to(_ROOT)]


def _count(file: Path) -> int:
    try:
        lines = file.read_text().splitlines()
    except OSError:  # the root has none, and a container may hide what is above it
        return 0
    return next((int(line.removeprefix(_COUNT)) for line in lines if line.startswith(_COUNT)), 0)
