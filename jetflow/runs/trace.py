"""What is told of a run: where it and its steps stand, their attempts, its children. `describing` fills it in."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import msgspec

from jetflow.engine.endings import Verdict
from jetflow.engine.policies import ALL_SUCCEED, JoinPolicy
from jetflow.engine.tasks import Failure, Status
from jetflow.wire.records import DeclaredStep

State = Literal[
    "pending", "queued", "running", "waiting", "retrying", "succeeded", "failed", "cancelled", "timed_out", "skipped"
]


ChildState: TypeAlias = Literal["open", "succeeded", "failed", "cancelled", "timed_out"]
"""Where a child stands: whether an open one is queued or running, only its worker knows, see `RunningRow`."""

RunState: TypeAlias = Literal["queued", "running", "succeeded", "failed", "cancelled", "timed_out"]
"""Where a root run stands."""

LOST = "WorkerLost"
"""The type of the error that stands for an attempt whose worker was lost, and could record nothing."""


class LargeValue(msgspec.Struct, frozen=True):
    """An input or an output that is too large for its record. ``size`` is bytes of JSON; 0 if it is gone."""

    reference: str
    size: int


class AttemptTrace(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt that ended without an outcome. Times are seconds since the epoch.

    Of one whose worker was lost nothing is known but that it was: its error is of the type ``WorkerLost``.
    """

    attempt: int
    worker: str = ""
    started: float | None = None
    ended: float | None = None
    error: Failure | None = None


class WaitTrace(msgspec.Struct, frozen=True, kw_only=True):
    """Events that a step waits for: those of a ``topic``, with a ``key`` if there is one, that fit all conditions.

    A ``signal`` is one to the run itself: its topic is the name. A key that is no name is told by its hash.
    """

    topic: str
    key: str | None = None
    signal: bool = False
    conditions: tuple[tuple[str, str, Any], ...] = ()


class JoinTrace(msgspec.Struct, frozen=True, kw_only=True):
    """What a step waits for, or has waited for, with its function returned (``sealed``) or parked (``parked``).

    ``needed`` children must have ended before its ``policy`` can be decided over ``total``, or one of the events come
    that it ``waits`` for; ``since`` is when it returned or was parked, and ``until`` when a timer wakes it in any case,
    in seconds since the epoch.
    """

    kind: Literal["sealed", "parked"]
    needed: int
    total: int = 0
    policy: JoinPolicy = ALL_SUCCEED
    since: float | None = None
    until: float | None = None
    waits: tuple[WaitTrace, ...] = ()


class PlaceTrace(msgspec.Struct, frozen=True, kw_only=True):
    """A place of a limit that a run, or a step, needs, which admits ``max`` runs of a key at once.

    It is ``admitted``, or waits behind ``before`` others, ``since`` a time (seconds since the epoch). Both are None
    where it has not come so far.
    """

    limit: str
    key: str | None = None
    max: int
    before: int | None = None
    since: float | None = None
    admitted: bool = False


class RateTrace(msgspec.Struct, frozen=True, kw_only=True):
    """A rate limit of a run that has not begun, and how many ``units`` it takes of it.

    ``until`` (seconds since the epoch) is when its turn comes; None where it has not come so far.
    """

    limit: str
    key: str | None = None
    units: int = 1
    until: float | None = None


class ConditionTrace(msgspec.Struct, frozen=True, kw_only=True):
    """What a step with conditions waits for, as text; or the ``verdict`` that they have come to, and the ``reason``."""

    skip: str = ""
    cancel: str = ""
    run: str = ""
    verdict: Verdict | None = None
    reason: str = ""


