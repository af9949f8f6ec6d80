"""How errors are recorded, which of them no other attempt would mend, and when a task comes too late."""

from __future__ import annotations

import asyncio
import linecache
import os
import traceback
from pathlib import Path
from time import time
from types import CodeType, TracebackType
from typing import Any, Final

from jetflow.broker.puller import Delivery
from jetflow.engine.failures import LARGEST, clipped
from jetflow.engine.refusals import Refusal, refusal_of
from jetflow.engine.retries import Retry
from jetflow.engine.tasks import Failure, Task
from jetflow.errors import (
    BatchKeyFailed,
    BrokerError,
    BrokerRefused,
    BrokerTimeout,
    ChildFailed,
    ChildrenFailed,
    DepthExceeded,
    InvalidDeclaration,
    InvalidInput,
    InvalidOutput,
    JetflowError,
    JetStreamUnavailable,
    KeyConflict,
    NonRetryable,
    NothingToHedge,
    NotInOneGo,
    PayloadTooLarge,
    PermissionDenied,
    Poisoned,
    RetryAfter,
    RunTimeout,
    SleepTooLong,
    SourceChanged,
    TreeTooLarge,
    UnknownLevel,
    WaitInBatch,
    WaitTimeout,
)
from jetflow.processes.pool_errors import RaisedThere
from jetflow.worker.tracebacks import traceback_of
from jetflow.workflow import Step

TRACEBACK_LIMIT: Final = 16_000
"""Characters of a traceback that are kept, from its end."""

FRAMES: Final = 5
"""Frames of the user's code that a line of the log has, the innermost."""

_LINE_LIMIT: Final = 200
_NOT_FOUND: Final = 404

_JETFLOW: Final = str(Path(__file__).parents[1] / "_")[:-1]
_STANDARD: Final = str(Path(asyncio.__file__).parents[1] / "_")[:-1]
_INSTALLED: Final = ("site-packages", "dist-packages")
"""Directories under the standard library that hold what is not of it."""

FINAL: Final = (
    NonRetryable,
    RunTimeout,
    InvalidDeclaration,
    InvalidInput,
    InvalidOutput,
    PayloadTooLarge,
    KeyConflict,
    DepthExceeded,
    TreeTooLarge,
    UnknownLevel,
    SleepTooLong,
    SourceChanged,
    WaitTimeout,
    BatchKeyFailed,
    WaitInBatch,
    NotInOneGo,
    NothingToHedge,
)
"""Errors that another attempt would only repeat."""


OF_CHILDREN: Final = (ChildFailed, ChildrenFailed)
"""Errors that another attempt would find again, for children end once; a step may ask for another all the same."""


def is_final(error: BaseException, retry: Retry) -> bool:
    """Tell whether a step that raised an error is not tried again, however many attempts are left."""
    if isinstance(error, RaisedThere):
        return error.is_final
    if isinstance(error, FINAL):
        return True
    if retry.on is None:
        return isinstance(error, OF_CHILDREN)
    return not isinstance(error, (*retry.on, RetryAfter))


def pause_of(error: BaseException) -> float | None:
    """Return after how many seconds a step is tried again, if its error says so."""
    if isinstance(error, RaisedThere):
        return error.pause
    return error.seconds if isinstance(error, RetryAfter) else None


def failure_of(error: BaseException, step: str, *, room: int = LARGEST) -> Failure:
    """Return an error as it is recorded, in at most ``room`` bytes. It never raises, whatever the error is."""
    if isinstance(error, RaisedThere):
        return clipped(error.failure, room)
    name, message, place = _name(type(error)), _words(error), _writable(_place(error))
    if not message.strip():
        message = _without_words(error, name, place)
    failure = Failure(name, message + _hint(error, message), step, traceback=_trace(error), place=place)
    return clipped(failure, room)


def passes(error: BaseException) -> bool:
    """Tell whether an error is a state of the broker that ends: what it did not do may be asked of it again."""
    if isinstance(error, BrokerRefused):
        return refusal_of(error.code, error.err_code, error.description) is Refusal.PASSING
    return isinstance(error, BrokerTimeout | JetStreamUnavailable)


def refused_for_good(error: BaseException) -> bool:
    """Tell whether the broker will never take a message, or not from this user. A missing stream may return."""
    if isinstance(error, BrokerRefused):
        return error.code != _NOT_FOUND
    too_large = isinstance(error, BrokerError) and isinstance(error.__cause__, PayloadTooLarge)
    return too_large or isinstance(error, PermissionDenied)


def _name(kind: type[BaseException]) -> str:
    """Return the name of an error's class, or of the nearest that has one."""
    for one in type.mro(kind):
        name = type.__getattribute__(one, "__name__") or type.__getattribute__(one, "__qualname__")
        if name:
            return _writable(name)
    return BaseException.__name__


