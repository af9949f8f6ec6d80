"""What the query layer answers. Times are seconds since the epoch, ids 32 hexadecimal digits, durations seconds.

These Structs are what REST and ``--json`` show, field by field: a field may join, none changes its meaning.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Generic, Literal, TypeVar

import msgspec

from jetflow.engine.tasks import Failure
from jetflow.runs.trace import ChildRow, ChildState, RunState, StepTotals, Totals, WorkflowTotals

__all__ = [
    "RETRYING",
    "STATES",
    "Bucket",
    "Change",
    "ChildRow",
    "ChildState",
    "ErrorGroup",
    "ErrorGroups",
    "Page",
    "QueueRow",
    "RunRow",
    "RunState",
    "RunTotals",
    "RunningRow",
    "Searched",
    "StepTotals",
    "Took",
    "Totals",
    "Tree",
    "TreeNode",
    "WorkerRow",
    "WorkflowSummary",
    "WorkflowTotals",
]

T = TypeVar("T")

STATES: tuple[str, ...] = ("open", "queued", "running", "succeeded", "failed", "cancelled", "timed_out")
"""What ``status`` may ask for, or several of them with commas between. Of root runs ``open`` is queued or running."""


RETRYING = "retrying"
"""What ``status`` may ask for of root runs besides: those of which a step waits for another attempt."""


def statuses_of(text: str) -> tuple[str, ...]:
    """Return the statuses that a ``status`` asks for."""
    return tuple(text.split(","))


class Searched(msgspec.Struct, frozen=True, kw_only=True):
    """What a list was looked for in: ``runs`` of those that were stored from ``since`` to ``until``.

    ``complete`` says that there is no more: only then does an empty list mean that there is none.
    """

    since: float | None = msgspec.field(default=None, name="from")
    until: float | None = msgspec.field(default=None, name="to")
    runs: int = 0
    complete: bool = True


class Took(msgspec.Struct, frozen=True):
    """How long rows took, in seconds: the median, the 95th percentile, and the longest."""

    p50: float
    p95: float
    most: float

    @classmethod
    def of(cls, durations: Sequence[float]) -> Took | None:
        """Return it of durations, the shortest first; None of none."""
        last = len(durations) - 1
        if last < 0:
            return None
        return cls(durations[last // 2], durations[min(last, int(0.95 * (last + 1)))], durations[last])


class Page(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """Some rows of a list. ``next`` and ``previous`` are cursors: give one as ``after`` to the same question.

    ``total`` is how many rows the list has, None where that is not known. A cursor stays good while rows arrive.
    ``took`` is known of lists that are in memory: how long all of their rows took that have ended. ``loaded`` is below
    1 where the order or the search that was asked for needs all rows, and so much of them is read: until then the page
    is in the order in which they were stored.
    """

    items: tuple[T, ...] = ()
    next: str | None = None
    previous: str | None = None
    total: int | None = None
    searched: Searched = Searched()
    took: Took | None = None
    loaded: float = 1.0


class RunRow(msgspec.Struct, frozen=True, kw_only=True):
    """One root run in a list. ``error`` is the first of its errors, and ``worker`` who has ended it.

    ``again`` is when the next attempt of a step is due, where it was asked for those that are to be tried again: then
    ``error`` is that of the last attempt.
    """

    id: str
    workflow: str
    status: RunState
    version: str = ""
    key: str | None = None
    metadata: Any = None
    triggered: float | None = None
    started: float | None = None
    ended: float | None = None
    worker: str | None = None
    error: Failure | None = None
    again: float | None = None
    level: str | None = None


class RunTotals(msgspec.Struct, frozen=True, kw_only=True):
    """How many children a run has, at the time ``at``: in all, by the step that spawned them, and by their workflow.

    ``status`` is the run's. While ``spawning``, a step runs that may spawn more, and ``totals.spawned`` is a lower
    bound. ``rate`` is how many children ended a second in the last ten, and ``eta`` in how many seconds the last one
    will have at that rate; both are None but in a `Queries.watch`.
    """

    run: str
    root: str
    status: RunState
    at: float
    totals: Totals = Totals()
    steps: tuple[StepTotals, ...] = ()
    workflows: tuple[WorkflowTotals, ...] = ()
    spawning: bool = False
    rate: float | None = None
    eta: float | None = None


class WorkflowSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What has become of the root runs of one workflow that were asked for in a time, and how long those took."""

    workflow: str
    runs: int
    open: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    timed_out: int = 0
    took: Took | None = None
    searched: Searched = Searched()


