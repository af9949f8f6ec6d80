"""What the checks of the pages refuse."""

from __future__ import annotations

import logging
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cyclopts import CycloptsError

from tests.docs.blocks import ROOT, Block, blocks_of
from tests.docs.commands import check, check_span, commands_of, spans_of


def shell(text: str) -> Block:
    return Block("README.md", 1, "sh", "", text)


@pytest.mark.parametrize(
    "line",
    [
        "jetflow nothing",
        "jetflow worker flows.py --nothing",
        "jetflow worker flows.py --slots many",
        "NATS_URL=nats://here jetflow list --sinc 24h",
        'pip install "jetflow-nats[nothing]"',
        "make nothing",
        "cd somewhere && python nothing.py",
        "python -m nothing",
        "docker compose -f docker/nothing.yaml up",
        "docker build -f docker/Dockerfile --target nothing .",
        "kubectl apply -k docker/nothing",
        "nothing --at all",
    ],
)
def test_a_command_that_is_not_there(line: str) -> None:
    block = shell(line)
    *known, last = commands_of(block)
    for command in known:
        check(block, command)
    with pytest.raises((CycloptsError, AssertionError, KeyError)):
        check(block, last)


def test_commands_are_taken_apart() -> None:
    block = shell("export A=b  # why\nA=1 jetflow list | jq && make test \\\n  ARGS=x\n")
    assert commands_of(block) == [["export", "A=b"], ["jetflow", "list"], ["jq"], ["make", "test", "ARGS=x"]]


def test_a_command_in_a_sentence() -> None:
    assert spans_of("See `jetflow\nlist`, and `list`.\n```sh\n`jetflow no`\n```\n") == ["jetflow list"]
    check_span("jetflow show")
    with pytest.raises(CycloptsError):
        check_span("jetflow show --nothing")


def test_blocks_have_their_place_and_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.docs.blocks.ROOT", tmp_path)
    (tmp_path / "page.md").write_text('a\n```python title="jetflow"\n# a/b.py\n1\n```\n\n```\nx\n```\n')
    [one, other] = blocks_of(tmp_path / "page.md")
    assert one == Block("page.md", 2, "python", "jetflow", "# a/b.py\n1\n")
    assert (one.file, other.file, other.language) == ("a/b.py", "", "")


def linked(text: str, source: str = "guide/page.md") -> str:
    files: Any = SimpleNamespace(get_file_from_path=lambda path: object() if path == "wire.md" else None)
    on_page_markdown = runpy.run_path(str(ROOT / "docs" / "naming.py"))["on_page_markdown"]  # as MkDocs takes it
    return on_page_markdown(text, page=SimpleNamespace(file=SimpleNamespace(src_uri=source)), files=files)


def test_the_site_links_what_pages_name(caplog: pytest.LogCaptureFixture) -> None:
    assert linked("`docs/wire.md`") == "[`docs/wire.md`](../wire.md)"
    assert linked("`docs/wire.md`", "page.md") == "[`docs/wire.md`](wire.md)"
    assert linked("```text\n`docs/wire.md`\n```") == "```text\n`docs/wire.md`\n```"
    assert linked("[licence](../LICENSE)", "page.md") == "`LICENSE`"
    assert linked("[wire](../wire.md)") == "[wire](../wire.md)"
    assert not caplog.records
    linked("`docs/nothing.md`")
    linked("[nothing](../NOTHING)", "page.md")
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