def _words(error: BaseException) -> str:
    """Return what an error says; what its own ``__str__`` raises is said instead."""
    try:
        return _writable(str(error)[:TRACEBACK_LIMIT])
    except BaseException as trouble:  # it is the user's code, and must not keep the failure from being told
        return f"(its __str__ raised {_name(type(trouble))})"


def _without_words(error: BaseException, name: str, place: str) -> str:
    """Return what stands for an error that says nothing: how it is written, where it was raised, and by which line."""
    try:
        written = _writable(repr(error)[:TRACEBACK_LIMIT])
    except BaseException:  # as in `_words`
        written = ""
    line = _line(error)
    if written in ("", "()"):
        written = f"{name}()"
    return written + (f" at {place}" if place else "") + (f": {line}" if line else "")


def _line(error: BaseException) -> str:
    """Return the innermost line of the user's code; empty if there is none, or its source is not at hand."""
    own = own_frames(error)
    line = linecache.getline(own[-1].tb_frame.f_code.co_filename, own[-1].tb_lineno).strip() if own else ""
    return _writable(line[:_LINE_LIMIT])


def _trace(error: BaseException) -> str:
    """Return the end of an error's traceback; empty for jetflow's own, which say what there is to say."""
    if isinstance(error, JetflowError) and not isinstance(error, ExceptionGroup):
        return ""
    try:
        return _writable(traceback_of(error)[-TRACEBACK_LIMIT:])
    except BaseException:  # as in `_words`; or a chain of causes that is too deep
        return _writable("".join(traceback.format_tb(error.__traceback__))[-TRACEBACK_LIMIT:])


def _hint(error: BaseException, message: str) -> str:
    """Return what has most likely been forgotten, where Python's own words do not say it."""
    if isinstance(error, TypeError | AttributeError):
        if "'coroutine'" in message:
            return " (is an await missing? in a plain def step, which cannot await: ctx.block_on(...))"
        if "'async_generator'" in message:
            return " (is it an async for that is meant?)"
    return ""


def _place(error: BaseException) -> str:
    """Return the innermost frame of the user's code, without the path of the machine; empty if there is none."""
    own = own_frames(error)
    code = own[-1].tb_frame.f_code if own else None
    return "" if code is None else f"{_file(code)}:{code.co_name}"


def frames_of(error: BaseException) -> str:
    """Return the user's own frames of an error, innermost last, as they stand in a line of the log."""
    if isinstance(error, RaisedThere):
        return error.frames
    own = [
        f"{_file(frame.tb_frame.f_code)}:{frame.tb_lineno} in {frame.tb_frame.f_code.co_name}"
        for frame in own_frames(error)[-FRAMES:]
    ]
    return f" ({', '.join(own)})" if own else ""


def own_frames(error: BaseException) -> list[TracebackType]:
    """Return the frames of the user's code, innermost last."""
    own: list[TracebackType] = []
    frame = error.__traceback__
    while frame is not None:
        if _is_the_users(frame.tb_frame.f_code.co_filename):
            own.append(frame)
        frame = frame.tb_next
    return own


def _file(code: CodeType) -> str:
    """Return the name of a file without its path."""
    return code.co_filename.rpartition(os.sep)[2]


def _is_the_users(file: str) -> bool:
    """Tell whether a file is neither jetflow's nor of the standard library."""
    if file.startswith((_JETFLOW, "<frozen ")):
        return False
    return not file.startswith(_STANDARD) or any(name in file for name in _INSTALLED)


def _writable(text: str) -> str:
    """Return text that JSON can hold: names of files that are not UTF-8 stand in errors, too."""
    return str.encode(text, "utf-8", "replace").decode()  # a subclass of str may have an encode of its own


def too_late(delivery: Delivery, task: Task, step: Step[..., Any, Any], *, is_first: bool) -> RunTimeout | None:
    """Return why a task must not be run any more, if its time is over."""
    if task.deadline is not None and time() >= task.deadline:
        return RunTimeout("the deadline of the run passed before this step could run")
    if step.schedule_timeout is not None and is_first and time() - delivery.time > step.schedule_timeout:
        return RunTimeout(
            f"the task was in the queue for longer than its schedule_timeout of {step.schedule_timeout:g} s"
        )
    return None


def poisoned(task: Task, step: Step[..., Any, Any]) -> Failure:
    """Return the failure of a task that was lost by its workers more often than its attempts allow."""
    error = Poisoned(
        f"step {task.step!r} of {task.workflow!r} was begun and lost, or ended its worker, more often than its "
        f"{step.retry.attempts} attempts allow"
    )
    return failure_of(error, task.step)
