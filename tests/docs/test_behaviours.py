"""Each behaviour of others that is kept is held by a test that exists."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_what_is_kept_of_others_is_held_by_tests() -> None:
    section = (ROOT / "docs" / "decisions.md").read_text().partition("## Behaviours of others")[2]
    named = set(re.findall(r"`(test_\w+)`", section))
    there = {
        name for file in (ROOT / "tests").rglob("test_*.py") for name in re.findall(r"def (test_\w+)", file.read_text())
    }
    assert len(named) > 40
    assert named <= there, named - there
    for row in (line for line in section.splitlines() if line.startswith("| ") and "---" not in line):
        assert "`test_" in row or "| no:" in row or row.startswith("| behaviour"), row
