"""What was done by whom: one line in the log for each action, whether it went well or not."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeAlias

import msgspec

_log = logging.getLogger("jetflow.dashboard")


class Acted(msgspec.Struct, frozen=True, kw_only=True):
    """One action: by whom, what, on what, and how it ended: ``done``, or the kind of the problem.

    ``count`` is how many runs it was for, where that is known. Inputs are not among the ``subject``.
    """

    user: str
    action: str
    subject: dict[str, Any]
    outcome: str
    count: int | None = None


OnAction: TypeAlias = Callable[[Acted], None]


def note(acted: Acted, on_action: OnAction | None) -> None:
    """Log an action, and tell whoever wants to know."""
    _log.info("%s", msgspec.json.encode(acted).decode())
    if on_action is not None:
        on_action(acted)
