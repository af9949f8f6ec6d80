"""What a step may wait for: events, signals to its run, times, and alternatives of these."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any, Final, Generic, TypeVar, overload

from jetflow.engine.awaiting import Awaited, Group, Taken
from jetflow.engine.events import checked_topic, key_token
from jetflow.engine.matching import Condition as Comparison
from jetflow.engine.matching import Matching
from jetflow.engine.sleeping import checked_sleep, timestamp_of
from jetflow.errors import InvalidDeclaration, InvalidInput
from jetflow.wire.codec import ANY, Codec
from jetflow.wire.events import signal_topic

T = TypeVar("T")

MOST: Final = 50
"""Conditions of one wait."""


class Event(Generic[T]):
    """An event that is waited for: of a topic, and with a key, if one is given.

    ``payload`` is the type of its payload; ``if_`` are conditions on it, as those of `Workflow.on`. Events count from
    when the run began; with ``lookback`` (seconds) also those before.

    Raises:
        InvalidInput: the topic, the key or a condition is none.
        InvalidDeclaration: values of the type cannot travel as JSON.
    """

    @overload
    def __init__(
        self,
        topic: str,
        *,
        key: str | None = None,
        payload: type[T],
        if_: Iterable[Comparison] | None = None,
        lookback: float | timedelta | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self: Event[Any],
        topic: str,
        *,
        key: str | None = None,
        payload: None = None,
        if_: Iterable[Comparison] | None = None,
        lookback: float | timedelta | None = None,
    ) -> None: ...
    def __init__(
        self,
        topic: str,
        *,
        key: str | None = None,
        payload: Any = None,
        if_: Iterable[Comparison] | None = None,
        lookback: float | timedelta | None = None,
    ) -> None:
        self.topic: str = checked_topic(topic)
        self.key: str | None = key
        self.codec: Codec[Any] = _codec(payload, f"the payload of an event {topic!r}")
        self.lookback: float | None = lookback.total_seconds() if isinstance(lookback, timedelta) else lookback
        if self.lookback is not None and not self.lookback >= 0:
            raise InvalidInput(f"Event({topic!r}, lookback={lookback!r}): seconds from 0 on, or a timedelta")
        self._token = None if key is None else key_token(key)
        self._matching = _matching(f"Event({topic!r})", if_)

    def __repr__(self) -> str:
        return f"Event({self.topic!r})" if self.key is None else f"Event({self.topic!r}, key={self.key!r})"

    def awaited(self, run: str) -> Awaited:
        """Return it as it stands in records."""
        return Awaited(topic=self.topic, key=self._token, if_=self._matching.conditions)


class Signal(Generic[T]):
    """A signal to this run, as `Run.signal` sends it. ``payload`` is the type of its payload.

    Raises:
        InvalidInput: the name or a condition is none.
        InvalidDeclaration: values of the type cannot travel as JSON.
    """

    lookback: float | None = None

    @overload
    def __init__(self, name: str, *, payload: type[T], if_: Iterable[Comparison] | None = None) -> None: ...
    @overload
    def __init__(
        self: Signal[Any], name: str, *, payload: None = None, if_: Iterable[Comparison] | None = None
    ) -> None: ...
    def __init__(self, name: str, *, payload: Any = None, if_: Iterable[Comparison] | None = None) -> None:
        self.name: str = name
        self.topic: str = signal_topic(name)
        self.codec: Codec[Any] = _codec(payload, f"the payload of a signal {name!r}")
        self._matching = _matching(f"Signal({name!r})", if_)

    def __repr__(self) -> str:
        return f"Signal({self.name!r})"

    def awaited(self, run: str) -> Awaited:
        """Return it as it stands in records: whatever was sent to the run counts."""
        return Awaited(topic=self.topic, key=run, if_=self._matching.conditions)


class Sleep:
    """A time that is waited for, beside other things. Made by `sleep`."""

    def __init__(self, seconds: float | None, until: float | None) -> None:
        self.seconds: float | None = seconds
        self.until: float | None = until

    def __repr__(self) -> str:
        return f"sleep({self.seconds!r})" if self.until is None else f"sleep(until={self.until!r})"


def sleep(duration: float | timedelta | None = None, *, until: datetime | None = None) -> Sleep:
    """Return a time as a condition, as ``any_of(sleep(3600), Event("approval"))`` takes it.

    Raises:
        InvalidInput: neither or both are given, the duration is negative, or ``until`` has no time zone.
    """
    seconds = duration.total_seconds() if isinstance(duration, timedelta) else duration
    checked = checked_sleep(seconds, None if until is None else timestamp_of(until, "sleep(until=...)"), None)
    return Sleep(checked.seconds, checked.until)


class OutputOf:
    """What a function says of the output of a step before, as a condition of a step. Made by `output_of`."""

    def __init__(self, step: str, workflow: str | None, codec: Codec[Any], holds: Callable[[Any], Any]) -> None:
        self.step: str = step
        self.workflow: str | None = workflow
        self.codec: Codec[Any] = codec
        self.holds: Callable[[Any], Any] = holds

    def __repr__(self) -> str:
        return f"output_of({self.step!r})"


class AnyOf:
    """Alternatives, of which the first that comes counts. Made by `any_of`."""

    def __init__(self, members: tuple[Event[Any] | Signal[Any] | Sleep | OutputOf, ...]) -> None:
        self.members: tuple[Event[Any] | Signal[Any] | Sleep | OutputOf, ...] = members

    def __repr__(self) -> str:
        return f"any_of({', '.join(map(repr, self.members))})"


class AllOf:
    """Conditions that all have to come. Made by `all_of`."""

    def __init__(self, members: tuple[Event[Any] | Signal[Any] | Sleep | OutputOf | AnyOf, ...]) -> None:
        self.members: tuple[Event[Any] | Signal[Any] | Sleep | OutputOf | AnyOf, ...] = members

    def __repr__(self) -> str:
        return f"all_of({', '.join(map(repr, self.members))})"


def any_of(*conditions: Event[Any] | Signal[Any] | Sleep | OutputOf) -> AnyOf:
    """Return alternatives: the first that comes counts. Of several times the nearest does.

    Raises:
        InvalidInput: there is none, or one of them is no event, signal, sleep or, of a step's conditions, `output_of`.
    """
    return AnyOf(_checked("any_of", conditions, Event | Signal | Sleep | OutputOf))


def all_of(*conditions: Event[Any] | Signal[Any] | Sleep | OutputOf | AnyOf) -> AllOf:
    """Return conditions that all have to come, in whichever order.

    Raises:
        InvalidInput: there is none, or one of them is none that `any_of` takes, and no ``any_of``.
    """
    return AllOf(_checked("all_of", conditions, Event | Signal | Sleep | OutputOf | AnyOf))


class Happened(Generic[T]):
    """What has ended a wait: ``condition`` is the very one that was given.

    Of an event or a signal, ``payload`` is what it holds, ``id`` its id, ``key`` its key, and ``at`` when it was stored
    (seconds since the epoch). Of a sleep all of these are None.
    """

    def __init__(self, condition: Event[Any] | Signal[Any] | Sleep, payload: T, taken: Taken | None) -> None:
        self.condition: Event[Any] | Signal[Any] | Sleep = condition
        self.payload: T = payload
        self.id: str | None = None if taken is None else taken.id
        self.key: str | None = None if taken is None else taken.key
        self.at: float | None = None if taken is None else taken.at

    def __repr__(self) -> str:
        return f"<Happened {self.condition!r}: {self.payload!r}>"


class Asked:
    """One group of what is asked of `Context.wait_for`, with the conditions that it was made of."""

    def __init__(self, condition: Any, run: str, *, name: str | None, timeout: float | None) -> None:
        members: tuple[Any, ...] = condition.members if isinstance(condition, AnyOf) else (condition,)
        self._events: list[Any] = [one for one in members if isinstance(one, Event | Signal)]
        self._sleeps = [one for one in members if isinstance(one, Sleep)]
        seconds = [one.seconds for one in self._sleeps if one.seconds is not None]
        untils = [one.until for one in self._sleeps if one.until is not None]
        if seconds and untils:
            raise InvalidInput(f"{condition!r}: of two times, one is a duration and the other is not: give one")
        if timeout is not None and self._sleeps:
            raise InvalidInput(f"{condition!r} ends by its sleep: a timeout= beside it would be another one")
        self.group: Group = Group(
            events=tuple(one.awaited(run) for one in self._events),
            lookbacks=tuple(one.lookback for one in self._events),
            seconds=min(seconds) if seconds else timeout,
            until=min(untils) if untils else None,
            name=name,
        )

    def happened(self, taken: Taken) -> Happened[Any] | None:
        """Return what has ended the wait; None if that was its timeout.

        Raises:
            InvalidInput: the payload does not fit its type.
        """
        if taken.which is None:
            nearest = min(self._sleeps, key=lambda one: one.seconds or one.until or 0.0) if self._sleeps else None
            return None if nearest is None else Happened(nearest, None, None)
        condition = self._events[taken.which]
        payload = condition.codec.named(f"{condition!r}, event {taken.id}").decode(taken.payload)
        return Happened(condition, payload, taken)


def _codec(payload: Any, where: str) -> Codec[Any]:
    return ANY.named(where) if payload is None else Codec(payload, where)


def _matching(of: str, if_: Iterable[Comparison] | None) -> Matching:
    try:
        return Matching(of, if_)
    except InvalidDeclaration as error:
        raise InvalidInput(str(error)) from None


def _checked(of: str, given: tuple[Any, ...], kinds: Any) -> tuple[Any, ...]:
    if not given or len(given) > MOST:
        raise InvalidInput(f"{of}() takes 1 to {MOST} conditions, not {len(given)}")
    for one in given:
        if not isinstance(one, kinds):
            names = ", ".join(kind.__name__ for kind in kinds.__args__)
            raise InvalidInput(f"{of}() takes {names}, not {one!r}")
    return given


def leaves_of(condition: Any) -> list[Any]:
    """Return what a condition is made of, at whatever depth."""
    if isinstance(condition, AnyOf | AllOf):
        return [leaf for member in condition.members for leaf in leaves_of(member)]
    return [condition]


def asked_events(condition: Any, run: str, *, timeout: float | None, name: str | None) -> list[Asked]:
    """Return the groups of what is asked of `Context.wait_for`.

    Raises:
        InvalidInput: the condition is none, the timeout is below 0, or the name is no str.
    """
    if not isinstance(condition, Event | Signal | AnyOf | AllOf):
        if isinstance(condition, Sleep):
            raise InvalidInput("ctx.wait_for waits for events: write ctx.sleep(...) to wait for a time alone")
        raise InvalidInput(f"ctx.wait_for takes Event, Signal, any_of(...) or all_of(...), not {condition!r}")
    if any(isinstance(one, OutputOf) for one in leaves_of(condition)):
        raise InvalidInput("ctx.wait_for takes no output_of(...), which is for conditions of steps: read ctx.output")
    if timeout is not None and not (isinstance(timeout, int | float) and timeout >= 0):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidInput(f"ctx.wait_for(timeout={timeout!r}): seconds from 0 on, or a timedelta")
    if name is not None and not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidInput(f"the name of a wait is a str, not {type(name).__name__}: {name!r}")
    if not isinstance(condition, AllOf):
        return [Asked(condition, run, name=name, timeout=timeout)]
    return [
        Asked(
            one, run, name=None if name is None else f"{name}-{n}", timeout=None if isinstance(one, Sleep) else timeout
        )
        for n, one in enumerate(condition.members)
    ]
