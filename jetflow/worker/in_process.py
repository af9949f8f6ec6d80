"""The program of a process in which a worker runs steps; see `jetflow.processes.pool_child`."""

from __future__ import annotations

import sys
from typing import Any

from jetflow.processes.pool_child import memory_mb, serve
from jetflow.processes.pool_messages import Raised
from jetflow.step import Step
from jetflow.worker.failures import failure_of, frames_of, is_final, pause_of


def main() -> None:
    """Run steps for the worker at the other end of two descriptors, which are the last arguments."""
    descriptor, lifeline = map(int, sys.argv[-2:])
    serve(descriptor, lifeline, described)


def described(error: BaseException, step: Step[..., Any, Any]) -> Raised:
    """Return an error of a step as its worker records it."""
    return Raised(
        failure=failure_of(error, step.name),
        frames=frames_of(error),
        is_final=is_final(error, step.retry),
        pause=pause_of(error),
        memory=memory_mb(),
    )
