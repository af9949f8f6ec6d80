"""How a run looks on a terminal. Pure: from traces to what rich prints.

All that comes from users goes into `Text`, since rich would read markup in a plain string.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import msgspec
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from jetflow.engine.tasks import Failure
from jetflow.runs.missing import told
from jetflow.runs.trace import ChildRow, ConditionTrace, LargeValue, PlaceTrace, RateTrace, RunTrace, StepTrace, Totals

LONGEST_VALUE: Final = 500
"""Characters of a JSON value that are shown."""

SHORT_VALUE: Final = 60
"""Characters of a step's output that are shown in its row."""

STYLES: Final = {
    "succeeded": "green",
    "failed": "bold red",
    "cancelled": "magenta",
    "removed": "magenta",
    "timed_out": "bold red",
    "running": "cyan",
    "waiting": "yellow",
    "retrying": "yellow",
    "skipped": "dim",
    "open": "yellow",
    "scheduled": "dim",
    "queued": "dim",
    "pending": "dim",
}


def page_of(trace: RunTrace, *, verbose: bool = False, chosen: str = "") -> RenderableType:
    """Return all that is known of a run: facts, steps, and a page of children, ``chosen`` by options if any."""
    parts: list[RenderableType] = [_facts(trace)]
    if trace.steps:
        parts += [Text(), _steps(trace.workflow, trace.steps, trace.triggered)]
    if trace.totals.spawned:
        parts += [Text(), totals_text(trace.totals)]
    if trace.children:
        parts.append(_children(trace.children))
    if trace.next_page is not None:
        options = f"{chosen} " if chosen else ""
        parts.append(Text(f"more: jetflow show {trace.id} {options}--page {trace.next_page}", "dim"))
    if verbose:
        for error in trace.errors:
            if error.traceback:
                parts += [Text(), Text(error.traceback.rstrip())]
    return Group(*parts)


def _facts(trace: RunTrace) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    lasted = took(trace.triggered, trace.ended)
    facts: list[tuple[str, Any]] = [
        ("run", trace.id),
        ("workflow", trace.workflow),
        ("status", Text.assemble(status_text(trace.status, trace.unattended), f" in {lasted}" if lasted else "")),
        ("begins", None if trace.begins is None else clock(trace.begins)),
        ("triggered", clock(trace.triggered)),
        ("key", trace.key),
        ("level", trace.level),
        ("parent", None if trace.parent is None else f"{trace.parent} (step {trace.parent_step})"),
        ("rerun of", None if trace.rerun_of is None else f"{trace.rerun_of} ({trace.rerun_only})"),
        ("rerun as", trace.rerun_as),
        ("root", None if trace.root == trace.id else trace.root),
        ("metadata", None if trace.metadata is None else value_text(trace.metadata)),
        ("input", _large(trace.large_input) or (None if trace.input is None else value_text(trace.input))),
        ("places", Text("\n".join(map(place_text, trace.places)))),
        ("rates", Text("\n".join(map(rate_text, trace.rates)))),
        ("output", value_text(trace.output) if trace.status == "succeeded" else None),
        ("error", Text("\n".join(error_text(error, of_step=True) for error in trace.errors), "red")),
    ]
    for name, fact in facts:
        if fact:
            table.add_row(name, fact if isinstance(fact, Text) else Text(fact))
    return table


def _steps(workflow: str, steps: tuple[StepTrace, ...], triggered: float | None) -> Table:
    table = table_of("step", "status", "attempts", "began", "took", "worker", "output or error")
    for step in steps:
        after = f" after {', '.join(step.after)}" if step.after else ""
        table.add_row(
            Text.assemble(step.name, (after, "dim")),
            Text("adopted", "dim")
            if step.adopted
            else status_text(step.status, (workflow,) if step.unattended else ()),
            Text(str(step.attempts or "")),
            Text(_offset(triggered, step.started)),
            Text(took(step.started, step.ended)),
            Text(step.worker or ""),
            _came_of(step),
        )
        for failure in step.failures:
            table.add_row(
                Text(f"└ attempt {failure.attempt}", "dim"),
                status_text("failed"),
                Text(),
                Text(_offset(triggered, failure.started)),
                Text(took(failure.started, failure.ended)),
                Text(failure.worker),
                Text(error_text(failure.error), "red"),
            )
    return table


