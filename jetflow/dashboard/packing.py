"""The modules and the style sheets of the pages as one file each, packed when they are asked for: nothing is built.

Every file that a browser asks for costs it, and the server, some milliseconds, and there are sixty. The files stay as
they are written, modules that name each other by their place; here each becomes a function that is called when it is
first needed, with the names that it imports. What that takes is checked: imports and exports as they are written here,
and no circles.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from os.path import normpath
from pathlib import Path
from typing import Final

IMPORT: Final = re.compile(r"""^import\s*(\{[^}]*\}|\w+)\s*from\s*['"](\.[^'"]+)['"];?""", re.MULTILINE)
PASSED_ON: Final = re.compile(r"""^export\s*(\{[^}]*\})\s*from\s*['"](\.[^'"]+)['"];?""", re.MULTILINE)
LATER: Final = re.compile(r"""\bimport\(\s*['"](\.[^'"]+)['"]\s*\)""")
DECLARED: Final = re.compile(r"^export (?=(?:const|class|function|async function)\s+(\w+))", re.MULTILINE)
LISTED: Final = re.compile(r"\bexport\s*\{([^}]*)\};?\s*\Z")
DEFAULT: Final = re.compile(r"\bexport\s+default\s+(?=function\b|\w+;?\s*\Z)")
"""The ways in which modules import and export. Vendored ones export at their end, in the middle of a line."""

UNPACKED: Final = re.compile(r"^\s*(?:import|export)\b(?!\()|\bimport\s*\(|\bexport\s*(?:\{|default\b)", re.MULTILINE)
"""What must not be left of them."""

NEED: Final = """\
const made = new Map()
const need = (name) => {
  if (!made.has(name)) {
    const out = {}
    made.set(name, out)
    makers[name](out)
  }
  return made.get(name)
}
"""


class Unpackable(ValueError):
    """A module imports or exports in a way that is not known here."""


def packed(directory: Path, first: str) -> str:
    """Return a module that does what ``first`` does, with all that it imports, now or later.

    Raises:
        Unpackable: one of them is written otherwise, or two need each other.
    """
    modules: dict[str, str] = {}
    _add(directory, first, modules, [])
    makers = "".join(f"{name!r}: (out) => {{\n{text}\n}},\n" for name, text in modules.items())
    return f"{NEED}const makers = {{\n{makers}}}\nneed({first!r})\n"


def packed_styles(directory: Path, names: Sequence[str]) -> str:
    """Return style sheets as one, whose place is that of the last one."""
    return "".join((directory / name).read_text() for name in names)


def _add(directory: Path, name: str, modules: dict[str, str], above: list[str]) -> None:
    if name in above:
        raise Unpackable(f"modules need each other: {' -> '.join([*above[above.index(name) :], name])}")
    if name in modules:
        return
    text = (directory / name).read_text()
    for target in (*(at for _, at in IMPORT.findall(text)), *(at for _, at in PASSED_ON.findall(text))):
        _add(directory, _beside(name, target), modules, [*above, name])
    modules[name] = _made(name, text)
    for target in LATER.findall(text):
        _add(directory, _beside(name, target), modules, [])


def _made(name: str, text: str) -> str:
    """Return the body of the function that stands for a module. Its lines stay where they are."""

    def take(match: re.Match[str]) -> str:
        names, need = match[1], _need(name, match[2])
        if not names.startswith("{"):
            return f"const {{ default: {names} }} = {need};"
        taken = ", ".join(f"{outside}: {inside}" for outside, inside in _pairs(names))
        return f"const {{ {taken} }} = {need};" + "\n" * match[0].count("\n")

    def pass_on(match: re.Match[str]) -> str:
        need = _need(name, match[2])
        passed = ", ".join(f"{outside}: {need}.{inside}" for inside, outside in _pairs(match[1]))
        return f"Object.assign(out, {{ {passed} }});"

    text = IMPORT.sub(take, text)
    text = PASSED_ON.sub(pass_on, text)
    text = LATER.sub(lambda match: f"Promise.resolve().then(() => {_need(name, match[1])})", text)
    exported = [(found, found) for found in DECLARED.findall(text)]
    text = DECLARED.sub("", text)
    if (listed := LISTED.search(text)) is not None:
        exported += _pairs(listed[1])
        text = text[: listed.start()] + ";"
    text = DEFAULT.sub("out.default = ", text)
    if (left := UNPACKED.search(text)) is not None:
        line = text.count("\n", 0, left.start()) + 1
        raise Unpackable(f"{name}:{line}: {left[0].strip()!r} is not written as others import and export")
    told = ", ".join(f"{outside}: {inside}" for inside, outside in exported)
    return f"{text}\nObject.assign(out, {{ {told} }})" if told else text


def _pairs(names: str) -> list[tuple[str, str]]:
    """Return the names of ``{ a, b as c }``: what each is, and what it is called."""
    found = [one.split() for one in names.strip("{} \n").split(",") if one.strip()]
    return [(words[0], words[-1]) for words in found]


def _need(name: str, target: str) -> str:
    return f"need({_beside(name, target)!r})"


def _beside(name: str, target: str) -> str:
    return normpath(f"{name}/../{target}")