class TreeNode(msgspec.Struct, frozen=True, kw_only=True):
    """Runs of one ``workflow`` that one ``step`` has spawned, of all runs of the node above: how many, how they stand.

    ``first`` is when the first was spawned, ``last`` when the last ended. Few are named, in ``runs``, with their
    ``keys``. What they have spawned is in ``children``, or, where it is ``deeper`` than was asked for, left out.
    """

    step: str
    workflow: str
    totals: Totals
    took: Took | None = None
    first: float | None = None
    last: float | None = None
    runs: tuple[str, ...] = ()
    keys: tuple[str | None, ...] = ()
    children: tuple[TreeNode, ...] = ()
    deeper: bool = False


class Tree(msgspec.Struct, frozen=True, kw_only=True):
    """What a ``run`` has spawned, rolled up by step and workflow."""

    run: str
    children: tuple[TreeNode, ...] = ()
    searched: Searched = Searched()


class ErrorGroup(msgspec.Struct, frozen=True, kw_only=True):
    """Failures that are alike: ``message`` has what differs (numbers, ids, quoted text) replaced by ``…``.

    ``sample`` is one of the messages as it was; ``samples`` are ids of the newest runs, at most five. ``trend`` counts
    them in 24 equal parts of the time from the first to the last failure that was read.
    """

    fingerprint: str
    type: str
    message: str
    sample: str
    workflow: str
    status: str
    step: str | None = None
    place: str = ""
    count: int = 0
    first: float = 0.0
    last: float = 0.0
    samples: tuple[str, ...] = ()
    trend: tuple[int, ...] = ()


class ErrorGroups(msgspec.Struct, frozen=True, kw_only=True):
    """Failures in groups, the largest first. ``total`` is how many there are, read or not."""

    items: tuple[ErrorGroup, ...] = ()
    total: int = 0
    searched: Searched = Searched()


class QueueRow(msgspec.Struct, frozen=True, kw_only=True):
    """One step's queue; of a step with levels there are several, named ``<step>=<level>``.

    ``oldest`` is when the task was stored that has waited for longest.

    ``held`` tasks are with workers, ``redelivered`` of them not for the first time; ``limit`` is how many may be held
    at once, None for any number. ``pulls`` are requests of workers that wait for tasks: none, while tasks wait, is a
    queue that nobody serves. ``queue_ttl`` is after how many seconds of a pause what waits is cancelled.
    """

    workflow: str
    step: str
    waiting: int = 0
    oldest: float | None = None
    held: int = 0
    redelivered: int = 0
    limit: int | None = None
    pulls: int = 0
    paused_until: float | None = None
    queue_ttl: float | None = None


class RunningRow(msgspec.Struct, frozen=True, kw_only=True):
    """One step that a worker holds at this moment: it ``runs``, or waits in memory for children.

    ``stack`` is where its code stands, where that was asked for: of a coroutine or a thread.
    """

    run: str
    root: str
    workflow: str
    step: str
    worker: str
    attempt: int = 1
    turn: int = 0
    started: float | None = None
    state: Literal["running", "waiting"] = "running"
    stack: str = ""


class WorkerRow(msgspec.Struct, frozen=True, kw_only=True):
    """One worker that answered. ``used`` of its ``slots`` run steps; ``waiting`` steps wait in its memory.

    ``lag`` is how many seconds late its event loop was, when it was asked. The counts are since it ``started``.
    ``running`` are its newest steps, at most 200.
    """

    name: str
    host: str = ""
    pid: int = 0
    version: str = ""
    python: str = ""
    started: float = 0.0
    workflows: tuple[str, ...] = ()
    labels: Mapping[str, Any] = {}
    slots: int = 0
    used: int = 0
    waiting: int = 0
    lag: float = 0.0
    leaving: bool = False
    executed: int = 0
    succeeded: int = 0
    failed: int = 0
    retried: int = 0
    redelivered: int = 0
    swept: int = 0
    running: tuple[RunningRow, ...] = ()


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """Something that was stored of a run: it was ``triggered`` or began a ``turn``, or a step or a run has ended.

    ``kind`` is what: ``run`` (``run`` has ended, the followed one or a child of it), ``mark`` (it will have ended so:
    ``status``), ``step``, ``join`` (a step is sealed or parked), ``try`` (an attempt failed, or began again), ``task``.
    ``sequence`` grows from change to change of one stream: give the last one to go on behind it.
    """

    kind: Literal["run", "mark", "step", "join", "try", "task"]
    run: str
    sequence: int
    step: str | None = None
    status: str | None = None
    workflow: str | None = None
    parent: str | None = None


class Bucket(msgspec.Struct, frozen=True, kw_only=True):
    """What ended in one part of a time: ``succeeded`` is all that has no mark."""

    since: float
    until: float
    ended: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    timed_out: int = 0
