"""All measures, with units, as OpenTelemetry and Prometheus show them alike. ``docs/observability.md`` has them all."""

from __future__ import annotations

from typing import Final, Literal

import msgspec


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """One measure. ``unit`` is OpenTelemetry's; ``bounds`` are the upper ends of a histogram's buckets.

    A ``live`` one is read from the workers that run when somebody collects, and costs nothing meanwhile.
    """

    name: str
    kind: Literal["counter", "histogram", "gauge"]
    unit: str
    labels: tuple[str, ...]
    help: str
    live: bool = False
    bounds: tuple[float, ...] = ()

    @property
    def prometheus_name(self) -> str:
        """Its name for Prometheus: with the unit, where that is seconds; counters get their ``_total`` there."""
        name = self.name.replace(".", "_")
        return f"{name}_seconds" if self.unit == "s" else name


SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)

STEP_DURATION: Final = "jetflow.step.duration"
QUEUE_DURATION: Final = "jetflow.step.queue.duration"
TRIGGERED: Final = "jetflow.runs.triggered"
SPAWNED: Final = "jetflow.children.spawned"
TASKS: Final = "jetflow.worker.tasks"
SLOTS: Final = "jetflow.worker.slots"
RUNNING: Final = "jetflow.worker.steps.running"
WAITING: Final = "jetflow.worker.steps.waiting"

CATALOGUE: Final = (
    Metric(
        name=STEP_DURATION,
        kind="histogram",
        unit="s",
        labels=("workflow", "step", "status"),
        help="How long attempts ran, waits for children included; status is succeeded, failed, parked or cancelled.",
        bounds=SECONDS,
    ),
    Metric(
        name=QUEUE_DURATION,
        kind="histogram",
        unit="s",
        labels=("workflow", "step"),
        help="How long tasks were stored before their function was called.",
        bounds=SECONDS,
    ),
    Metric(
        name=TRIGGERED,
        kind="counter",
        unit="{run}",
        labels=("workflow",),
        help="Root runs that clients of this process have made; not those that a key has found.",
    ),
    Metric(
        name=SPAWNED,
        kind="counter",
        unit="{run}",
        labels=("workflow",),
        help="Children that steps have spawned here, by the child's workflow; those found again are counted again.",
    ),
    Metric(
        name=TASKS,
        kind="counter",
        unit="{task}",
        labels=("event",),
        help="What became of tasks: executed, succeeded, failed, retried, parked, redelivered, handed_back, rejected, "
        "swept, adopted.",
        live=True,
    ),
    Metric(name=SLOTS, kind="gauge", unit="{slot}", labels=(), help="Slots of the workers.", live=True),
    Metric(name=RUNNING, kind="gauge", unit="{step}", labels=(), help="Steps that run, or wait in memory.", live=True),
    Metric(name=WAITING, kind="gauge", unit="{step}", labels=(), help="Steps that wait in memory.", live=True),
)
