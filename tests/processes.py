"""What a test asks the system about processes."""

from __future__ import annotations

from pathlib import Path


def children_of(pid: int | None) -> list[int]:
    """Return the processes that any thread of a process has started and that have not been waited for."""
    of_threads = Path(f"/proc/{pid}/task").glob("*/children")
    try:
        return [int(child) for children in of_threads for child in children.read_text().split()]
    except OSError:  # it has just died
        return []


def command_of(pid: int) -> bytes:
    """Return the command line of a process; nothing if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def is_known(pid: int) -> bool:
    """Tell whether a process runs, or has ended and is waited for."""
    return Path(f"/proc/{pid}").exists()


def lives(pid: int) -> bool:
    """Tell whether a process runs, and is not only waited for."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
