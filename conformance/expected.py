"""What a case expects of the log: kinds of messages, and the order in which they must first appear.

Each function here names one message of the wire format as a case speaks of it; all return an `Expected`. A field of a
body or a header that is given must be equal; others may be anything. A value may be a function: then it must hold.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from conformance.wire import Event


@dataclass(frozen=True)
class Run:
    """A run, by the ids that stand in its subjects, and one of its steps."""

    workflow: str
    step: str
    root: str
    parent: str
    parent_step: str
    run: str

    def at(self, step: str) -> Run:
        """Return the same run at another step."""
        return Run(self.workflow, step, self.root, self.parent, self.parent_step, self.run)

    @property
    def tokens(self) -> dict[str, str]:
        """The fields of its subjects."""
        return dict(vars(self))


@dataclass(frozen=True)
class Expected:
    """A kind of message. ``text`` is how a report speaks of it."""

    text: str
    fits: Callable[[Event], bool]

    def __str__(self) -> str:
        return self.text


def message(
    kind: str, *, body: Mapping[str, Any] | None = None, headers: Mapping[str, Any] | None = None, **fields: Any
) -> Expected:
    """Expect a message of a kind that the tested process sends. ``fields`` are of its subject, or ``delivery``."""
    wanted = {name: str(value) for name, value in fields.items() if name not in ("delivery", "way")}
    way, delivery = fields.get("way", ">"), fields.get("delivery")

    def fits(event: Event) -> bool:
        return (
            event.way == way
            and event.kind == kind
            and all(event.fields.get(name) == value for name, value in wanted.items())
            and (delivery is None or event.delivery == delivery)
            and all(_equal(event.headers.get(name), value) for name, value in (headers or {}).items())
            and all(_equal(event.field(name), value) for name, value in (body or {}).items())
        )

    said = " ".join(
        f"{name}={_text(value)}"
        for name, value in {**wanted, "delivery": delivery, **(headers or {}), **(body or {})}.items()
        if name not in ("root", "parent", "workflow") and value is not None
    )
    return Expected(f"{kind} {said}", fits)


def _equal(seen: Any, wanted: Any) -> bool:
    if callable(wanted):
        try:
            return bool(wanted(seen))
        except (TypeError, ValueError, KeyError, IndexError, AttributeError):
            return False
    return bool(seen == wanted)


def _text(value: Any) -> str:
    return "…" if callable(value) else str(value)


def any_of(*options: Expected) -> Expected:
    """Expect one of several."""
    text = " or ".join(map(str, options))
    return Expected(f"({text})", lambda event: any(one.fits(event) for one in options))


# --- a run and its steps


def task(run: Run, turn: int = 0, **more: Any) -> Expected:
    """Expect the task of a turn of a step, published."""
    return message("task", workflow=run.workflow, step=run.step, run=run.run, turn=turn, **more)


def delivered(run: Run, turn: int = 0, **more: Any) -> Expected:
    """Expect the task of a turn of a step, delivered to the tested process."""
    return message("task", way="<", step=run.step, run=run.run, turn=turn, **more)


def outcome(run: Run, status: str, **body: Any) -> Expected:
    """Expect the Outcome of a run."""
    record = {"status": status, **body}
    return message("run", body=record, root=run.root, parent=run.parent, parent_step=run.parent_step, run=run.run)


def mark(run: Run, status: str) -> Expected:
    """Expect the mark of a run that did not succeed."""
    return message(
        "mark",
        status=status,
        workflow=run.workflow,
        root=run.root,
        parent=run.parent,
        parent_step=run.parent_step,
        run=run.run,
    )


def told(run: Run) -> Expected:
    """Expect the live copy of a child's Outcome."""
    return message("live.run", root=run.root, parent=run.parent, parent_step=run.parent_step, run=run.run)


def step_outcome(run: Run, status: str, **body: Any) -> Expected:
    """Expect the Outcome of a step."""
    return message("step", root=run.root, run=run.run, step=run.step, body={"status": status, **body})


def attempt(run: Run, delivery: int = 1, turn: int = 0, **body: Any) -> Expected:
    """Expect an Attempt."""
    found = message("try", root=run.root, run=run.run, step=run.step, turn=turn, body=body)
    return Expected(
        f"{found.text} delivery={delivery}",
        lambda event: found.fits(event) and event.fields["delivery"] == str(delivery),
    )


