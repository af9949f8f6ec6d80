"""The machine and its processes: what they are, and what they use. Memory and CPU are read from ``/proc``."""

from __future__ import annotations

import gc
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Final

from jetflow.server import find_server

MB: Final = 1_000_000
_KILOBYTE: Final = 1024


def description() -> dict[str, str]:
    """Return what the figures depend on: hardware, versions, and the load before the bench."""
    return {
        "cpu": f"{os.cpu_count()} x {_cpu_model()}",
        "memory": f"{_memory_gb():.0f} GB",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "nats_server": _server_version(),
        **{name.replace("-", "_"): metadata.version(name) for name in ("nats-py", "uvloop", "msgspec", "jetflow-nats")},
        "commit": _commit(),
        "load_before": " ".join(f"{load:.2f}" for load in os.getloadavg()),
    }


def rss_mb(pid: int) -> float:
    """Return the resident memory of a process in MB; 0 where ``/proc`` does not tell."""
    return _status_mb(pid, "VmRSS")


def peak_rss_mb(pid: int) -> float:
    """Return the largest resident memory of a process in MB since `reset_peak`."""
    return _status_mb(pid, "VmHWM")


def reset_peak(pid: int) -> None:
    """Forget the largest resident memory of a process so far."""
    try:
        Path(f"/proc/{pid}/clear_refs").write_text("5")
    except OSError:
        return


def cpu_seconds(pid: int) -> float:
    """Return the processor time of a process so far, in seconds; 0 where ``/proc`` does not tell."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0.0
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def cpu_ns(pid: int) -> int:
    """Return the processor time of a process and its threads so far, in nanoseconds; 0 where ``/proc`` is silent."""
    try:
        threads = list(Path("/proc", str(pid), "task").iterdir())
    except OSError:
        return 0
    total = 0
    for thread in threads:
        try:
            total += int((thread / "schedstat").read_text().split()[0])
        except OSError:  # it ended meanwhile
            continue
    return total


def collect_garbage() -> None:
    """Collect what the start has left, so that a reading of memory begins clean."""
    gc.collect()


def _status_mb(pid: int, field: str) -> float:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    for line in status.splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * _KILOBYTE / MB
    return 0.0


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown processor"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def _memory_gb() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9


def _server_version() -> str:
    shown = subprocess.run([find_server(), "--version"], capture_output=True, text=True, check=False).stdout
    return shown.rpartition("v")[2].strip()


def _commit() -> str:
    here = Path(__file__).parent
    shown = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=here, capture_output=True, text=True, check=False
    )
    return shown.stdout.strip() or "unknown"
