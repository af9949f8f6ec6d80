"""Transitions in words, for counterexamples."""

from __future__ import annotations

from typing import Final

from jetflow.engine.effects import (
    Arm,
    CancelRun,
    Count,
    Disarm,
    Look,
    ReadEnded,
    ReadSteps,
    Start,
    StoreAttempt,
    StoreJoin,
    StoreMark,
    StoreRun,
    StoreStep,
)
from jetflow.engine.joins import SEAL, JoinRecord
from jetflow.engine.tasks import Outcome, StepAddress, Task
from tests.model.model import Model, Step
from tests.model.shell import Ack, Adopt, Await, Due, ReadElder, Spawn


def describe(model: Model, step: Step) -> str:
    """Return one line: who does what, and what comes of it."""
    task = describe_task(model, step.task) if step.task >= 0 else ""
    if step.effect is None:
        who = f"worker {step.worker} " if step.worker >= 0 else ""
        return f"{who}{step.what} {task}".rstrip() if who else f"{task} {step.what}".strip()
    what = f" ({step.what})" if step.what else ""
    delivery = f"{task}, delivery {step.attempt}"
    return f"worker {step.worker}: {delivery}{what}: {_effect(model, step.effect)}{_result(model, step)}"


def describe_task(model: Model, number: int) -> str:
    """Return a task as ``run/step/turn``."""
    run, step, turn = model.universe.task_keys[number]
    return f"{model.universe.names[run]}/{step}/{turn}"


def _number(value: object) -> str:
    if not isinstance(value, int):
        return str(value)
    seals = (value + SEAL // 2) // SEAL
    rest = value - seals * SEAL
    if not seals:
        return str(rest)
    return ("SEAL" if seals == 1 else f"{seals}*SEAL") + (f"{rest:+d}" if rest else "")


def _address(model: Model, address: StepAddress) -> str:
    return f"{model.universe.names[address.run]}/{address.step}"


def _names(model: Model, packed: bytes) -> str:
    return ", ".join(model.universe.names[packed[at : at + 16].hex()] for at in range(0, len(packed), 16))


def _outcome(outcome: Outcome) -> str:
    return outcome.status if outcome.error is None else f"{outcome.status}: {outcome.error.type}"


def _effect(model: Model, effect: object) -> str:
    names = model.universe.names
    match effect:
        case StoreRun(task, outcome):
            text = f"store the outcome of run {names[task.run]} ({_outcome(outcome)})"
        case StoreMark(task, _):
            text = f"mark run {names[task.run]}"
        case StoreStep(task, outcome):
            text = f"store the outcome of step {_address(model, task.join)} ({_outcome(outcome)})"
        case StoreJoin(_, record):
            text = _record(model, record)
        case Count(address, kind, by):
            text = f"{kind} counter of {_address(model, address)} += {_number(by)}"
        case Look(join, value):
            text = f"look at the join of {_address(model, join)}, value {_number(value)}"
        case StoreAttempt(task) | Arm(task) | Disarm(task) | Due(task) | CancelRun(task):
            text = f"{_OF_STEP[type(effect)]} {_address(model, task.join)}"
        case Start(task, step, turn):
            text = f"publish task {names[task.run]}/{step}/{turn}"
        case Spawn(_, child):
            text = f"spawn {names[child]}"
        case Adopt(task, child) | ReadElder(task, child):
            what = _address(model, task.join) if child is None else names[child]
            text = f"adopt {what}" if isinstance(effect, Adopt) else f"look for the elder of {what}"
        case Await(children):
            text = f"wait warm for {', '.join(names[child] for child in children)}"
        case _:
            text = _PLAIN.get(type(effect)) or repr(effect)
    return text


_OF_STEP: Final[dict[type, str]] = {
    StoreAttempt: "store an attempt of",
    Arm: "arm the timer of",
    Disarm: "remove the timer of",
    Due: "the time has come for",
    CancelRun: "cancel what is left of the run of",
}

_PLAIN: Final[dict[type, str]] = {
    ReadEnded: "read what it has led to",
    ReadSteps: "read how the run's steps have ended",
    Ack: "acknowledge",
}


def _record(model: Model, record: JoinRecord) -> str:
    members = "all stored" if record.members is None else f"{{{_names(model, record.members)}}}"
    borrowed = ", ".join(f"{model.universe.names[child.run]} of {child.step}" for child in record.borrowed)
    text = f"store {record.kind} record, needed {record.needed}, members {members}"
    return f"{text}, borrowed {borrowed}" if borrowed else text


def _result(model: Model, step: Step) -> str:
    match step.effect, step.token:
        case Count(), value:
            return f" -> {_number(value)}"
        case ((Arm() | Look()), (True | None | tuple())) if not step.what.startswith("reads"):
            return " -> incomplete, or not worth it" if step.token is None else " -> complete"
        case ReadEnded(), (run, ended, join):
            found = [name for name, is_there in (("run", run), ("step", ended), ("join", join)) if is_there]
            return f" -> {', '.join(found) or 'nothing'}"
        case Spawn(Task(step=own), _), int(owner) if model.universe.steps[owner] != own:
            return f" -> exists, spawned by {model.universe.steps[owner]}"
        case _:
            return ""
