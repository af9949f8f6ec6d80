"""The names and bodies of limits (``docs/wire.md``, section Limits)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

import msgspec

from jetflow.engine.graph import ADMIT
from jetflow.engine.identity import cut_hash, is_name
from jetflow.engine.limits import OF_STEP, LimitSettings, Place, stander
from jetflow.engine.rates import Rate, RateSettings, Window
from jetflow.engine.tasks import NONE, StepAddress, Task
from jetflow.errors import InvalidInput, MalformedRecord
from jetflow.wire.subjects import Subjects

PLACES: Final = "places"
"""The name of what `_admit` records once: the places that its run needs."""

PLACES_OF_STEP: Final = "_places"
"""The name of what a step with limits of its own records once: the places that it needs."""

T = TypeVar("T")

_ENTRY_TOKENS: Final = 5


class Entry(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The body of an entry: of which workflow its run is, the step that spawned it, and the key as it was given."""

    workflow: str
    step: str = NONE
    key: str = ""


class Needed(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What `_admit`, or a step, records once: the places that it needs, with their keys as given, and since when.

    ``since`` is seconds since the epoch. ``rates`` are what it needs of rate limits, each with a number of units.
    """

    places: tuple[tuple[str, str, str], ...] = ()
    rates: tuple[tuple[str, str, str, int], ...] = ()
    since: float = 0.0


class Stands(msgspec.Struct, frozen=True, gc=False):
    """Who stands at a gate, as the subject of an entry tells: a run, or one ``step`` of it."""

    place: Place
    root: str
    parent: str
    run: str
    step: str | None = None

    @property
    def who(self) -> str:
        """Who it is, as `jetflow.engine.limits.stander` says."""
        return stander(self.run, self.step)


class LimitNames:
    """The names of what limits are made of in one namespace."""

    def __init__(self, names: Subjects) -> None:
        namespace = names.namespace
        self.gates_stream: str = f"JF_{namespace}_gates"
        self.limits_stream: str = f"KV_jf_{namespace}_limits"
        self._names = names
        self._entry = f"{names.prefix}.entry"
        self._gone = f"{names.prefix}.gone"
        self._settings = f"$KV.jf_{namespace}_limits"

    @property
    def all_of_gates(self) -> tuple[str, str]:
        """What the gates stream holds."""
        return f"{self._entry}.>", f"{self._gone}.>"

    @property
    def all_settings(self) -> str:
        """What the limits bucket holds."""
        return f"{self._settings}.>"

    def settings(self, limit: str) -> str:
        """What is stored of one limit; of all with ``*``."""
        return f"{self._settings}.limit.{limit}"

    def rate(self, limit: str) -> str:
        """What is stored of one rate limit; of all with ``*``."""
        return f"{self._settings}.rate.{limit}"

    def window(self, rate: Rate) -> str:
        """What was taken last of one key of a rate limit."""
        return f"{self._settings}.window.{rate.limit}.{rate.key}"

    def windows(self, limit: str) -> str:
        """What was taken last of all keys of a rate limit."""
        return f"{self._settings}.window.{limit}.*"

    def entry(self, place: Place, task: Task, step: str | None = None) -> str:
        """That the run of a task, or a step of it, stands at a gate."""
        return f"{self._entry}.{place.limit}.{place.key}.{task.root}.{task.parent}.{stander(task.run, step)}"

    def entries(self, limit: str = "*", key: str = "*") -> str:
        """All who stand at the gates of a limit and a key."""
        return f"{self._entry}.{limit}.{key}.*.*.*"

    def entries_below(self, root: str, parent: str = "*") -> str:
        """All runs of a tree, or all children of one of its runs, that stand at any gate, or of which steps do."""
        return f"{self._entry}.*.*.{root}.{parent}.*"

    def parse_entry(self, subject: str) -> Stands | None:
        """Return who stands where; None if the subject is of no entry."""
        if not subject.startswith(f"{self._entry}."):
            return None
        tokens = subject[len(self._entry) + 1 :].split(".")
        if len(tokens) != _ENTRY_TOKENS:
            return None
        limit, key, root, parent, who = tokens
        run, _, step = who.partition(OF_STEP)
        return Stands(Place(limit, key), root, parent, run, step or None)

    def gone(self, root: str, run: str, step: str | None = None) -> str:
        """That a run, or a step of it, has gone from all gates."""
        return f"{self._gone}.{root}.{stander(run, step)}"

    def of_tree(self, root: str) -> list[str]:
        """Everything of a tree in the gates stream."""
        return [self.entries_below(root), f"{self._gone}.{root}.>"]

    def needed(self, task: Task, step: str | None = None) -> str:
        """Which places the run of a task, or a step of it, needs."""
        if step is not None:
            return self._names.once(StepAddress(task.root, task.run, step), PLACES_OF_STEP)
        return self._names.once(StepAddress(task.root, task.run, ADMIT), PLACES)

    def turns(self, task: Task) -> str:
        """What the admission of the run of a task was parked for."""
        return self._names.joins_of_step(StepAddress(task.root, task.run, ADMIT))

    def asked(self, limit: str) -> str:
        """Asks any worker to look at all gates of a limit."""
        return f"{self._names.prefix}.in.limit.{limit}"


def limit_token(key: str) -> str:
    """Return what stands for the key of a limit in subjects: itself, or the hash of one that is no name.

    Raises:
        InvalidInput: it has no form in UTF-8.
    """
    try:
        return key if is_name(key) else cut_hash(key.encode()).hex()
    except UnicodeEncodeError as error:
        raise InvalidInput(f"the key {key!r} of a limit cannot be written as UTF-8: {error.reason}") from error


def _reader(what: str, kind: type[T]) -> Callable[[bytes], T]:
    read = msgspec.json.Decoder(kind).decode

    def decode(body: bytes) -> T:
        try:
            return read(body)
        except (ValueError, RecursionError) as error:
            raise MalformedRecord(what, str(error)) from error

    return decode


decode_settings: Final[Callable[[bytes], LimitSettings]] = _reader("limit", LimitSettings)
decode_rate: Final[Callable[[bytes], RateSettings]] = _reader("rate limit", RateSettings)
decode_window: Final[Callable[[bytes], Window]] = _reader("window of a rate limit", Window)
decode_needed: Final[Callable[[bytes], Needed]] = _reader("places of a run", Needed)
_decode_entry: Final = _reader("entry", Entry)


def decode_entry(body: bytes) -> Entry:
    """Return the body of an entry. Its subject says what counts: one that cannot be read says nothing more."""
    try:
        return _decode_entry(body)
    except MalformedRecord:
        return Entry(workflow="")
