"""What can be a step: how a callable is called, what it takes, and whether it is awaited.

Functions, methods, partials, callable objects and decorated functions are all read here, when they are declared. What
cannot be called with ``(input)`` or ``(input, ctx)`` is refused then, in one sentence, and not when a run comes.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePath
from types import CodeType, FrameType
from typing import Any, Final, get_args, get_type_hints

from jetflow.dependencies import CONTEXT_MARK, Provider, asked_for, provider_of
from jetflow.errors import InvalidDeclaration
from jetflow.kinds import element_of, shown, without_errors
from jetflow.wire.codec import Codec

DOC_LIMIT: Final = 500
"""Characters of a step's documentation that its declaration holds."""

_GENERATOR: Final = "is a generator: a step returns its output, so collect what it yields into a list"


class Signature:
    """Which parameters of a callable are the input, the context and dependencies, their types, and how it is called.

    ``wraps_async`` says that it is no coroutine function itself, but may return what one has given: a decorator that
    was written for plain functions.

    Raises:
        InvalidDeclaration: it cannot be a step.
    """

    def __init__(self, function: Callable[..., Any], where: str) -> None:
        self._where = where
        function = function.__func__ if isinstance(function, staticmethod) else function
        called = called_by(function)
        _check_kind(function, called, where)
        self._hints = _resolved_hints(function if hasattr(function, "__wrapped__") else called, where)
        self.is_async: bool = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(called)
        wrapped = map(inspect.unwrap, (function, called))
        self.wraps_async: bool = not self.is_async and any(map(inspect.iscoroutinefunction, wrapped))
        self.input_name: str | None = None
        self.context_name: str | None = None
        self._input_hint: str | None = None
        self.dependencies: dict[str, Provider] = {}
        self._read(function, _bound_by(function))

    def _read(self, function: Callable[..., Any], bound: Mapping[str, Any]) -> None:
        for name, parameter in _parameters(function, self._where):
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
                raise InvalidDeclaration(
                    f"{self._where}: parameter {parameter} must be a plain one: (input) or (input, ctx); "
                    "is a functools.wraps missing in a decorator?"
                )
            if parameter.name in bound:
                continue
            asked = asked_for(self._hints.get(parameter.name))
            if asked is not None:
                self.dependencies[name] = provider_of(asked, self._where, _resolved_hints)
            elif self._is_context(parameter):
                self.context_name = name
            elif self.input_name is None:
                self.input_name, self._input_hint = name, parameter.name
            elif parameter.default is parameter.empty:
                raise InvalidDeclaration(
                    f"{self._where} takes more than (input, ctx): what would {parameter.name!r} be? "
                    "What steps share is Annotated[..., Depends(...)]"
                )

    def _is_context(self, parameter: inspect.Parameter) -> bool:
        hint = self._hints.get(parameter.name)
        if hint is None:
            return parameter.name == "ctx"
        return any(hasattr(one, CONTEXT_MARK) for one in (hint, *get_args(hint)))

    @property
    def asks_for_json(self) -> bool:
        """Whether the input is said to be `Any`: it is given as plain JSON then."""
        return self._hints.get(self._input_hint or "") is Any

    def input(self, where: str) -> Codec[Any]:
        """Return what reads and writes the input."""
        return Codec(self._hints.get(self._input_hint or "", Any), where)

    def output(self, where: str) -> Codec[Any]:
        """Return what reads and writes the output."""
        return Codec(self._hints.get("return", Any), where)

    def batch_input(self, where: str) -> Codec[Any]:
        """Return what reads and writes one of the inputs of a function that takes a list of them.

        Raises:
            InvalidDeclaration: it takes something else, or one context for all.
        """
        hint = self._hints.get(self._input_hint or "", Any)
        kind = element_of(hint)
        if self.input_name is None or kind is None:
            taken = "no input" if self.input_name is None else shown(hint)
            raise InvalidDeclaration(
                f"{self._where} takes {taken}, and one with batch= is called with a list of inputs: write "
                f"inputs: list[{'...' if self.input_name is None else shown(hint)}]"
            )
        context = self._hints.get(self.context_name or "", Any)
        if element_of(context) is None:
            raise InvalidDeclaration(
                f"{self._where} takes one context, and one with batch= handles many runs: write ctxs: list[Context], "
                "which has one for each input"
            )
        return Codec(kind, where)

    def batch_output(self, where: str, *, broadcast: bool) -> Codec[Any]:
        """Return what reads and writes one of the outputs of a function that returns a list of them.

        Raises:
            InvalidDeclaration: it returns something else.
        """
        hint = self._hints.get("return", Any)
        kind = hint if broadcast else element_of(hint)
        if kind is None:
            raise InvalidDeclaration(
                f"{self._where} returns {shown(hint)}, and one with batch= returns a list with one output for each "
                "input (or say Batch(broadcast=True): one output for all)"
            )
        return Codec(without_errors(kind), where)


