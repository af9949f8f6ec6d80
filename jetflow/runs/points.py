"""Named points between receiving a task and acknowledging it, at which a test may kill the worker.

``JETFLOW_CRASH_POINT=store_run:after`` arms one of them, in all processes that share ``JETFLOW_CRASH_MARKER`` (a
path): the first that reaches it makes that file and dies by SIGKILL, the others go on. ``JETFLOW_CRASH_POINT=record``
kills nobody, and writes the points that are reached to the file. Both are read once, at import. Where nothing is
armed, which is everywhere but in ``tests/crash``, a point is one call that does nothing.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Generator
from typing import Any, Final

from jetflow.engine.effects import Count, Effect, Start

POINTS: Final = (
    # a delivery
    "receive",
    "read_graph",
    "read_attempts",
    "begin",
    "read_outputs_before",
    "read_errors",
    "read_input",
    "gather",
    "body",
    "stop_listening",
    "read_end",
    "store_cancelled_mark",
    "ack",
    "nak",
    "hand_back",
    "reject",
    # what a body asks for
    "resolve",
    "spawn_one",
    "spawn_batch",
    "spawn_batch_sent",
    "attach",
    "spawn_detached",
    "store_input",
    "listen",
    "read_ended_children",
    "wait",
    "take_slot",
    "read_once",
    "store_once",
    "cancel_open",
    "cancel_itself",
    "read_loosened",
    "read_elder",
    "read_elders",
    "adopt_children",
    "adopt_step",
    "read_page",
    "store_page",
    "read_tree_size",
    "store_chunk",
    "say_last",
    # effects of procedures
    "store_run",
    "store_mark",
    "store_step",
    "store_join",
    "pack_join",
    "store_output",
    "count_join",
    "count_seal",
    "count_gate",
    "look",
    "cancel_rest",
    "cancel_run",
    "store_attempt",
    "arm",
    "disarm",
    "stand",
    "read_ended",
    "read_steps",
    "start",
    "start_turn",
    # limits
    "record_places",
    "enter",
    "look_at_gate",
    "take_turn",
    "store_window",
    "end_runs",
    "read_over",
    "read_places",
    "wake_parked",
    "clear_below",
    "store_gone",
    "remove_entry",
    "leave_below",
    # cancelling a tree
    "keep_first",
    "put_back",
    "let_go",
    # the guard of a worker that has died
    "guard_record",
    "guard_nak",
    # a run that is run again
    "start_rerun",
    "store_elder",
    # a join whose policy is loosened
    "loosen_join",
    "count_loosened",
    "ask_look",
    # a straggler and its twin
    "ask_late",
    "store_twin",
    # a run whose key stands for it for a while
    "claim_key",
    "start_held",
    # a message from outside
    "inbox",
    "inbox_ack",
    # an event that starts a run
    "event",
    "start_for_event",
    "event_ack",
    # an event that steps wait for
    "store_waits",
    "take_event",
    # a step with conditions
    "read_decided",
    "store_armed",
    "store_decided",
    "expected",
    "remove_waits",
    "expected_ack",
    # a tree whose time is over
    "mark_all_deleted",
    "mark_deleted",
    "remove_tasks",
    "purge_beside",
    "purge_records",
    # a timer that has fired
    "due",
    "due_ack",
    # runs that begin later, and schedules
    "delay",
    "put_schedule",
    "read_schedule",
    "start_tick",
    "arm_tick",
    # a queue that is paused, where what waits for too long is cancelled
    "read_held",
    "read_waiting",
    "cancel_waiting",
    "arm_look",
)
"""Every point. Each has a *before* and an *after*."""

WRITTEN_LATER: Final = frozenset(
    {"ack", "nak", "reject", "spawn_batch_sent", "inbox_ack", "due_ack", "event_ack", "expected_ack", "guard_nak"}
)
"""Points whose *after* is when the message has left the write buffer."""

_FLUSHED: Final = 0.05
"""Seconds in which the write buffer is flushed."""

ARMED: Final = os.environ.get("JETFLOW_CRASH_POINT", "")
"""Which point is armed, if one is."""

_MARKER: Final = os.environ.get("JETFLOW_CRASH_MARKER", "")


def _before(point: str) -> None:
    _reach(point, "before")


def _after(point: str) -> None:
    _reach(point, "after")


_nothing: Final[Callable[[str], None]] = dict[str, None]().get  # a call that costs half of what one of Python's does

before: Final[Callable[[str], None]] = _before if ARMED else _nothing
"""Stand before a point."""

after: Final[Callable[[str], None]] = _after if ARMED else _nothing
"""Stand behind a point."""


def watched(procedure: Generator[Effect, Any, Any]) -> Generator[Effect, Any, Any]:
    """Drive a procedure whose effects are points."""
    result: Any = None
    try:
        while True:
            try:
                effect = procedure.send(result)
            except StopIteration as stop:
                return stop.value
            point = point_of(effect)
            before(point)
            result = yield effect
            after(point)
    finally:
        procedure.close()


def point_of(effect: Effect) -> str:
    """Return the name of the point that performing an effect is."""
    if isinstance(effect, Count):
        return f"count_{effect.kind}" if effect.by == 1 else "count_seal"
    if isinstance(effect, Start) and effect.turn:
        return "start_turn"
    name = type(effect).__name__
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).removeprefix("_")


def _reach(point: str, when: str) -> None:
    if ARMED == "record":
        _write_once(f"{_MARKER}.{point}:{when}")
    elif f"{point}:{when}" == ARMED and _write_once(_MARKER):
        if when == "after" and point in WRITTEN_LATER:
            asyncio.get_running_loop().call_later(_FLUSHED, _die)
        else:
            _die()


def _write_once(path: str) -> bool:
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        return False
    return True


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
