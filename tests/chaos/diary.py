"""Diaries: which bodies of one attempt a worker process has begun, so that it is known which of them died with it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

VARIABLE = "JETFLOW_CHAOS_DIARY"


def note_begun(run: str) -> None:
    """Write down that a body has begun; the kernel keeps it, whatever becomes of the process."""
    path = os.environ.get(VARIABLE)
    if path is None:
        return
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(file, f"{run}\n".encode())
    finally:
        os.close(file)


def begun(diaries: Iterable[Path]) -> set[str]:
    """Return the runs whose bodies have begun in the processes that wrote these diaries."""
    return {run for diary in diaries if diary.exists() for run in diary.read_text().split()}
