"""How errors are recorded, which of them no other attempt would mend, and when a task comes too late."""

from __future__ import annotations

import asyncio
import traceback
from pathlib import Path
from time import time
from types import TracebackType
from typing import Any, Final

from jetflow.broker.puller import Delivery
from jetflow.engine.retries import Retry
from jetflow.engine.tasks import Failure, Task
from jetflow.errors import (
    ChildFailed,
    ChildrenFailed,
    DepthExceeded,
    InvalidDeclaration,
    InvalidInput,
    InvalidOutput,
    JetflowError,
    KeyConflict,
    NonRetryable,
    PayloadTooLarge,
    Poisoned,
    RetryAfter,
    RunTimeout,
    TreeTooLarge,
)
from jetflow.workflow import Step

TRACEBACK_LIMIT: Final = 16_000
"""Characters of a traceback that are kept, from its end."""

FRAMES: Final = 5
"""Frames of the user's code that a line of the log has, the innermost."""

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
)
"""Errors that another attempt would only repeat."""


OF_CHILDREN: Final = (ChildFailed, ChildrenFailed)
"""Errors that another attempt would find again, for children end once; a step may ask for another all the same."""


def is_final(error: BaseException, retry: Retry) -> bool:
    """Tell whether a step that raised an error is not tried again, however many attempts are left."""
    if isinstance(error, FINAL):
        return True
    if retry.on is None:
        return isinstance(error, OF_CHILDREN)
    return not isinstance(error, (*retry.on, RetryAfter))


def failure_of(error: BaseException, step: str) -> Failure:
    """Return an error as it is recorded."""
    if isinstance(error, JetflowError) and not isinstance(error, ExceptionGroup):
        text = ""
    else:
        text = "".join(traceback.format_exception(error))[-TRACEBACK_LIMIT:]
    message = str(error)[:TRACEBACK_LIMIT] + _hint(error)
    return Failure(
        type=type(error).__name__,
        message=_writable(message),
        step=step,
        traceback=_writable(text),
        place=_writable(_place(error.__traceback__)),
    )


def _hint(error: BaseException) -> str:
    """Return what has most likely been forgotten, where Python's own words do not say it."""
    if isinstance(error, TypeError | AttributeError):
        if "'coroutine'" in str(error):
            return " (is an await missing? in a plain def step, which cannot await: ctx.block_on(...))"
        if "'async_generator'" in str(error):
            return " (is it an async for that is meant?)"
    return ""


def _place(frames: TracebackType | None) -> str:
    """Return the innermost frame of the user's code, without the path of the machine; empty if there is none."""
    place = ""
    while frames is not None:
        code = frames.tb_frame.f_code
        if _is_the_users(code.co_filename):
            place = f"{Path(code.co_filename).name}:{code.co_name}"
        frames = frames.tb_next
    return place


def frames_of(error: BaseException) -> str:
    """Return the user's own frames of an error, innermost last, as they stand in a line of the log."""
    own: list[str] = []
    frames = error.__traceback__
    while frames is not None:
        code = frames.tb_frame.f_code
        if _is_the_users(code.co_filename):
            own.append(f"{Path(code.co_filename).name}:{frames.tb_lineno} in {code.co_name}")
        frames = frames.tb_next
    return f" ({', '.join(own[-FRAMES:])})" if own else ""


def _is_the_users(file: str) -> bool:
    """Tell whether a file is neither jetflow's nor of the standard library."""
    if file.startswith((_JETFLOW, "<frozen ")):
        return False
    return not file.startswith(_STANDARD) or any(name in file for name in _INSTALLED)


def _writable(text: str) -> str:
    """Return text that JSON can hold: names of files that are not UTF-8 stand in errors, too."""
    return text.encode("utf-8", "replace").decode()


def too_late(delivery: Delivery, task: Task, step: Step[..., Any, Any], attempt: int) -> RunTimeout | None:
    """Return why a task must not be run any more, if its time is over."""
    if task.deadline is not None and time() >= task.deadline:
        return RunTimeout("the deadline of the run passed before this step could run")
    if step.schedule_timeout is not None and attempt == 1 and time() - delivery.time > step.schedule_timeout:
        return RunTimeout(
            f"the task was in the queue for longer than its schedule_timeout of {step.schedule_timeout:g} s"
        )
    return None


def poisoned(delivery: Delivery, task: Task, step: Step[..., Any, Any]) -> Failure:
    """Return the failure of a task that was lost by its workers more often than its attempts allow."""
    error = Poisoned(
        f"step {task.step!r} of {task.workflow!r} was delivered {delivery.count} times and ended its worker, or was "
        f"lost by it, more often than its {step.retry.attempts} attempts allow"
    )
    return failure_of(error, task.step)
