"""A process of a worker's pool: it imports the workflows once, and runs their steps one after the other.

Its main thread runs the steps, so that they may use signals and threads as in a program of their own. It ends when it
is told to, and at once when its worker ends.
"""

from __future__ import annotations

import contextvars
import faulthandler
import inspect
import os
import signal
import sys
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from io import TextIOWrapper
from types import FrameType
from typing import Any, Final, TypeAlias

from jetflow import forks, hooks, logs
from jetflow.context import Context
from jetflow.dependencies import in_order
from jetflow.opening import BlockOn, Values, open_beside
from jetflow.processes import pool_logging
from jetflow.processes.pool_host import PoolHost
from jetflow.processes.pool_link import Link
from jetflow.processes.pool_memory import PAGES
from jetflow.processes.pool_messages import Began, Call, Raised, Ready, Returned
from jetflow.processes.pool_places import found
from jetflow.step import Step

Describe: TypeAlias = Callable[[BaseException, Step[..., Any, Any]], Raised]
"""Returns an error of a step as its worker records it."""

_MB: Final = 1024 * 1024


def serve(descriptor: int, lifeline: int, describe: Describe) -> None:
    """Run steps until the worker says that this is the end."""
    signal.signal(signal.SIGINT, _ignored)  # it is the worker's; what a step executes has the default again
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    if sys.stderr is not None:  # pyright: ignore[reportUnnecessaryComparison] - it is None where it is closed
        faulthandler.enable()
    out: Any = sys.stdout
    if isinstance(out, TextIOWrapper):
        out.reconfigure(line_buffering=True)  # what a step has printed is not lost when it is killed
    link = Link(descriptor, lifeline)
    sys.argv[:] = link.prepare.argv
    logs.install()
    log = pool_logging.begin(link.prepare.levels, link.send)
    try:
        steps = found(link.prepare.places, link.prepare.program)
    except BaseException as error:  # it is the user's code: whatever it raises, the worker is told
        link.send(Ready(f"{type(error).__name__}: {error}"))
        raise
    link.send(Ready())
    with ExitStack() as stack:
        shared = Shared(stack, link.block_on)
        while (call := link.calls.get()) is not None:
            log.call = call
            logs.current.set(call.told)
            link.send(Began())
            link.send(_run(link, shared, call, *steps[call.workflow, call.step], describe))
            log.call = None
            logs.current.set(None)


class Shared:
    """What the steps of this process share: opened when the first needs it, closed with the process."""

    def __init__(self, stack: ExitStack, block_on: BlockOn) -> None:
        self._stack = stack
        self._block_on = block_on
        self._values: Values = {}

    def call(self, step: Step[..., Any, Any], arguments: dict[str, Any], context: Context | None) -> Any:
        """Call a step with what it depends on."""
        providers = in_order(step.dependencies.values())
        kept = [one for one in providers if one.per == "worker"]
        open_beside(self._stack, kept, self._values, None, self._block_on)
        values = dict(self._values)
        with ExitStack() as stack:
            open_beside(stack, providers, values, context, self._block_on)
            given = {name: values[one] for name, one in step.dependencies.items()}
            return step.function(**arguments, **given)


def _run(
    link: Link, shared: Shared, call: Call, workflow: Any, step: Step[..., Any, Any], describe: Describe
) -> Returned | Raised:
    host = None if step.context_name is None else PoolHost(link, call)
    born = forks.generation()
    try:
        context = None if host is None else Context(host)
        arguments = step.arguments(step.input.decode(call.input), context)
        with nullcontext() if hooks.tracer is None or call.trace is None else hooks.tracer.within(call.trace):
            result = contextvars.copy_context().run(shared.call, step, arguments, context)
            if inspect.isawaitable(result):
                result = link.block_on(result)
        codec = workflow.output if call.is_the_runs else step.output
        return Returned(codec.encode_output(result), memory_mb())
    except BaseException as error:  # whatever it is, it is how the step has ended
        return describe(error, step)
    finally:
        if forks.is_child(born):  # the function has forked, and this is the child's return from it
            forks.end_child()
        if host is not None:
            host.close()


def _ignored(number: int, frame: FrameType | None) -> None:
    pass


def memory_mb() -> float:
    """Return the memory that this process holds, in MB; 0 where that cannot be read."""
    try:
        resident = int(PAGES.read_text().split()[1])
    except OSError:  # no Linux
        return 0.0
    return resident * os.sysconf("SC_PAGE_SIZE") / _MB
