"""How a bug is planted: a changed piece of a rule's source, or another class in place of the right one."""

from __future__ import annotations
import __future__

import inspect
import textwrap
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Final
from unittest.mock import patch

from jetflow.engine import transitions
from tests.model.model import Rules


def replaced_once(source: str, old: str, new: str, place: str) -> str:
    """Return a source with one piece replaced; ``place`` names it.

    Raises:
        ValueError: the piece is not there, or not once.
    """
    if source.count(old) != 1:
        raise ValueError(f"{place} holds {old!r} {source.count(old)} times: plant it anew")
    return source.replace(old, new)


@dataclass(frozen=True)
class Edit:
    """Replaces ``old`` by ``new`` in the source of one rule of ``jetflow.engine.transitions``."""

    rule: str
    old: str
    new: str

    def apply(self) -> Any:
        """Return the changed rule.

        Raises:
            ValueError: the rule has changed, so that the bug cannot be planted there any more.
        """
        source = textwrap.dedent(inspect.getsource(getattr(transitions, self.rule)))
        code = compile(
            replaced_once(source, self.old, self.new, self.rule),
            f"<planted in {self.rule}>",
            "exec",
            __future__.annotations.compiler_flag,
        )
        scope: dict[str, Any] = {}
        exec(code, transitions.__dict__, scope)
        return scope[self.rule]


RIGHT: Final = Rules()


@dataclass(frozen=True)
class Bug:
    """One planted bug. ``caught_in`` is the configuration that has to catch it."""

    name: str
    caught_in: str
    edits: tuple[Edit, ...] = ()
    replaced: tuple[tuple[object, str, object], ...] = ()
    rules: Rules = RIGHT

    @contextmanager
    def planted(self) -> Iterator[Rules]:
        """Plant the bug for as long as the context lasts."""
        with ExitStack() as stack:
            for edit in self.edits:
                stack.enter_context(patch.object(transitions, edit.rule, edit.apply()))
            for holder, name, value in self.replaced:
                stack.enter_context(patch.object(holder, name, value))
            yield self.rules
