"""Who may look, and who may do what. Without any word: everybody who reaches it may look, and nobody may act."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, Literal, TypeAlias, get_args

import msgspec
from starlette.requests import Request

Action: TypeAlias = Literal["trigger", "cancel", "delete", "rerun", "pause", "bulk", "stack"]

ACTIONS: Final[frozenset[Action]] = frozenset(get_args(Action))
"""All that may be done beside looking. ``stack`` shows where code stands, with names of files and functions."""


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """What one user may do. Without ``payloads`` inputs, outputs and recorded values are not shown.

    Who may do something in bulk needs ``bulk`` beside the action itself. ``location`` is for who has to log in first.
    """

    user: str = ""
    actions: frozenset[Action] = frozenset()
    payloads: bool = True
    location: str | None = None

    def __post_init__(self) -> None:
        """Refuse what is no action."""
        unknown = sorted(set(self.actions) - ACTIONS)
        if unknown:
            raise ValueError(f"{', '.join(map(repr, unknown))} is no action: there are {', '.join(sorted(ACTIONS))}")

    @classmethod
    def full(cls, user: str = "", *, payloads: bool = True) -> Access:
        """Return the right to do everything."""
        return cls(user=user, actions=ACTIONS, payloads=payloads)

    @classmethod
    def redirect(cls, location: str) -> Access:
        """Return what sends a browser elsewhere, as to log in."""
        return cls(location=location)

    def may(self, action: Action) -> bool:
        """Tell whether an action is allowed."""
        return action in self.actions


Decide: TypeAlias = Callable[[Request], Awaitable[Access | None]]
"""Says what the sender of a request may do; None for nothing."""


async def access_to(given: Access | Decide, request: Request) -> Access | None:
    """Return what the sender of a request may do; None where that is nothing."""
    return given if isinstance(given, Access) else await given(request)
