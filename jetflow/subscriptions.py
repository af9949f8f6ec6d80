"""Which events start runs of a workflow, as it declares them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any, Literal, TypeAlias

from jetflow.engine.events import checked_pattern, is_of, key_token
from jetflow.engine.holding import Hold, Unless, checked_hold
from jetflow.engine.matching import Condition, Matching
from jetflow.errors import InvalidDeclaration, InvalidInput
from jetflow.wire.records import DeclaredEvent

Predicate: TypeAlias = Callable[[Any], bool]


class Subscription:
    """One kind of events that starts runs. As a decorator it takes a function of the payload that decides further.

    Raises:
        InvalidDeclaration: the topic, the key or a condition is none.
    """

    def __init__(
        self,
        workflow: str,
        topic: str,
        *,
        key: str | None,
        if_: Iterable[Condition] | None,
        run_key: Callable[[Any], str] | None = None,
        unless: Unless | None = None,
        within: float | timedelta | None = None,
        if_failed: Literal["rerun"] | None = None,
    ) -> None:
        of = f"workflow {workflow!r}: on({topic!r})"
        self.topic: str = checked_pattern(of, topic)
        self.matching: Matching = Matching(of, if_)
        try:
            self.key: str | None = None if key is None else key_token(key)
        except InvalidInput as error:
            raise InvalidDeclaration(f"{of}: {error}") from None
        try:
            self.hold: Hold | None = None if run_key is None else checked_hold(unless, within, "on")
        except InvalidInput as error:
            raise InvalidDeclaration(f"{of}: {error}") from None
        if (run_key is None) != (unless is None and within is None) or (run_key is not None and not callable(run_key)):
            raise InvalidDeclaration(
                f"{of}: run_key= is a function of the payload; give it, and how long a key stands: unless= or within="
            )
        if if_failed is not None and (if_failed != "rerun" or within is None):
            raise InvalidDeclaration(
                f'{of}: if_failed="rerun" is for a run_key= that stands for its run within= a time, for one that has '
                "failed stands for it no more otherwise"
            )
        self.reruns: bool = if_failed is not None
        self.run_key: Callable[[Any], str] | None = run_key
        self.predicate: Predicate | None = None
        self._of = of

    def __call__(self, predicate: Predicate) -> Predicate:
        """Start runs only for those events for whose payload the function returns true.

        Raises:
            InvalidDeclaration: it is no function, or there is one already.
        """
        if not callable(predicate):
            raise InvalidDeclaration(f"{self._of} is decorated with a function of the payload, not {predicate!r}")
        if self.predicate is not None:
            raise InvalidDeclaration(f"{self._of} has a function already: say on(...) once more for another")
        self.predicate = predicate
        return predicate

    def is_for(self, topic: str, key: str) -> bool:
        """Tell whether it is for events of a topic, and with a key as it stands in subjects."""
        return self.key in (None, key) and is_of(topic, self.topic)

    def takes(self, payload: Any) -> bool:
        """Tell whether an event starts a run.

        Raises:
            Exception: whatever the function raises.
        """
        return self.matching.fits(payload) and (self.predicate is None or bool(self.predicate(payload)))

    @property
    def declared(self) -> DeclaredEvent:
        """What the registry says of it."""
        return DeclaredEvent(
            topic=self.topic,
            key=self.key,
            if_=self.matching.conditions,
            predicate=self.predicate is not None,
        )
