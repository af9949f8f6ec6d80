"""What crosses between a worker and its processes: frames, and errors as what they are."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jetflow.engine.tasks import Failure
from jetflow.errors import KeyConflict, StepEnded
from jetflow.processes import pool_memory
from jetflow.processes.pool_errors import Crossed, crossed, raised
from jetflow.processes.pool_messages import Call, Frames, Raised, Returned, framed, read_by_child, read_by_worker
from jetflow.worker.failures import failure_of
from jetflow.worker.in_process import described
from jetflow.worker.waiting import StepParked
from jetflow.workflow import Workflow

CALL = Call(workflow="w", step="s", run="r", root="r", attempt=2, input=b"{}", is_the_runs=True, outputs={"a": b"1"})


def test_frames_are_cut_wherever_they_were_torn() -> None:
    sent = [framed(Returned(b"x" * size, 1.0)) for size in (0, 1, 70_000)]
    stream = b"".join(sent)
    for step in (1, 3, 1000, len(stream)):
        frames = Frames()
        bodies = [body for at in range(0, len(stream), step) for body in frames.feed(stream[at : at + step])]
        assert [len(read_by_worker(body).output) for body in bodies] == [0, 1, 70_000]  # pyright: ignore[reportAttributeAccessIssue]


def test_a_message_comes_as_it_was_sent() -> None:
    [body] = Frames().feed(framed(CALL))
    assert read_by_child(body) == CALL
    failed = Raised(failure=Failure("T", "m", "s"), frames=" (a)", is_final=True, pause=1.5)
    [body] = Frames().feed(framed(failed))
    assert read_by_worker(body) == failed


@pytest.mark.parametrize(
    "error",
    [
        KeyConflict("w", "k", "r", "1", "2"),
        StepEnded("s", "r"),
        LookupError("step 'a' does not come before"),
        StepParked(),
        TimeoutError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_crosses_as_what_it_is(error: BaseException) -> None:
    there = raised(crossed(error))
    assert type(there) is type(error)
    assert (str(there), vars(there)) == (str(error), vars(error))


def test_an_error_that_the_other_side_does_not_have_crosses_as_its_nearest_class() -> None:
    class Own(ValueError):
        def __init__(self, left: int, right: object) -> None:
            super().__init__(f"{left} and {right}")
            self.left = left
            self.right = right

    there = raised(crossed(Own(1, object)))
    assert type(there) is ValueError
    assert vars(there) == {"left": 1}
    for strange in (Crossed("os", "system", "rm", {}), Crossed("jetflow.errors", "Any", "x", {})):
        assert type(raised(strange)) is RuntimeError


def test_an_error_of_a_step_is_described_as_it_would_be_recorded() -> None:
    step = Workflow("w").step(name="s")(described_step)
    with pytest.raises(ZeroDivisionError) as caught:
        described_step(0)
    told, known = described(caught.value, step), failure_of(caught.value, "s")
    assert told.failure == known
    assert re.fullmatch(
        r" \(test_pool_messages\.py:\d+ in \S+, test_pool_messages\.py:\d+ in described_step\)", told.frames
    )
    assert (told.is_final, told.pause) == (False, None)


def described_step(number: int) -> int:
    return 1 // number


@pytest.fixture
def counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Any]:
    group = tmp_path / "above" / "own"
    group.mkdir(parents=True)
    (tmp_path / "own").write_text("0::/above/own\n")
    (tmp_path / "vmstat").write_text("nr_free_pages 3\noom_kill 2\n")
    for name, file in (("_ROOT", ""), ("_OWN", "own"), ("_WHOLE_MACHINE", "vmstat")):
        monkeypatch.setattr(pool_memory, name, tmp_path / file)

    def write(count: int) -> None:
        (group.parent / "memory.events").write_text(f"low 0\noom 9\noom_kill {count}\noom_group_kill 7\n")

    return write


def test_the_kernels_counts_tell_whether_it_was_memory(counts: Callable[[int], Any]) -> None:
    counts(5)
    assert pool_memory.times_out_of_memory() == 5 + 2
    watch = pool_memory.OutOfMemory()
    assert not watch.has_struck()
    counts(6)
    assert watch.has_struck()
    assert watch.has_struck()  # several may have died of it
