"""A run as it goes on, on a screen: never taller than it. Pure: from what is known of the run to what rich prints.

The header, a line a step, and under a step that has spawned one bar with counts, rate and time left; below, failures
in groups. Where there is no room for all, the steps that go on or have failed are shown, and how many are not.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import time
from typing import Final

import msgspec
from rich.console import Group, RenderableType
from rich.text import Text

from jetflow.cli.console import printable
from jetflow.cli.tables import STYLES, clock, status_text, took
from jetflow.runs.query.rows import ErrorGroup, RunTotals
from jetflow.runs.trace import RunTrace, StepTotals, StepTrace, Totals

BAR: Final = 24
"""Columns of a bar."""

GROUPS: Final = 5
"""Groups of failures that are shown."""

_QUIET: Final = ("pending", "succeeded", "skipped", "cancelled", "queued")
"""Steps that are left out first."""


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a run at one moment."""

    trace: RunTrace | None = None
    totals: RunTotals | None = None
    errors: tuple[ErrorGroup, ...] = ()


def view_of(seen: Seen, *, height: int) -> RenderableType:
    """Return a run on at most ``height`` lines, each of which is one line of the screen."""
    trace = seen.trace
    if trace is None:
        return Text("looking", "dim")
    lines = [_header(trace)]
    groups = [_group(group) for group in seen.errors[:GROUPS]]
    room = height - len(lines)
    groups = groups[: max(0, room // 3)]
    lines += _steps(trace, seen.totals, room - len(groups)) + groups
    for line in lines:
        line.no_wrap, line.overflow = True, "ellipsis"
    return Group(*lines[:height])


def _header(trace: RunTrace) -> Text:
    lasted = took(trace.triggered, trace.ended or time())
    key = f" {printable(trace.key)}" if trace.key else ""
    return Text.assemble(
        (f"{trace.workflow}{key} ", "bold"), (f"{trace.id} ", "dim"), status_text(trace.status), f"  {lasted}"
    )


def _steps(trace: RunTrace, totals: RunTotals | None, room: int) -> list[Text]:
    of_step = {} if totals is None else {one.step: one for one in totals.steps if one.totals.spawned}
    blocks = [(step, _step(step, of_step.get(step.name), totals)) for step in trace.steps]
    if sum(len(lines) for _, lines in blocks) > room:
        loud = [block for block in blocks if block[0].status not in _QUIET]
        quiet = [block for block in blocks if block[0].status in _QUIET]
        kept, left = list[StepTrace](), room - 1
        for step, lines in (*loud, *quiet):
            if len(lines) <= left:
                kept.append(step)
                left -= len(lines)
        shown = [line for step, lines in blocks if step in kept for line in lines]
        return [*shown, Text(f"… and {len(blocks) - len(kept)} more steps", "dim")]
    return [line for _, lines in blocks for line in lines]


def _step(step: StepTrace, children: StepTotals | None, totals: RunTotals | None) -> list[Text]:
    line = Text.assemble(
        "  ", step.name, "  ", status_text(step.status), (f"  {took(step.started, step.ended)}", "dim")
    )
    if step.attempts > 1:
        most = f" of {step.declared.attempts}" if step.declared is not None else ""
        line.append(f"  attempt {step.attempts}{most}", "yellow")
    if step.again is not None:
        line.append(f"  again at {clock(step.again)[11:]}", "yellow")
    if step.error is not None:
        line.append(f"  {printable(step.error.type)}: {printable(step.error.message)}", "red")
    if children is None or totals is None:
        return [line]
    alone = len([one for one in totals.steps if one.totals.open]) <= 1
    return [line, _bar(children.totals, totals if alone else None, spawning=not children.sealed)]


def _bar(totals: Totals, run: RunTotals | None, *, spawning: bool) -> Text:
    """Return the children of a step as a bar with counts, and, where they are all of the run, rate and time left."""
    text = Text("    ").append_text(stacked(totals))
    ended = totals.spawned - totals.open - totals.removed
    text.append(f"  {ended:,} of {'≥ ' if spawning else ''}{totals.spawned:,} children")
    for status in ("succeeded", "failed", "timed_out", "cancelled", "removed"):
        count: int = getattr(totals, status)
        if count:
            text.append(f"  {count:,} {status.replace('_', ' ')}", STYLES[status])
    if run is not None and totals.open:
        if run.rate:
            text.append(f"  {run.rate:,.0f}/s", "dim")
        if run.eta is not None and not spawning:
            text.append(f"  about {took(0.0, max(1.0, run.eta))} left", "dim")
    return text


def stacked(totals: Totals, width: int = BAR) -> Text:
    """Return how children stand as one bar. What there is at all has a column at least."""
    parts = [
        (totals.succeeded, "█", "green"),
        (totals.failed + totals.timed_out, "▓", "red"),
        (totals.cancelled + totals.removed, "▒", "magenta"),
    ]
    text, used = Text(), 0
    for count, letter, style in parts:
        columns = min(width - used, max(1, count * width // max(1, totals.spawned))) if count else 0
        text.append(letter * columns, style)
        used += columns
    return text.append("░" * (width - used), "dim")


def _group(group: ErrorGroup) -> Text:
    where = f" in {group.place}" if group.place else ""
    return Text.assemble(
        (f"  {group.count:,} x ", "bold red"), f"{printable(group.type)}: ", printable(group.message), (where, "dim")
    )


def changes_of(before: Seen, now: Seen) -> Sequence[str]:
    """Return what has changed, in lines for whoever reads a pipe: statuses as words."""
    lines: list[str] = []
    old = {} if before.trace is None else {step.name: step.status for step in before.trace.steps}
    trace = now.trace
    if trace is not None:
        for step in trace.steps:
            if old.get(step.name) != step.status and (before.trace is not None or step.status != "pending"):
                error = "" if step.error is None else f": {step.error.type}: {step.error.message}"
                lines.append(printable(f"step {step.name} {step.status}{error}"))
    if now.totals is not None and (before.totals is None or before.totals.totals != now.totals.totals):
        totals = now.totals.totals
        if totals.spawned:
            counts = [
                f"{getattr(totals, status):,} {status}"
                for status in ("open", "succeeded", "failed", "timed_out", "cancelled", "removed")
                if getattr(totals, status)
            ]
            lines.append(f"children {totals.spawned:,}: {', '.join(counts)}")
    if trace is not None and (before.trace is None or before.trace.status != trace.status):
        lines.append(f"run {trace.id} {trace.status}")
    return lines
