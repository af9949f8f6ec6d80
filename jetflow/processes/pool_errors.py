"""Errors that cross between a worker and a process of its pool.

To the process go those that its questions lead to, as what they are: jetflow's own and Python's, with what they hold.
To the worker goes a step's error as it is recorded, since its class may exist in that process only.
"""

from __future__ import annotations

import builtins
import sys
from typing import Any, Final

import msgspec

from jetflow.engine.tasks import Failure

_OURS: Final = "jetflow."
_PLAIN: Final = (str, int, float, bool, type(None))


class Crossed(msgspec.Struct, frozen=True):
    """An error on its way to a process: its class, its message, and those of its attributes that JSON could hold."""

    module: str
    name: str
    message: str
    attributes: dict[str, Any]


class RaisedThere(Exception):
    """Stands in the worker for an error that a step has raised in a process.

    ``frames`` are the user's own, as a line of the log has them. ``is_final`` says that no other attempt is made, and
    ``pause``, in seconds, after how long one is, if the error has named it.
    """

    def __init__(self, failure: Failure, *, frames: str, is_final: bool, pause: float | None) -> None:
        super().__init__(f"{failure.type}: {failure.message}")
        self.failure = failure
        self.frames = frames
        self.is_final = is_final
        self.pause = pause


def crossed(error: BaseException) -> Crossed:
    """Return an error as it crosses: as the nearest of its classes that the other side has."""
    kind = next(one for one in type(error).__mro__ if _is_known(one.__module__))
    attributes = {name: value for name, value in vars(error).items() if _is_plain(value)}
    return Crossed(kind.__module__, kind.__qualname__, str(error), attributes)


def raised(error: Crossed) -> BaseException:
    """Return the error that has crossed."""
    place = sys.modules.get(error.module) if _is_known(error.module) else None
    kind: Any = getattr(place, error.name, None)
    if not (isinstance(kind, type) and issubclass(kind, BaseException)):
        return RuntimeError(f"{error.name}: {error.message}")
    made = kind.__new__(kind, error.message)  # its own __init__ would write the message anew
    made.args = (error.message,)
    vars(made).update(error.attributes)
    return made


def _is_known(module: str) -> bool:
    return module == builtins.__name__ or module.startswith(_OURS)


def _is_plain(value: Any) -> bool:
    items: list[Any] = [*value] if isinstance(value, tuple | list) else [value]
    return all(isinstance(one, _PLAIN) for one in items)
