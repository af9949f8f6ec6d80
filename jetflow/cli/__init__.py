"""The `jetflow` command: run workers, trigger runs, look at them.

It needs the ``cli`` extra; without it the command says so and ends. Nothing else of jetflow imports this package.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

EXTRA: Final = ("cyclopts", "rich", "watchfiles")

INTERRUPTED: Final = 130
"""The exit status after Ctrl-C, as shells have it: 128 + SIGINT."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line, ``sys.argv`` without ``arguments``, and return its exit status."""
    try:
        from jetflow.cli.application import run  # noqa: PLC0415 - the extra may be missing, and says so here
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] not in EXTRA:
            raise
        print(
            f"error: the jetflow command needs {missing.name}: run `pip install 'jetflow-nats[cli]'`", file=sys.stderr
        )
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    return run(arguments)
