"""Links between files of the repository, as GitHub shows them. Those of the site are checked by `make docs`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

from tests.docs.blocks import PAGES, ROOT

FILES: Final = (*PAGES, *(ROOT / ".github").glob("*.md"), *(ROOT / "sdk").glob("*/README.md"))

_LINK: Final = re.compile(r"\]\(([^)\s#\"]+)(?:#[^)]*)?\)")
_NAMED: Final = re.compile(r"`((?:docs|examples|docker|tests|conformance|benchmarks|sdk)/[\w/.-]+\.\w+)`")
_FENCED: Final = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("file", FILES, ids=[str(file.relative_to(ROOT)) for file in FILES])
def test_what_a_page_links_to_is_there(file: Path) -> None:
    text = _FENCED.sub("", file.read_text())
    links = [link for link in _LINK.findall(text) if ":" not in link]
    missing = [link for link in links if not (file.parent / link).exists()]
    assert not missing
    assert not [name for name in _NAMED.findall(text) if not (ROOT / name).exists()]


def test_the_readme_leads_to_each_part() -> None:
    text = (ROOT / "README.md").read_text()
    for page in ("tutorial", "fan-out", "comparison", "guarantees", "wire", "decisions", "testing", "deploying"):
        assert f"docs/{page}.md" in text
