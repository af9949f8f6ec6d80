"""Generators as values: a running delivery is its arguments and the results that it has had so far.

A generator cannot be copied, so a delivery in a state is a number that stands for ``(task, owner, attempt, results)``.
Sending it one more result replays the generator from its start, once for each distinct history, and is remembered.
Histories after which the generator stands alike (`suspended`) have the same number.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Final, NamedTuple, TypeAlias

from tests.model.checks import Violation
from tests.model.shell import Delivery, Verdict
from tests.model.suspended import freeze, standpoint

Token: TypeAlias = Hashable
"""A result as it stands in a history: small and hashable; the broker decodes it for the generator."""


ENDLESS: Final = 60
"""More effects than any delivery of a small configuration has to perform."""


class Running(NamedTuple):
    """A delivery at its next effect. ``read`` is what the first half of a split look has found."""

    task: int
    owner: int
    attempt: int
    results: tuple[Token, ...] = ()
    read: int | None = None


class Procedures:
    """The deliveries of one exploration, by number."""

    def __init__(
        self,
        start: Callable[[int, int, int], Delivery],
        decode: Callable[[object, Token], object],
        *,
        merge: bool = True,
    ) -> None:
        self._merge = merge
        self._start = start
        self._decode = decode
        self._numbers: dict[Running, int] = {}
        self._alike: dict[Hashable, int] = {}
        self._after: dict[tuple[int, Token], int] = {}
        self.running: list[Running] = []
        self.effects: list[object | None] = []
        self.verdicts: list[Verdict | None] = []

    def begin(self, task: int, owner: int, attempt: int) -> int:
        """Return a delivery that has done nothing yet."""
        return self._number(Running(task, owner, attempt))

    def after(self, number: int, token: Token) -> int:
        """Return a delivery after its effect has had this result."""
        found = self._after.get((number, token))
        if found is None:
            before = self.running[number]
            found = self._number(before._replace(results=(*before.results, token), read=None))
            self._after[number, token] = found
        return found

    def between(self, number: int, read: int) -> int:
        """Return a delivery that has done the first half of its look."""
        return self._number(self.running[number]._replace(read=read))

    def _number(self, running: Running) -> int:
        found = self._numbers.get(running)
        if found is None:
            found = self._numbers[running] = self._numbered(running)
        return found

    def _numbered(self, running: Running) -> int:
        if len(running.results) > ENDLESS:
            raise Violation(f"endless: a delivery has performed {ENDLESS} effects and goes on")
        delivery = self._start(running.task, running.owner, running.attempt)
        effect: object | None = None
        verdict: Verdict | None = None
        try:
            effect = next(delivery)
            for token in running.results:
                effect = delivery.send(self._decode(effect, token))
        except StopIteration as stop:
            effect, verdict = None, stop.value
        except Violation:
            raise
        except Exception as error:
            raise Violation(f"broken: a rule raises {error!r}") from error
        where = verdict or (self._merge and (freeze(effect), standpoint(delivery))) or running
        alike = (running.task, running.attempt, running.read, where)
        found = self._alike.get(alike)
        if found is None:
            found = self._alike[alike] = len(self.running)
            self.running.append(running)
            self.effects.append(effect)
            self.verdicts.append(verdict)
        return found
