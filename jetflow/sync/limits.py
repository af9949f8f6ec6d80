"""Limits for programs without an event loop. Every call is one of `jetflow.limiting.Limits`."""

from __future__ import annotations

import builtins

import jetflow.client
from jetflow.runs.rate_rows import RateRow
from jetflow.runs.standing import LimitRow, StandingRow
from jetflow.sync.portal import Portal


class Limits:
    """What may be done with the limits of a namespace; see `jetflow.limiting.Limits`."""

    def __init__(self, portal: Portal[jetflow.client.Client]) -> None:
        self._portal = portal

    def list(self) -> builtins.list[LimitRow]:
        """Return all limits, by name, with their keys."""
        return self._portal.call(lambda here: here.limits.list())

    def get(self, name: str) -> LimitRow:
        """Return one limit.

        Raises:
            UnknownLimit: nobody has declared one of this name.
        """
        return self._portal.call(lambda here: here.limits.get(name))

    def rates(self) -> builtins.list[RateRow]:
        """Return all rate limits, by name, with their keys of which any was taken of late."""
        return self._portal.call(lambda here: here.limits.rates())

    def standing(self, name: str, key: str | None = None) -> builtins.list[StandingRow]:
        """Return the runs of a key that are admitted or wait, in their order.

        Raises:
            UnknownLimit: nobody has declared one of this name.
        """
        return self._portal.call(lambda here: here.limits.standing(name, key))

    def set(self, name: str, max: int, *, key: str | None = None) -> LimitRow:
        """Admit at most so many runs of a key at once, of all keys or of one.

        Raises:
            UnknownLimit: nobody has declared one of this name.
            InvalidInput: it is no whole number above 0.
        """
        return self._portal.call(lambda here: here.limits.set(name, max, key=key))

    def reset(self, name: str, *, key: str | None = None) -> LimitRow:
        """Have what is declared count again, for all keys or for one.

        Raises:
            UnknownLimit: nobody has declared one of this name.
        """
        return self._portal.call(lambda here: here.limits.reset(name, key=key))
