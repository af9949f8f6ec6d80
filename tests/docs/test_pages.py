"""The programs of the guides run, and come to what the pages say.

Blocks that a first line such as ``# shelf.py`` names are files. Those that declare workflows are imported by a worker,
and each workflow is triggered; a block that ``text`` follows at once is a program, and prints that.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

import pytest

from jetflow.server import NatsServer
from tests.docs.blocks import ROOT, blocks_of
from tests.docs.pages import run, written

DECLARES: Final = re.compile(r"^@workflow\(|= Workflow\(", re.MULTILINE)

BOOKS: Final = ["Emma", "Ulysses"]

RUNS: Final[dict[str, dict[str, list[tuple[Any, Any]]]]] = {
    "docs/levels.md": {
        "send": [("ann@example.com", "normal letter to ann@example.com")],
        "campaign": [(["bob@example.com"], ["low letter to bob@example.com"])],
    },
    "docs/fan-out.md": {
        "weigh": [("Emma", 4), ("", "ValueError: a book has a title")],
        "weigh-all": [(BOOKS, 11)],
        "weigh-later": [(BOOKS, 11)],
        "weigh-some": [(BOOKS, 11)],
        "weigh-most": [(BOOKS, 11), ([""], "NonRetryable: 1 failed, 0 were not done in time"), (["", "Emma"], 4)],
        "weigh-twice": [("Emma", 8)],
    },
    "docs/idempotency.md": {"book-order": [("tea", 1)], "letter": [("you", True)]},
    "docs/errors.md": {
        "pay": [
            ({"card": "mine", "cents": 5}, "5 cents after 3 attempts"),
            ({"card": "stolen", "cents": 5}, "NonRetryable: the card is stolen"),
        ]
    },
    "docs/coming_from/celery.md": {"weigh": [("Emma", 4)], "weigh-all": [(BOOKS, "11 in all")]},
    "docs/coming_from/hatchet.md": {
        "weigh": [({"title": "Emma"}, 4)],
        "weigh-all": [({"titles": BOOKS}, 11)],
        "inventory": [({"titles": BOOKS}, "2 books")],
    },
    "docs/coming_from/temporal.md": {
        "weigh": [("Emma", 4)],
        "weigh-all": [(BOOKS, 11)],
        "order": [("tea", "charged tea under True, number 1")],
    },
    "docs/coming_from/airflow.md": {"weigh": [("Emma", 4)], "weigh-all": [("2026-11-27", "11 in all on 2026-11-27")]},
    "docs/coming_from/prefect.md": {
        "weigh": [("Emma", 4)],
        "weigh-all": [(BOOKS, 11)],
        "price": [("Emma", 40)],
        "prices": [([*BOOKS, "Emma"], [40, 70, 40])],
    },
}
"""Of each page, its workflows, with inputs and what becomes of them."""


@pytest.mark.parametrize("page", RUNS)
def test_workflows_come_to_what_the_page_says(
    page: str, nats_server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    files = [block for block in written(page, tmp_path) if block.file.endswith(".py")]
    modules = [block.file.removesuffix(".py") for block in files if DECLARES.search(block.text)]
    programs = [block.file for block in files if "sync.connect(" in block.text]
    wanted = [(name, given) for name, ends in RUNS[page].items() for given, _ in ends]
    ran = run(
        tmp_path,
        "-m",
        "tests.docs.pages",
        json.dumps([modules, wanted, programs]),
        NATS_URL=nats_server.url,
        JETFLOW_NAMESPACE=namespace,
    )
    assert ran.returncode == 0, ran.stderr
    told = [outcome for ends in RUNS[page].values() for _, outcome in ends]
    assert json.loads(ran.stdout.splitlines()[-1]) == told


PRINTED: Final = [
    (block, below)
    for page in sorted({*RUNS, "docs/sizing.md"})
    for block, below in zip(blocks_of(ROOT / page), blocks_of(ROOT / page)[1:], strict=False)
    if block.language == "python" and below.language == "text"
]


@pytest.mark.parametrize(("block", "below"), PRINTED, ids=[block.place for block, _ in PRINTED])
def test_programs_print_what_the_page_says(
    block: Any, below: Any, nats_server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    written(block.page, tmp_path)
    ran = run(tmp_path, block.file, NATS_URL=nats_server.url, JETFLOW_NAMESPACE=namespace)
    assert (ran.returncode, ran.stdout) == (0, below.text), ran.stderr


def test_each_workflow_of_a_guide_is_run() -> None:
    assert {page for page in RUNS if not (ROOT / page).exists()} == set()
    assert len(PRINTED) >= 3
