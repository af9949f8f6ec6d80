"""What a run says while it goes on, on standard error; standard output is for its one JSON object."""

from __future__ import annotations

import sys


def say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
