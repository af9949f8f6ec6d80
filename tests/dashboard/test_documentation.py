"""What docs/dashboard.md says: its programs run, and its table has every path."""

from __future__ import annotations

import re
from pathlib import Path

from jetflow.dashboard import Access, Dashboard
from jetflow.dashboard.api import ENDPOINTS
from jetflow.dashboard.topics import source_of

PAGE = (Path(__file__).parents[2] / "docs" / "dashboard.md").read_text()


def test_its_programs_are_programs() -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        names: dict[str, object] = {}
        exec(compile(block, "docs/dashboard.md", "exec"), names)
        assert isinstance(names["dashboard"], Dashboard)
        assert Access in names.values()


def test_its_table_has_every_path() -> None:
    rows = set[tuple[str, str]]()
    for line in PAGE.splitlines():
        found = re.match(r"\| (GET|POST|DELETE) (`.*?) \|", line)
        if found is not None:
            rows |= {(found[1], path) for path in _whole(re.findall(r"`([^`]+)`", found[2]))}
    there = {(endpoint.method, endpoint.path.replace("{n:int}", "{n}")) for endpoint in ENDPOINTS}
    assert rows == there


def _whole(paths: list[str]) -> list[str]:
    """Return paths of which later ones may begin with ``…`` for as much of the first one as they leave out."""
    first = paths[0].split("/")
    kept = 2 if first[0] in ("runs", "schedules") else 3
    return [path.replace("…", "/".join(first[:kept])) for path in paths]


def test_its_table_has_every_topic() -> None:
    section = PAGE[PAGE.index("| topic |") : PAGE.index("### Pages")]
    rows = [line.split("|")[1] for line in section.splitlines()[2:] if "|" in line]
    topics = re.findall(r"`([a-z]+(?::[A-Z]+)?)`", "\n".join(rows))
    of_runs = {"overview", "runs", "run:ID", "totals:ID", "said:ID"}
    assert set(topics) == of_runs | {"queues", "workers", "schedules", "events", "bulk:JOB", "problem"}
    for topic in topics:
        if topic not in ("problem", "bulk:JOB"):
            assert source_of(topic) is not None
