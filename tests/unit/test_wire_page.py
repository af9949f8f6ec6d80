"""``docs/wire.md`` names what the code has: fields of records, headers, error types, streams."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from jetflow import errors
from jetflow.engine.endings import NOT_RUN
from jetflow.engine.graph import Graph
from jetflow.engine.joins import JoinRecord
from jetflow.engine.policies import JoinPolicy
from jetflow.engine.tasks import Attempt, Failure, Outcome
from jetflow.runs.query.rows import RunningRow, WorkerRow
from jetflow.runs.values import LostValue
from jetflow.wire.headers import Header
from jetflow.wire.records import Declaration, DeclaredStep, Mark
from jetflow.wire.subjects import EDITION, LAYOUT, RECORD_KINDS, Subjects
from jetflow.worker.failures import FINAL

PAGE: Final = (Path(__file__).parents[2] / "docs" / "wire.md").read_text()
STANDING_FOR_OTHERS: Final = {
    "MalformedOutcome",
    "MalformedAttempt",
    LostValue.__name__,
    NOT_RUN,
    "ChildFailed",
    "LimitReached",
}
"""Types of errors that are no exception of `jetflow.errors`, or are made elsewhere."""


def section(title: str) -> str:
    """Return one section of the page."""
    return re.split(r"^## ", PAGE.partition(f"\n## {title}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]


def rows(text: str) -> list[list[str]]:
    """Return the cells of the tables in a text, without their heads."""
    cells = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return [row for row in cells if row[0].startswith("`") or row[0].startswith("any")]


def names(text: str) -> set[str]:
    """Return what stands in backticks as a word."""
    return set(re.findall(r'[`"]([A-Za-z_-]+)[`"]', text))


@pytest.mark.parametrize("kind", [Outcome, JoinRecord, Attempt, Failure, Mark, Graph, Declaration, DeclaredStep])
def test_every_field_of_a_record_is_named(kind: type[Any]) -> None:
    assert set(kind.__struct_fields__) <= names(section("Records"))


@pytest.mark.parametrize("kind", [WorkerRow, RunningRow])
def test_every_field_of_what_workers_answer_is_named(kind: type[Any]) -> None:
    assert set(kind.__struct_fields__) <= names(section("Asking workers"))


def test_every_field_of_a_policy_is_named() -> None:
    assert set(msgspec.structs.asdict(JoinPolicy())) <= names(section("Join"))


def test_every_header_is_named() -> None:
    headers = {value for name, value in vars(Header).items() if name.isupper()}
    assert headers <= names(section("Headers"))


def test_every_stream_and_kind_of_record_is_named() -> None:
    streams = section("Streams and buckets")
    found = {value for name, value in vars(Subjects("NS")).items() if name.endswith("_stream")}
    assert all(stream.replace("NS", "<ns>") in streams for stream in found)
    assert f"{{{','.join(RECORD_KINDS)}}}" in streams
    assert f'"jetflow_edition": "{EDITION}"' in streams
    assert f'"jetflow_layout": "{LAYOUT}"' in streams


def test_errors_that_are_final_are_said_to_be() -> None:
    final = {name for row in rows(section("Reserved error types")) if row[3].startswith("no") for name in names(row[0])}
    assert {kind.__name__ for kind in FINAL} <= final


def test_every_reserved_error_type_is_one_that_is_recorded() -> None:
    reserved = {name for row in rows(section("Reserved error types")) for name in names(row[0])}
    assert all(hasattr(errors, name) or name in STANDING_FOR_OTHERS for name in reserved)
