"""What the checker asks of delays, events and schedules: nothing begins early, and each starts one run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import datetime

from tests.chaos.checker import Streams, Verdict
from tests.chaos.driver import Acknowledged
from tests.chaos.plan import ORDERED, TICKED
from tests.chaos.sender import Sender
from tests.chaos.steps import CLOCKS_DIFFER


def check_moments(verdict: Verdict, streams: Streams, log: Iterable[Acknowledged], sent: Sender) -> None:
    """Compare the runs that are stored with what was asked for."""
    for told in log:
        task = streams.runs.get(told.run)
        if task is not None and task.time < told.not_before - CLOCKS_DIFFER:
            verdict.early.append(f"run {told.run} began {told.not_before - task.time:.1f} s before its time")
    orders = Counter(task.input["seed"] for task in streams.runs.values() if task.workflow == ORDERED)
    verdict.lost += [f"event 'order {seed}' has started no run" for seed in sent.orders - orders.keys()]
    verdict.doubled += [f"event 'order {seed}' has started {count} runs" for seed, count in orders.items() if count > 1]
    ticks = Counter[tuple[str, int]]()
    for run, task in streams.runs.items():
        if task.workflow == TICKED:
            name, _, tick = (task.key or "").partition("@")
            at = int(datetime.fromisoformat(tick).timestamp())
            ticks[name, at] += 1
            if task.time < at - CLOCKS_DIFFER:
                verdict.early.append(f"run {run} of schedule {name} began {at - task.time:.1f} s before its tick")
    verdict.lost += [f"tick {at} of schedule {name} has started no run" for name, at in sent.ticks - ticks.keys()]
    verdict.doubled += [
        f"tick {at} of schedule {name} has started {n} runs" for (name, at), n in ticks.items() if n > 1
    ]
    verdict.wrong += [f"schedule {name} has no tick at {at}" for name, at in ticks.keys() - sent.ticks]
