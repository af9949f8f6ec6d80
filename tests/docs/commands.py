"""What a line of a shell's block asks for: that each program is known, and what it names is there.

A command line of `jetflow` is read by the very parser of the command; nothing is run.
"""

from __future__ import annotations

import contextlib
import re
import shlex
import tomllib
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from itertools import pairwise
from typing import Final

from cyclopts import MissingArgumentError

from jetflow.cli.application import app
from tests.docs.blocks import ROOT, Block, blocks_of

SHELL: Final = ("cd", "cp", "mkdir", "export", "kill", ".", "curl", "nats", "git", "uvicorn", "gunicorn")
"""Programs that others write. What they are told is not looked at."""

_EXTRAS: Final = re.compile(r"jetflow-nats\[([\w,-]+)\]|\.\[([\w,-]+)\]|clone\[([\w,-]+)\]")


def commands_of(block: Block) -> list[list[str]]:
    """Return the words of each command, without what is set for it in front."""
    found: list[list[str]] = []
    for line in block.text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|")
        lexer.whitespace_split = True
        command: list[str] = []
        for word in [*lexer, ";"]:
            if word in (";", "&&", "|", "||", "&"):
                found += [command] if command else []
                command = []
            elif command or not re.match(r"[A-Z_]+=", word):
                command.append(word)
    return found


def check(block: Block, command: Sequence[str]) -> None:
    """Fail if a command cannot be meant as it stands there."""
    program, *arguments = command
    name = program.rpartition("/")[2]
    if name not in SHELL:
        CHECKS[name](block, arguments)


def spans_of(text: str) -> list[str]:
    """Return what stands in a line of prose as a command of jetflow: its name, or all of it."""
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return [" ".join(span.split()) for span in re.findall(r"(?<!`)`(jetflow\s[a-z-][^`]*)`", prose)]


def check_span(span: str) -> None:
    """Fail if the command or an option of it does not exist. What they need may be left out."""
    with contextlib.suppress(MissingArgumentError):
        _jetflow(None, shlex.split(span)[1:])


def _jetflow(_: object, arguments: Sequence[str]) -> None:
    app.parse_args(list(arguments), exit_on_error=False, print_error=False)


def _pip(_: Block, arguments: Sequence[str]) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert arguments[0] == "install"
    for found in _EXTRAS.findall(" ".join(arguments)):
        assert set("".join(found).split(",")) <= set(extras), found


def _make(_: Block, arguments: Sequence[str]) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {word for word in arguments if "=" not in word} <= set(targets)


def _python(block: Block, arguments: Sequence[str]) -> None:
    if arguments[0] == "-m":
        assert find_spec(arguments[1]) is not None, arguments[1]
    elif arguments[0].endswith(".py"):
        named = {one.file for one in (*blocks_of(ROOT / block.page), *blocks_of(ROOT / "README.md"))}
        assert arguments[0] in named or (ROOT / arguments[0]).exists(), arguments[0]


def _docker(_: Block, arguments: Sequence[str]) -> None:
    for option, value in pairwise(arguments):
        if option in ("-f", "--file", "--env-file"):
            assert (ROOT / value).exists() or value == "docker/.env", value
        if option == "--target":
            assert f" AS {value}\n" in (ROOT / "docker" / "Dockerfile").read_text(), value


def _kubectl(_: Block, arguments: Sequence[str]) -> None:
    assert (ROOT / arguments[arguments.index("-k") + 1] / "kustomization.yaml").exists()


CHECKS: Final[dict[str, Callable[[Block, Sequence[str]], None]]] = {
    "jetflow": _jetflow,
    "pip": _pip,
    "make": _make,
    "python": _python,
    "python3": _python,
    "docker": _docker,
    "kubectl": _kubectl,
}