def _came_of(step: StepTrace) -> Text:
    if step.error is not None:
        return Text(error_text(step.error), "red")
    waits = [place for place in step.places if not place.admitted and place.before is not None]
    if step.status == "waiting" and waits:
        return Text("\n".join(map(place_text, waits)), "yellow")
    if step.condition is not None and step.status in ("waiting", "skipped"):
        return Text(_of_condition(step.condition), "yellow" if step.status == "waiting" else "dim")
    if step.sleeps_until is not None:
        return Text(f"sleeps until {clock(step.sleeps_until)}", "yellow")
    if step.again is not None:
        return Text(f"tried again at {clock(step.again)}", "yellow")
    return Text(
        _large(step.large_output) or ("" if step.output is None else value_text(step.output, SHORT_VALUE)), "dim"
    )


def _of_condition(condition: ConditionTrace) -> str:
    if condition.verdict is not None:
        return condition.reason
    waits = {"run when": condition.run, "cancel if": condition.cancel, "skip if": condition.skip}
    return "; ".join(f"{name} {told}" for name, told in waits.items() if told)


def _children(children: tuple[ChildRow, ...]) -> Table:
    table = table_of("child", "workflow", "key", "status", "took", "worker", "error")
    for child in children:
        table.add_row(
            Text(child.id),
            Text(child.workflow),
            Text(child.key or ""),
            status_text("queued", (child.workflow,)) if child.unattended else status_text(child.status),
            Text(took(child.started, child.ended)),
            Text(child.worker or ""),
            Text(error_text(child.error), "red"),
        )
    return table


def table_of(*columns: str) -> Table:
    """Return an empty table with these columns."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column in ("child", "status"))
    return table


def totals_text(totals: Totals) -> Text:
    """Return how many children there are, by status."""
    text = Text(f"{totals.spawned:,} children")
    for status in Totals.__struct_fields__[1:]:
        count: int = getattr(totals, status)
        if count:
            text.append("  ").append_text(Text(f"{count:,} {status.replace('_', ' ')}", STYLES[status]))
    return text


def status_text(status: str, unattended: tuple[str, ...] = ()) -> Text:
    """Return a status as a word in its colour, and who is missing."""
    text = Text(status.replace("_", " "), STYLES[status])
    return text.append(f": {told(unattended)}", "bold yellow") if unattended else text


def error_text(error: Failure | None, *, of_step: bool = False) -> str:
    """Return an error on one line; empty for none."""
    if error is None:
        return ""
    where = f"{error.step}: " if of_step and error.step else ""
    return f"{where}{error.type}: {error.message}"


def place_text(place: PlaceTrace) -> str:
    """Return on one line how a run stands at a limit."""
    of = f"limit {place.limit!r}" + ("" if place.key is None else f" (key {place.key!r})")
    if place.admitted:
        return f"{of}: has a place of {place.max}"
    if place.before is None:
        return f"{of}: not there yet"
    return f"{of}: waits behind {place.before:,}, of which {place.max} may run"


def rate_text(rate: RateTrace) -> str:
    """Return on one line until when a run waits for its turn at a rate limit."""
    of = f"rate limit {rate.limit!r}" + ("" if rate.key is None else f" (key {rate.key!r})")
    units = "" if rate.units == 1 else f" for {rate.units:,} units"
    return f"{of}: not there yet" if rate.until is None else f"{of}: waits{units} until {clock(rate.until)}"


def value_text(value: Any, longest: int = LONGEST_VALUE) -> str:
    """Return a value as JSON, cut where it is long."""
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= longest else f"{text[:longest]}… ({len(text):,} characters; all with --json)"


def _large(value: LargeValue | None) -> str:
    return "" if value is None else f"{value.size:,} bytes of JSON, as value {value.reference}"


def clock(seconds: float | None) -> str:
    """Return a time in the local zone; empty for none."""
    return "" if seconds is None else datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M:%S")


def _offset(since: float | None, moment: float | None) -> str:
    return "" if since is None or moment is None else f"+{took(since, moment)}"


def took(started: float | None, ended: float | None) -> str:
    """Return how long something took; empty where that is not known."""
    if started is None or ended is None:
        return ""
    seconds = max(0.0, ended - started)
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"