def begun(run: Run, delivery: int, turn: int = 0) -> Expected:
    """Expect the record that the body of a redelivery begins."""
    found = message("try", root=run.root, run=run.run, step=run.step, turn=turn)
    return Expected(
        f"{found.text} delivery=begun-{delivery}",
        lambda event: found.fits(event) and event.fields["delivery"] == f"begun-{delivery}",
    )


def join(run: Run, kind: str, turn: int = 0, **body: Any) -> Expected:
    """Expect a JoinRecord."""
    return message("join", root=run.root, run=run.run, step=run.step, turn=turn, body={"kind": kind, **body})


def cancel_mark(run: Run) -> Expected:
    """Expect the mark that a run is cancelled."""
    return message("cancel", root=run.root, run=run.run)


def timer(run: Run, turn: int = 0, **more: Any) -> Expected:
    """Expect that the timer of a parked turn is armed."""
    return message("timer", workflow=run.workflow, step=run.step, root=run.root, run=run.run, turn=turn, **more)


# --- events


def event(key: str, topic: str) -> Expected:
    """Expect an event, delivered to the tested process."""
    return message("event", way="<", key=key, topic=topic)


def stands(run: Run, turn: int = 0, **more: Any) -> Expected:
    """Expect that one of the waits of a parked turn is stored."""
    return message("wait", step=run.step, root=run.root, run=run.run, turn=turn, **more)


def recorded(run: Run, what: str, holds: Callable[[Any], Any], name: str | None = None) -> Expected:
    """Expect that a step records a value once. ``what`` says which one, ``holds`` is asked of the value."""
    named: dict[str, Any] = {} if name is None else {"name": name}
    found = message("once", root=run.root, run=run.run, step=run.step, **named)
    return Expected(f"{found.text}: {what}", lambda event: found.fits(event) and _equal(event.json, holds))


# --- counters and looks


def counted(parent: Run, by: int = 1) -> Expected:
    """Expect an increment of a join's counter. Several may be merged into one."""
    found = message("count", root=parent.root, run=parent.run, step=parent.step)
    return Expected(f"{found.text} +{by}", lambda event: found.fits(event) and event.by >= by)


def sealed(run: Run, by: int) -> Expected:
    """Expect the increment that seals, or parks, a join."""
    found = message("count", root=run.root, run=run.run, step=run.step)
    return Expected(f"{found.text} +{by} (or more)", lambda event: found.fits(event) and by <= event.by < by + 1000)


def gate(run: Run, step: str) -> Expected:
    """Expect an increment at the gate before a step."""
    return message("gate", root=run.root, run=run.run, step=step)


def looked(parent: Run) -> Expected:
    """Expect that somebody looks at a join: the process itself, or whoever takes its ``in.look``."""
    asked = message("in.look", root=parent.root, run=parent.run, step=parent.step)
    token = f".join.{parent.root}.{parent.run}.{parent.step}."
    read = Expected("get join", lambda event: event.way == ">" and event.kind == "get" and token in event.subject)
    return Expected(f"look at {parent.step} of {parent.run[:6]}", any_of(asked, read).fits)


def purged(kind: str, root: str) -> Expected:
    """Expect that messages of a kind are purged of a tree, or of a part of it."""

    def fits(event: Event) -> bool:
        return event.way == ">" and event.kind == "purge" and f".{kind}." in event.subject and root in event.subject

    return Expected(f"purge {kind} of {root[:6]}", fits)


# --- how a delivery ends


def _acknowledged(kind: str, run: Run, turn: int, more: Mapping[str, Any]) -> Expected:
    return message(kind, step=run.step, run=run.run, turn=turn, **more)


def ack(run: Run, turn: int = 0, **more: Any) -> Expected:
    """Expect that a task is acknowledged."""
    return _acknowledged("ack", run, turn, more)


def nak(run: Run, turn: int = 0, **more: Any) -> Expected:
    """Expect that a task is handed back."""
    return _acknowledged("nak", run, turn, more)


def wpi(run: Run, turn: int = 0) -> Expected:
    """Expect that a task is kept alive."""
    return _acknowledged("wpi", run, turn, {})
