"""The code blocks of README.md and of the pages in docs/: where each stands, its language, its title, its text."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parents[2]
PAGES: Final = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))

_FENCE: Final = re.compile(
    r"^(?P<indent> *)```(?P<info>[^\n`]*)\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL
)
_FILE: Final = re.compile(r"^# ([\w/.-]+\.\w+)$", re.MULTILINE)


class Block(NamedTuple):
    """``file`` is the name that a first line such as ``# flows.py`` gives it."""

    page: str
    line: int
    language: str
    title: str
    text: str

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def file(self) -> str:
        named = _FILE.match(self.text)
        return named[1] if named else ""


def blocks_of(page: Path) -> list[Block]:
    text, found = page.read_text(), list[Block]()
    for fence in _FENCE.finditer(text):
        language, _, more = fence["info"].strip().partition(" ")
        title = re.search(r'title="([^"]+)"', more)
        line = text.count("\n", 0, fence.start()) + 1
        found.append(Block(str(page.relative_to(ROOT)), line, language, title[1] if title else "", fence["text"]))
    return found


def all_blocks() -> list[Block]:
    return [block for page in PAGES for block in blocks_of(page)]
