"""What steps share, and how they say so: ``Annotated[Pool, Depends(pool)]``. Read at declaration, like everything else.

A provider is a function that returns the thing, or a generator that yields it once and closes it behind that. It may
take what other providers give. One *per worker* is opened before the worker pulls, and closed after its last task; one
*per attempt* is opened for each call of a step.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, Literal, TypeAlias, get_args, get_origin

from jetflow.errors import InvalidDeclaration

CONTEXT_MARK: Final = "__jetflow_context__"
"""The attribute by which a step's signature knows the context's class."""

Per: TypeAlias = Literal["worker", "attempt"]
HintsOf: TypeAlias = Callable[[Any, str], Mapping[str, Any]]


class Depends:
    """Says who gives a parameter of a step, or of another provider: ``Annotated[Pool, Depends(pool)]``.

    ``provider`` is a ``def`` or an ``async def``, a generator of either kind that yields once, or what
    ``contextlib.contextmanager`` and ``asynccontextmanager`` make of one. A plain ``def`` is called in a thread. It is
    opened once ``per`` worker (for steps with ``runs_in="process"`` once per process), or per attempt; then it may
    take the step's ``ctx``, is told of the step's error where it yields, and fails the attempt if it raises.

    Raises:
        InvalidDeclaration: ``provider`` is no function, or ``per`` is neither "worker" nor "attempt".
    """

    __slots__ = ("per", "provider")

    def __init__(self, provider: Callable[..., Any], *, per: Per = "worker") -> None:
        if not callable(provider):
            raise InvalidDeclaration(f"Depends({provider!r}): it takes the function that gives it, and not its value")
        if per not in ("worker", "attempt"):
            raise InvalidDeclaration(f'Depends(..., per={per!r}): there is per="worker" and per="attempt"')
        self.provider: Callable[..., Any] = provider
        self.per: Per = per

    def __repr__(self) -> str:
        return f"Depends({_name(self.provider)}, per={self.per!r})"


class Provider:
    """A provider as it is opened: which ``kind`` of function it is, and what it ``needs``, by the names of parameters.

    Two are equal if they are the same function per the same thing, and are opened once for both.
    """

    def __init__(self, asked: Depends, needs: Mapping[str, Provider], context_name: str | None) -> None:
        self.function: Callable[..., Any] = asked.provider
        self.per: Per = asked.per
        self.name: str = _name(asked.provider)
        self.needs: Mapping[str, Provider] = needs
        self.context_name: str | None = context_name
        written = inspect.unwrap(asked.provider)
        self.makes_context: bool = written is not asked.provider and _yields(written)
        self.yields: bool = _yields(written)
        self.is_async: bool = inspect.isasyncgenfunction(written) or inspect.iscoroutinefunction(written)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Provider) and (self.function, self.per) == (other.function, other.per)

    def __hash__(self) -> int:
        return hash((self.function, self.per))

    def __repr__(self) -> str:
        return f"<Provider {self.name} per {self.per}>"


def asked_for(hint: Any) -> Depends | None:
    """Return what an annotation asks for, if it does."""
    if not hasattr(hint, "__metadata__"):
        return None
    return next((one for one in hint.__metadata__ if isinstance(one, Depends)), None)


def provider_of(asked: Depends, where: str, hints_of: HintsOf, trail: tuple[Depends, ...] = ()) -> Provider:
    """Return a provider with all that it needs. ``hints_of`` reads the annotations of a function.

    Raises:
        InvalidDeclaration: it takes what nobody gives, itself, or, per worker, what is given per attempt.
    """
    place = f"{where}: provider {_name(asked.provider)!r}"
    if any(asked.provider is one.provider for one in trail):
        raise InvalidDeclaration(f"{place} needs itself, by way of {', '.join(_name(one.provider) for one in trail)}")
    needs: dict[str, Provider] = {}
    context_name: str | None = None
    for name, hint, parameter in _parameters(asked.provider, place, hints_of):
        further = asked_for(hint)
        if further is not None:
            needs[name] = provider_of(further, where, hints_of, (*trail, asked))
            if asked.per == "worker" and needs[name].per == "attempt":
                raise InvalidDeclaration(
                    f'{place} is opened per worker, and {name!r} per attempt: give it per="attempt" as well'
                )
        elif _is_context(name, hint):
            if asked.per == "worker":
                raise InvalidDeclaration(f'{place} takes {name!r}, and a worker has no context: give it per="attempt"')
            context_name = name
        elif parameter.default is parameter.empty and parameter.kind not in _VARIABLE:
            raise InvalidDeclaration(
                f"{place} takes {name!r}: give it a default, or say where it comes from: Annotated[..., Depends(...)]"
            )
    return Provider(asked, needs, context_name)


def in_order(providers: Iterable[Provider]) -> list[Provider]:
    """Return providers with all that they need, each once, behind what it needs."""
    ordered: dict[Provider, None] = {}

    def add(one: Provider) -> None:
        for needed in one.needs.values():
            add(needed)
        ordered.setdefault(one)

    for one in providers:
        add(one)
    return list(ordered)


_VARIABLE: Final = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def _parameters(
    provider: Callable[..., Any], place: str, hints_of: HintsOf
) -> Iterator[tuple[str, Any, inspect.Parameter]]:
    written: Any = provider.__init__ if isinstance(provider, type) else inspect.unwrap(provider)
    try:
        parameters = inspect.signature(provider).parameters
    except (TypeError, ValueError) as error:  # one that is built in
        raise InvalidDeclaration(f"{place}: its parameters cannot be read: {error}") from error
    hints: Mapping[str, Any] = hints_of(written, place) if parameters else {}
    for name, parameter in parameters.items():
        yield name, hints.get(name), parameter


def _is_context(name: str, hint: Any) -> bool:
    if hint is None:
        return name == "ctx"
    return any(hasattr(one, CONTEXT_MARK) for one in (hint, get_origin(hint), *get_args(hint)))


def _yields(function: Any) -> bool:
    return inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)


def _name(function: Any) -> str:
    return getattr(function, "__qualname__", None) or repr(function)
