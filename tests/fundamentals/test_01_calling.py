"""A step is a plain function. Nothing here needs a server, a worker or a fixture."""

from __future__ import annotations

from jetflow import Workflow, workflow


@workflow("double")
async def double(number: int) -> int:
    return 2 * number


@workflow("triple")
def triple(number: int) -> int:
    return 3 * number


@workflow("answer")
async def answer() -> int:
    return 42


report = Workflow("report")


@report.step
def title(name: str) -> str:
    return f"Report on {name}"


async def test_calling_a_workflow_of_one_step_just_runs_it() -> None:
    """In a unit test a workflow is its function: no broker, no retry, no dedup."""
    assert await double(21) == 42
    assert await answer() == 42


def test_calling_a_plain_def_workflow_just_runs_it() -> None:
    """A plain function stays plain: nothing to await."""
    assert triple(14) == 42


def test_calling_a_step_just_runs_it() -> None:
    """The steps of a bigger workflow are functions, too."""
    assert title("birds") == "Report on birds"
