"""How often a step is tried, and how long it waits between."""

from __future__ import annotations

from typing import Any

import msgspec


def _is_error(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseException)


class Retry(msgspec.Struct, frozen=True, kw_only=True):
    """How often a step is tried, and how long it waits between.

    ``attempts`` counts the bodies that have begun and ended without an outcome: a raised error, a timeout, a worker
    that was lost in one that is known to have begun, as each is but that of a first delivery. ``initial`` and
    ``max_delay`` are seconds; the delay before attempt ``n + 1`` is
    ``min(initial * multiplier ** (n - 1), max_delay)``, shortened at random by up to the fraction ``jitter``.

    ``on`` holds the types of errors after which a step is tried again; `RetryAfter` is always one of them. None: all
    but `ChildrenFailed` and `ChildFailed`, for the children that have failed are not run again, and another attempt
    would find them as they are. What no attempt can mend, such as `NonRetryable`, is final in any case.

    Raises:
        ValueError: a field is out of range.
        TypeError: a field is no number, or ``on`` holds something else than types of errors.
    """

    attempts: int = 3
    initial: float = 0.5
    multiplier: float = 2.0
    max_delay: float = 60.0
    jitter: float = 0.1
    on: tuple[type[BaseException], ...] | None = None

    def __post_init__(self) -> None:
        on: Any = self.on  # it comes from the user
        if on is not None and not (type(on) is tuple and all(map(_is_error, self.on or ()))):
            raise TypeError(f"Retry(on={on!r}): a tuple of types of errors, such as (TimeoutError, OSError)")
        for name in ("attempts", "initial", "multiplier", "max_delay", "jitter"):
            if not isinstance(getattr(self, name), int if name == "attempts" else int | float):
                raise TypeError(f"Retry({name}={getattr(self, name)!r}): a number")
        if self.attempts < 1:
            raise ValueError(f"Retry(attempts={self.attempts}): at least 1")
        if self.initial < 0 or self.max_delay < 0:
            raise ValueError("Retry(initial, max_delay): seconds, not below 0")
        if self.multiplier < 1:
            raise ValueError(f"Retry(multiplier={self.multiplier}): at least 1")
        if not 0 <= self.jitter <= 1:
            raise ValueError(f"Retry(jitter={self.jitter}): a fraction from 0 to 1")

    def delay(self, attempt: int, chance: float) -> float | None:
        """Return the seconds to wait after failed attempt ``attempt`` (from 1), or None when none is left.

        ``chance`` is a random number from 0 to 1, drawn by the caller.
        """
        if attempt >= self.attempts:
            return None
        try:
            grown = self.initial * self.multiplier ** (attempt - 1)
        except OverflowError:
            grown = self.max_delay
        return min(grown, self.max_delay) * (1 - self.jitter * chance)
