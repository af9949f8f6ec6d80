"""JSON in and out of a command.

It is read and written by msgspec, as what travels is: integers of any size stay what they are.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec

from jetflow.cli.options import UsageError


def read_json(argument: str, what: str) -> Any:
    """Return the value of an argument: JSON, ``-`` for JSON on stdin, ``@file`` for JSON in a file.

    Raises:
        UsageError: there is no such file, or it is not JSON.
    """
    text, source = _text(argument, what)
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError) as error:
        hint = "; quote it for the shell" if source == "" and argument.strip() else ""
        raise UsageError(f"{what}{source} is not JSON: {error}{hint}") from None


def _text(argument: str, what: str) -> tuple[bytes, str]:
    if argument == "-":
        return sys.stdin.buffer.read(), " on stdin"
    if not argument.startswith("@"):
        return argument.encode(errors="surrogateescape"), ""
    try:
        return Path(argument[1:]).read_bytes(), f" in {argument[1:]}"
    except OSError as error:
        raise UsageError(f"{what}: cannot read {argument[1:]!r}: {error.strerror}") from None


def print_json(value: Any) -> None:
    """Print a value on stdout: on one line, or indented on a terminal."""
    text = msgspec.json.encode(value)
    print(msgspec.json.format(text, indent=2 if sys.stdout.isatty() else -1).decode(), flush=True)
