"""Every code block of README.md and docs/: each is checked by what its language is, and one of no known language fails.

Python is type-checked, all of it in one run; what other systems' programs look like is only compiled, for they are not
installed here. Command lines are read by the command's own parser, files of settings and servers by their readers.
``text`` is what was printed, or is on the wire, which `test_tutorial`, `test_pages` and ``test_wire_page`` look at.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import textwrap
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from jetflow.server import find_server
from jetflow.settings import NAMED
from tests.docs.blocks import PAGES, ROOT, Block, all_blocks
from tests.docs.commands import check, check_span, commands_of, spans_of

BLOCKS: Final = all_blocks()
OTHERS: Final = ("Celery", "Hatchet", "Temporal", "Airflow", "Prefect")
"""Titles of blocks that are not jetflow's."""

LANGUAGES: Final = ("python", "sh", "text", "json", "toml", "yaml", "nats")


def of(*languages: str) -> Any:
    chosen = [block for block in BLOCKS if block.language in languages]
    return pytest.mark.parametrize("block", chosen, ids=[block.place for block in chosen])


def ours(block: Block) -> bool:
    return block.language == "python" and block.title not in OTHERS


def test_each_block_has_a_language_that_is_looked_at() -> None:
    unknown = [f"{block.place}: {block.language!r}" for block in BLOCKS if block.language not in LANGUAGES]
    assert not unknown
    for page in {block.page for block in BLOCKS}:
        fences = (ROOT / page).read_text().count("```")
        assert fences == 2 * sum(block.page == page for block in BLOCKS), f"{page}: a block that is not closed"


def test_a_block_has_a_title_that_is_known() -> None:
    assert {block.title for block in BLOCKS} <= {"", "jetflow", *OTHERS}
    assert all(block.title for block in BLOCKS if "/coming_from/" in block.page and block.language == "python")


def test_types_are_right_in_all_of_them(tmp_path: Path) -> None:
    """Each page is a directory, in which blocks find those that a first line such as ``# flows.py`` names."""
    flows = next(block.text for block in BLOCKS if block.page == "README.md" and block.file == "flows.py")
    places: dict[str, Block] = {}
    for block in filter(ours, BLOCKS):
        directory = tmp_path / block.page.removesuffix(".md").replace("-", "_")
        directory.mkdir(parents=True, exist_ok=True)
        if not (directory / "flows.py").exists():
            (directory / "flows.py").write_text(flows)
        name = block.file or f"line_{block.line}.py"
        (directory / name).write_text(as_module(block.text))
        places[str(directory / name)] = block
    settings = {"pythonVersion": "3.11", "typeCheckingMode": "standard", "reportMissingModuleSource": False}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    checked = subprocess.run(
        [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, "--project", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    report = json.loads(checked.stdout)
    found = [
        f"{places[one['file']].place} + {one['range']['start']['line']}: {one['message']}"
        for one in report["generalDiagnostics"]
        if one["severity"] == "error"
    ]
    assert not found, "\n".join(found)
    assert report["summary"]["filesAnalyzed"] >= len(places)


def as_module(text: str) -> str:
    """Return cells of a notebook, which may await, as a function of a module."""
    try:
        compile(text, "block", "exec")
    except SyntaxError:
        compile(text, "block", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        return "async def cells() -> None:\n" + textwrap.indent(text, "    ")
    return text


@pytest.mark.parametrize("system", OTHERS)
def test_programs_of_other_systems_are_programs(system: str) -> None:
    """No more than that: they are not run, and their types are not looked at."""
    blocks = [block for block in BLOCKS if block.title == system]
    assert blocks
    for block in blocks:
        compile(block.text, block.place, "exec")


@of("sh")
def test_commands_and_their_options_exist(block: Block) -> None:
    commands = commands_of(block)
    assert commands
    for command in commands:
        check(block, command)


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_commands_in_a_sentence_exist(page: Path) -> None:
    for span in spans_of(page.read_text()):
        check_span(span)


@of("json", "toml", "yaml")
def test_data_can_be_read(block: Block) -> None:
    match block.language:
        case "json":
            assert json.loads(block.text)
        case "yaml":
            assert list(yaml.safe_load_all(block.text))
        case _:
            values = tomllib.loads(block.text)
            if block.file == "jetflow.toml":
                assert set(values) <= set(NAMED)


@of("nats")
def test_servers_take_their_configuration(block: Block, tmp_path: Path) -> None:
    (tmp_path / "nats.conf").write_text(block.text)
    command = [find_server(), "-t", "-c", "nats.conf"]
    checked = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_pages_have_blocks_of_each_kind() -> None:
    """A page that is not found, or a pattern that finds nothing, would leave all of the above with nothing to do."""
    counted = Counter(block.language for block in BLOCKS)
    assert counted["python"] > 40
    assert counted["sh"] > 10
    assert {"README.md", "docs/tutorial.md", "docs/coming_from/celery.md"} <= {block.page for block in BLOCKS}
