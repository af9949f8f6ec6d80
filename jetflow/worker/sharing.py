"""What the steps of one worker share: its lifespan, and the dependencies that are opened per worker.

All of it is opened and closed by one task, as context managers with cancel scopes want it, whoever starts and stops the
worker. In steps that run in processes each process has its own: see `jetflow.processes.pool_child`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, AsyncExitStack, ExitStack
from typing import Any, TypeAlias

from jetflow.context import Context
from jetflow.dependencies import Provider
from jetflow.errors import InvalidDeclaration
from jetflow.opening import InThread, Values, open_beside, open_here
from jetflow.workflow import Step, Workflow

Lifespan: TypeAlias = Callable[[], AbstractAsyncContextManager[object] | AbstractContextManager[object]]
"""What is open while a worker runs: a function of a context manager, of either kind."""


class Sharing:
    """Opens what a worker shares, and gives it to its steps. `start` and `stop` it; both are safe to call twice."""

    def __init__(self, workflows: Iterable[Workflow[Any, Any]], lifespan: Lifespan | None) -> None:
        self._lifespan = lifespan
        self._providers = list(dict.fromkeys(_per_worker(workflows)))
        self._values: Values = {}
        self._left = asyncio.Event()
        self._holding: asyncio.Task[None] | None = None
        self._is_open = False

    async def start(self) -> None:
        """Open everything.

        Raises:
            Whatever the lifespan or a provider raises. What was open is closed then.
        """
        if self._holding is not None or (self._lifespan is None and not self._providers):
            return
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        self._left.clear()
        self._holding = loop.create_task(self._hold(ready))
        await asyncio.wait({ready, self._holding}, return_when=asyncio.FIRST_COMPLETED)
        if not ready.done():
            holding, self._holding = self._holding, None
            await holding

    async def _hold(self, ready: asyncio.Future[None]) -> None:
        async with AsyncExitStack() as stack:
            if self._lifespan is not None:
                await stack.enter_async_context(_asynchronous(self._lifespan()))
            await open_here(stack, self._providers, self._values, None)
            self._is_open = True
            ready.set_result(None)
            await self._left.wait()

    async def stop(self) -> None:
        """Close everything, in the opposite order.

        Raises:
            Whatever that raises.
        """
        holding, self._holding = self._holding, None
        if holding is None:
            return
        self._left.set()
        if not self._is_open:  # whoever starts it has lost patience
            holding.cancel()
        try:
            await asyncio.wait({holding})
            if not holding.cancelled():
                holding.result()
        finally:
            self._is_open = False
            self._values.clear()

    # --- for steps

    async def call(self, step: Step[..., Any, Any], arguments: dict[str, Any], context: Context | None) -> Any:
        """Call an asynchronous step with what it depends on."""
        values = dict(self._values)
        async with AsyncExitStack() as stack:
            await open_here(stack, step.dependencies.values(), values, context)
            return await step.function(**arguments, **_given(step, values))

    def called_beside(
        self, step: Step[..., Any, Any], arguments: dict[str, Any], context: Context | None
    ) -> Callable[[], Any]:
        """Return what calls a plain step in a thread, with what it depends on, all of it in that thread."""
        loop, values = asyncio.get_running_loop(), dict(self._values)

        def block_on(awaitable: Awaitable[Any]) -> Any:
            return asyncio.run_coroutine_threadsafe(_outcome(awaitable), loop).result()

        def call() -> Any:
            with ExitStack() as stack:
                open_beside(stack, step.dependencies.values(), values, context, block_on)
                return step.function(**arguments, **_given(step, values))

        return call


async def _outcome(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


def _given(step: Step[..., Any, Any], values: Values) -> dict[str, Any]:
    return {name: values[provider] for name, provider in step.dependencies.items()}


def _per_worker(workflows: Iterable[Workflow[Any, Any]]) -> Iterable[Provider]:
    """Yield the providers that are opened here, per worker, with what they need among those of attempts."""
    for workflow in workflows:
        for step in workflow.all_steps:
            if not step.in_process:
                yield from _of_worker(step.dependencies.values())


def _of_worker(providers: Iterable[Provider]) -> Iterable[Provider]:
    for one in providers:
        if one.per == "worker":
            yield one
        else:
            yield from _of_worker(one.needs.values())


def _asynchronous(opened: Any) -> AbstractAsyncContextManager[object]:
    """Return a context manager of either kind as an asynchronous one.

    Raises:
        InvalidDeclaration: it is none.
    """
    if hasattr(opened, "__aenter__"):
        return opened
    if hasattr(opened, "__enter__"):
        return InThread(opened)  # pyright: ignore[reportReturnType] - it has both methods
    raise InvalidDeclaration(
        f"lifespan= is a function that returns a context manager, and this one returns {type(opened).__name__}: "
        "is an @asynccontextmanager missing?"
    )