def _parameters(function: Any, where: str) -> list[tuple[str, inspect.Parameter]]:
    """Return by which names a callable is handed its arguments, and what is known of each.

    A decorator tells the signature of what it decorates (``functools.wraps``), and may take its own.
    """
    try:
        known = list(inspect.signature(function).parameters.values())
        own = list(inspect.signature(function, follow_wrapped=False).parameters.values())
    except (TypeError, ValueError) as error:
        raise InvalidDeclaration(f"{where}: its parameters cannot be read: {error}") from error
    names = {parameter.name: parameter for parameter in known}
    if not any(one.kind in (one.VAR_POSITIONAL, one.VAR_KEYWORD) for one in own):
        return [(one.name, names.get(one.name, known[at] if at < len(known) else one)) for at, one in enumerate(own)]
    if not any(one.kind is one.VAR_KEYWORD for one in own):
        missing = next((name for name in names if name not in {one.name for one in own}), None)
        if missing is not None:
            raise InvalidDeclaration(
                f"{where}: a decorator of it takes no {missing!r}: let it take **kwargs, and pass them on"
            )
    return [(parameter.name, parameter) for parameter in known]


def called_by(function: Any) -> Any:
    """Return the function that is called in the end by a partial, a method or an object with ``__call__``."""
    while isinstance(function, functools.partial | staticmethod):
        function = function.func if isinstance(function, functools.partial) else function.__wrapped__
    if inspect.isroutine(function) or isinstance(function, type):
        return function
    return getattr(function, "__call__", function)  # noqa: B004 - the method itself is wanted, not whether there is one


def named_like(function: Any, where: str) -> str:
    """Return the name that a step takes from its function.

    Raises:
        InvalidDeclaration: it has none.
    """
    name = getattr(function, "__name__", None)
    if not isinstance(name, str):
        raise InvalidDeclaration(f"{where}: {function!r} has no name of its own: give the step one with name=")
    return name


def is_local(function: Any) -> bool:
    """Tell whether a callable was declared inside of a function, or in an expression: nobody can import it."""
    return any(part in ("<locals>", "<lambda>") for part in getattr(called_by(function), "__qualname__", "").split("."))


def first_paragraph(function: Any) -> str:
    """Return the first paragraph of a callable's documentation, cut."""
    doc = called_by(function).__doc__ or ""
    paragraph = " ".join(inspect.cleandoc(doc).partition("\n\n")[0].split())
    return paragraph if len(paragraph) <= DOC_LIMIT else f"{paragraph[: DOC_LIMIT - 1]}…"


def source_of(function: Any) -> str:
    """Return where a callable is declared, without the path of the machine."""
    called = called_by(function)
    if called.__module__ != "__main__":
        return f"{called.__module__}:{called.__qualname__}"
    code: CodeType | None = getattr(inspect.unwrap(called), "__code__", None)
    return "" if code is None else f"{PurePath(code.co_filename).name}:{code.co_firstlineno}"


def _check_kind(function: Any, called: Any, where: str) -> None:
    if not callable(function) or isinstance(function, type):
        raise InvalidDeclaration(f"{where}: {function!r} is not a function")
    if inspect.isgeneratorfunction(called) or inspect.isasyncgenfunction(called):
        raise InvalidDeclaration(f"{where} {_GENERATOR}")
    if inspect.isfunction(function) and next(iter(inspect.signature(function).parameters), "") in ("self", "cls"):
        raise InvalidDeclaration(
            f"{where} is a method without its object: declare a function, or the method of an object, "
            f"as in flow.step(thing.{function.__name__})"
        )


def _bound_by(function: Any) -> dict[str, Any]:
    """Return the keyword arguments that partials have bound."""
    bound: dict[str, Any] = {}
    while isinstance(function, functools.partial):
        bound = {**function.keywords, **bound}
        function = function.func
    return bound


def _resolved_hints(called: Any, where: str) -> Mapping[str, Any]:
    """Return the annotations, with names looked up where the function was declared, too."""
    unknown: NameError | None = None
    for names in _scopes(inspect.currentframe(), called):
        try:
            return get_type_hints(called, localns=names, include_extras=True)
        except NameError as error:
            unknown = error
        except Exception as error:  # an annotation is the user's code: it may raise whatever it likes
            raise InvalidDeclaration(f"{where}: an annotation cannot be resolved: {error}") from error
    raise InvalidDeclaration(
        f"{where}: an annotation cannot be resolved: {unknown} (is it imported for type checkers only?)"
    ) from unknown


def _scopes(frame: FrameType | None, called: Any) -> Iterator[Mapping[str, Any]]:
    """Yield where names may be found besides the module of a function: around it, and around its decorator."""
    yield {}
    while frame is not None:
        yield frame.f_locals
        frame = frame.f_back
    yield getattr(called, "__globals__", {})
