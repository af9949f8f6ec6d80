"""Which subjects a filter holds."""

from __future__ import annotations

import pytest

from jetflow.wire.filters import Filters, matches
from jetflow.wire.subjects import Subjects

ROOT, RUN = "0" * 32, "1" * 32


@pytest.mark.parametrize(
    ("subject", "is_one"),
    [
        (f"jf.n.task.leaf.run.{ROOT}.{ROOT}.{RUN}.0", True),
        (f"jf.n.task.other.run.{ROOT}.{ROOT}.{RUN}.0", False),
        (f"jf.n.task.leaf.run.{ROOT}.{RUN}.{RUN}.0", False),
        (f"jf.n.task.leaf.run.{ROOT}.{ROOT}.{RUN}.1", False),
        (f"jf.n.task.leaf.run.{ROOT}.{ROOT}.{RUN}", False),
        (f"jf.n.cancel.{ROOT}.{RUN}", False),
    ],
)
def test_a_filter_holds_the_subjects_that_differ_in_its_wildcards_only(subject: str, is_one: bool) -> None:
    assert matches(subject, Filters(Subjects("n")).first_tasks(ROOT, ROOT, workflow="leaf", step="run")) is is_one
