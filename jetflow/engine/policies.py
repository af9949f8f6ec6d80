"""Join policies: how many children must succeed before a step goes on, and when it is decided that they will not."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

Verdict = Literal["open", "met", "missed"]

_ROUNDING: Final = 1e-6
"""Added before a fraction of children is rounded down: 0.29 of 100 is 28.999… in binary, and means 29."""


class JoinPolicy(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """When a join is decided, and how. Made by the class methods; `all_succeed` is the default everywhere.

    A policy with ``early`` is decided as soon as it is certain, the others once every child has ended. What is still
    open then is cancelled if ``cancel_rest``. ``seconds`` bounds the join: what has ended by then decides. So many as
    ``tolerated`` may fail, or the share ``fraction`` of all where it is given.
    """

    quorum: int | None = None
    tolerated: int = 0
    fraction: float | None = None
    anything: bool = False
    early: bool = False
    cancel_rest: bool = False
    seconds: float | None = None

    @classmethod
    def all_succeed(cls) -> JoinPolicy:
        """Every child must succeed; all are waited for."""
        return cls()

    @classmethod
    def fail_fast(cls) -> JoinPolicy:
        """Every child must succeed; the first that does not decides, and the rest are cancelled."""
        return cls(early=True, cancel_rest=True)

    @classmethod
    def collect(cls) -> JoinPolicy:
        """All are waited for, however they end."""
        return cls(anything=True)

    @classmethod
    def tolerate(cls, failures: int | None = None, *, fraction: float | None = None) -> JoinPolicy:
        """At most ``failures`` children, or ``fraction`` (0 to 1) of them, may fail; all are waited for.

        Raises:
            ValueError: not exactly one of them is given, or it is out of range.
        """
        if (failures is None) == (fraction is None):
            raise ValueError("JoinPolicy.tolerate takes a number of failures or fraction=, and not both")
        if failures is not None:
            if failures < 0:
                raise ValueError(f"JoinPolicy.tolerate({failures}): not below 0")
            return cls(tolerated=int(failures))
        if fraction is None or not 0 <= fraction <= 1:
            raise ValueError(f"JoinPolicy.tolerate(fraction={fraction}): from 0 to 1")
        return cls(fraction=float(fraction))

    @classmethod
    def first(cls) -> JoinPolicy:
        """The first child that succeeds decides; the rest are cancelled."""
        return cls.of_quorum(1)

    @classmethod
    def of_quorum(cls, successes: int, *, cancel_rest: bool = True) -> JoinPolicy:
        """``successes`` children must succeed; the rest are cancelled when they have, or no longer can.

        Raises:
            ValueError: ``successes`` is below 1.
        """
        if successes < 1:
            raise ValueError(f"JoinPolicy.of_quorum({successes}): at least 1")
        return cls(quorum=successes, early=True, cancel_rest=cancel_rest)

    def within(self, seconds: float) -> JoinPolicy:
        """Return the same policy, bounded: what has ended after ``seconds`` decides, with partial results.

        Raises:
            ValueError: ``seconds`` is not above 0.
        """
        if seconds <= 0:
            raise ValueError(f"JoinPolicy.within({seconds}): above 0")
        return msgspec.structs.replace(self, seconds=seconds)

    def threshold(self, total: int) -> int:
        """Return how many children must have ended before the policy can be met; 0 if it never can."""
        if self.quorum is None:
            return total
        return self.quorum if self.quorum <= total else 0

    def successes(self, total: int) -> int:
        """Return how many of so many children must succeed, at least."""
        return self.quorum if self.quorum is not None else max(0, total - self._allowed(total))

    def verdict(self, total: int, succeeded: int, ended: int) -> Verdict:
        """Return how the join stands."""
        failed = ended - succeeded
        if self.quorum is not None:
            if succeeded >= self.quorum:
                return "met"
            return "missed" if total - failed < self.quorum else "open"
        allowed = self._allowed(total)
        if ended < total:
            return "missed" if self.early and failed > allowed else "open"
        return "met" if failed <= allowed else "missed"

    def missing(self, total: int, succeeded: int, ended: int) -> int:
        """Return how many more children must end before another look can be worth it; 0 if it is decided."""
        return self.next_change(total, succeeded, ended) if self.verdict(total, succeeded, ended) == "open" else 0

    def next_change(self, total: int, succeeded: int, ended: int) -> int:
        """Return how many more children must end, at least, before the verdict can change from open."""
        failed = ended - succeeded
        if self.quorum is not None:
            return max(1, min(self.quorum - succeeded, total - failed - self.quorum + 1))
        if self.early:
            return max(1, min(total - ended, self._allowed(total) - failed + 1))
        return max(1, total - ended)

    def _allowed(self, total: int) -> int:
        if self.anything:
            return total
        if self.fraction is not None:
            return int(self.fraction * total + _ROUNDING)
        return self.tolerated


ALL_SUCCEED = JoinPolicy.all_succeed()
