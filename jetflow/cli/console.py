"""Where commands print: as wide as the terminal, or wide enough for whoever reads a pipe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from rich.console import Console

from jetflow.cli.json_text import print_json

PIPE_WIDTH: Final = 240
"""Columns of a line where stdout is not a terminal."""


class _Console(Console):
    """A console that leaves a reader who went away to the command's end, where rich would exit with status 1."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def stdout() -> Console:
    """Return the console of stdout."""
    console = _Console(highlight=False)
    if not console.is_terminal:
        console.width = PIPE_WIDTH
    return console


def print_rows(rows: Sequence[Any]) -> None:
    """Print Structs as one JSON array."""
    print_json([msgspec.to_builtins(row) for row in rows])


def printable(text: str) -> str:
    """Return text on one line, without what would move a cursor."""
    return "".join(letter if letter.isprintable() else "·" for letter in text)
