"""Opening what steps depend on, and closing it in the opposite order: on an event loop, or in a thread beside one.

What yields is a context manager: it is told of the error that its block ended with, but cannot make it undone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from types import TracebackType
from typing import Any, TypeAlias

from jetflow.dependencies import Provider, in_order

Values: TypeAlias = dict[Provider, Any]
BlockOn: TypeAlias = Callable[[Any], Any]
"""Runs an awaitable on an event loop, from a thread beside it, and returns its result."""


async def open_here(stack: AsyncExitStack, providers: Iterable[Provider], values: Values, context: Any) -> None:
    """Open providers, and what they need, on this event loop; what is plain code runs in threads."""
    for one in in_order(providers):
        if one not in values:
            try:
                values[one] = await _opened_here(stack, one, _arguments(one, values, context))
            except BaseException as error:
                error.add_note(f"raised by the dependency {one.name!r}, which is opened per {one.per}")
                raise


async def _opened_here(stack: AsyncExitStack, one: Provider, arguments: Mapping[str, Any]) -> Any:
    if not one.yields:
        if one.is_async:
            return await one.function(**arguments)
        return await asyncio.to_thread(one.function, **arguments)
    if one.is_async:
        return await stack.enter_async_context(_Here(_manager(one, arguments)))
    return await stack.enter_async_context(_Here(InThread(_manager(one, arguments))))


def open_beside(
    stack: ExitStack, providers: Iterable[Provider], values: Values, context: Any, block_on: BlockOn
) -> None:
    """Open providers, and what they need, in this thread; what is asynchronous runs on the event loop beside it."""
    for one in in_order(providers):
        if one not in values:
            try:
                values[one] = _opened_beside(stack, one, _arguments(one, values, context), block_on)
            except BaseException as error:
                error.add_note(f"raised by the dependency {one.name!r}, which is opened per {one.per}")
                raise


def _opened_beside(stack: ExitStack, one: Provider, arguments: Mapping[str, Any], block_on: BlockOn) -> Any:
    if not one.yields:
        value = one.function(**arguments)
        return block_on(value) if one.is_async else value
    manager = _manager(one, arguments)
    return stack.enter_context(_Beside(manager, block_on if one.is_async else None))


def _manager(one: Provider, arguments: Mapping[str, Any]) -> Any:
    if one.makes_context:
        return one.function(**arguments)
    return (asynccontextmanager if one.is_async else contextmanager)(one.function)(**arguments)


def _arguments(one: Provider, values: Values, context: Any) -> dict[str, Any]:
    arguments = {name: values[needed] for name, needed in one.needs.items()}
    if one.context_name is not None:
        arguments[one.context_name] = context
    return arguments


class InThread:
    """A context manager of plain code, entered and left in threads."""

    def __init__(self, manager: Any) -> None:
        self._manager = manager

    async def __aenter__(self) -> Any:
        return await asyncio.to_thread(self._manager.__enter__)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Any:
        return await asyncio.to_thread(self._manager.__exit__, kind, error, trace)


class _Here:
    """A context manager that is told of an error, and cannot make it undone: the step has no output without it."""

    def __init__(self, manager: Any) -> None:
        self._manager = manager

    async def __aenter__(self) -> Any:
        return await self._manager.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._manager.__aexit__(kind, error, trace)


class _Beside:
    """The same for a thread; an asynchronous one is entered and left by ``block_on``."""

    def __init__(self, manager: Any, block_on: BlockOn | None) -> None:
        self._manager = manager
        self._block_on = block_on

    def __enter__(self) -> Any:
        if self._block_on is None:
            return self._manager.__enter__()
        return self._block_on(self._manager.__aenter__())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._block_on is None:
            self._manager.__exit__(kind, error, trace)
        else:
            self._block_on(self._manager.__aexit__(kind, error, trace))