class StepTrace(msgspec.Struct, frozen=True, kw_only=True):
    """Where one step stands. Times are seconds since the epoch.

    ``waiting`` means that its function has returned or was parked, and children are still open, or it sleeps, until
    ``sleeps_until``; ``retrying`` that it has failed, and is tried again at ``again``. ``turns`` counts how often it
    was begun, parked turns included; ``failures`` are the attempts that failed, or were lost with their workers, and
    were tried again. An output that is too large for its record is told by its ``large_output``, and not read. An
    ``unattended`` one has been queued for five seconds and more, and no worker runs it. ``declared`` is what the newest
    declaration says of the step: how many attempts it has, its timeout, where its code is. ``adopted`` is the run of
    which a rerun has taken over the end of the step. ``condition`` is of a step that waits for its conditions, or whose
    conditions were decided. ``places`` are those of the step's own limits, as long as it has begun, or waits, and has
    not ended.
    """

    name: str
    status: State
    after: tuple[str, ...] = ()
    turns: int = 0
    attempts: int = 0
    queued: float | None = None
    started: float | None = None
    ended: float | None = None
    worker: str | None = None
    error: Failure | None = None
    output: Any = None
    large_output: LargeValue | None = None
    again: float | None = None
    sleeps_until: float | None = None
    unattended: bool = False
    failures: tuple[AttemptTrace, ...] = ()
    join: JoinTrace | None = None
    declared: DeclaredStep | None = None
    adopted: str | None = None
    condition: ConditionTrace | None = None
    places: tuple[PlaceTrace, ...] = ()


class ChildRow(msgspec.Struct, frozen=True, kw_only=True):
    """One child run in a list. ``n`` is its place in spawn order, from 0, where that is known.

    ``attempts`` counts those that were recorded; of an open child it is 0. ``error`` is short where it comes from a
    mark: without traceback.
    """

    id: str
    workflow: str
    step: str
    status: ChildState
    n: int | None = None
    key: str | None = None
    queued: float | None = None
    started: float | None = None
    ended: float | None = None
    attempts: int = 0
    worker: str | None = None
    error: Failure | None = None
    unattended: bool = False


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """How many children a run has, by status. ``removed`` were spawned, and cancelled before they could end."""

    spawned: int = 0
    open: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    timed_out: int = 0
    removed: int = 0


class StepTotals(msgspec.Struct, frozen=True, kw_only=True):
    """The children of one step. ``sealed`` says that its function has returned: it spawns no more."""

    step: str
    totals: Totals
    sealed: bool = False


class WorkflowTotals(msgspec.Struct, frozen=True, kw_only=True):
    """The children of one workflow. ``open`` and ``succeeded`` are None where only a look at each child could tell."""

    workflow: str
    spawned: int = 0
    open: int | None = None
    succeeded: int | None = None
    failed: int = 0
    cancelled: int = 0
    timed_out: int = 0


class RunTrace(msgspec.Struct, frozen=True, kw_only=True):
    """Where one run stands. Times are seconds since the epoch.

    ``children`` is one page; give ``next_page`` to the next call to go on. ``totals`` counts all children. ``errors``
    holds the errors of all steps that failed, and ``error`` the first of them. An input that is too large for its task
    is told by ``large_input``, and not read. A step ``on_failure`` or ``on_success`` is among
    ``steps`` once it was started. ``digest``
    is that of the input; of a child without a key it is empty.
    ``places`` are those of limits that it needs, while it goes on; ``rates`` are its rate limits, until it begins.
    ``unattended`` are the workflows that its queued steps, and the children of this page, wait for in vain.
    A ``scheduled`` one has not begun: nothing is known of it but what it was asked for with, and when it ``begins``.
    ``rerun_of`` is the run that it was made of, of ``rerun_only`` what (``failed``, ``all``, ``from-`` a step), and
    ``rerun_as`` the run that was made of it.
    """

    id: str
    workflow: str
    status: Literal["scheduled", "queued", "running"] | Status
    root: str
    parent: str | None = None
    parent_step: str | None = None
    depth: int = 0
    key: str | None = None
    metadata: Any = None
    version: str = ""
    triggered: float | None = None
    ended: float | None = None
    input: Any = None
    large_input: LargeValue | None = None
    output: Any = None
    error: Failure | None = None
    errors: tuple[Failure, ...] = ()
    steps: tuple[StepTrace, ...] = ()
    totals: Totals = Totals()
    children: tuple[ChildRow, ...] = ()
    next_page: str | None = None
    digest: str = ""
    deadline: float | None = None
    on_failure: str | None = None
    on_success: str | None = None
    step_totals: tuple[StepTotals, ...] = ()
    workflow_totals: tuple[WorkflowTotals, ...] = ()
    places: tuple[PlaceTrace, ...] = ()
    rates: tuple[RateTrace, ...] = ()
    unattended: tuple[str, ...] = ()
    begins: float | None = None
    rerun_of: str | None = None
    rerun_as: str | None = None
    rerun_only: str | None = None
    level: str | None = None
