"""Spawning children lazily: an input is taken from its source when a child may be spawned for it, and not before.

Whoever runs the step says how many may be spawned (`jetflow.host.ChildStream`); this is the part beside the step's own
code, in the worker as in a process of its own: it takes inputs, and skips those that an attempt before has taken.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterable, Callable, Iterable, Mapping
from itertools import islice
from typing import Any, Generic, Required, TypeAlias, TypedDict, TypeVar

import msgspec

from jetflow.children import ChildGroup, Streamed
from jetflow.engine.policies import JoinPolicy
from jetflow.engine.windows import StreamNames, checked_stream
from jetflow.errors import InvalidInput, SourceChanged
from jetflow.host import ChildStream, StepHost
from jetflow.wire.codec import ANY, Codec
from jetflow.wire.metadata import Told, told_of
from jetflow.workflow import Workflow, checked_workflow

I = TypeVar("I")  # noqa: E741 - the input of a child

Source: TypeAlias = "Iterable[Any] | AsyncIterable[Any] | Callable[[Any], Iterable[Any] | AsyncIterable[Any]]"
"""Inputs as they come; or what gives those behind a position."""

SKIPPED_AT_ONCE = 1000
"""Inputs that are skipped in one pass of the event loop."""


class Windowed(TypedDict, Generic[I], total=False):
    """How the children of a source are spawned in a window; see `Context.spawn_stream`."""

    window: Required[int]
    key: Callable[[I], str] | None
    position: Callable[[I], Any] | None
    budget: int | None
    policy: JoinPolicy | None
    name: str | None
    level: str | None
    metadata: Mapping[str, Any] | Callable[[I], Mapping[str, Any]] | None


async def spawn_stream(
    host: StepHost,
    names: StreamNames,
    child: Workflow[Any, Any] | str,
    source: Source,
    *,
    window: int,
    key: Callable[[Any], str] | None = None,
    position: Callable[[Any], Any] | None = None,
    budget: int | None = None,
    policy: JoinPolicy | None = None,
    name: str | None = None,
    level: str | None = None,
    metadata: Mapping[str, Any] | Callable[[Any], Mapping[str, Any]] | None = None,
    fold: Fold | None = None,
) -> tuple[Streamed, ChildGroup]:
    """Spawn a child for each input of a source; see `Context.spawn_stream`. Also returns those that failed first."""
    _check_source(source, key, position)
    workflow = child if isinstance(child, str) else checked_workflow("what is started", child).name
    name, keyed, folds = names.name(workflow, name), key is not None, fold is not None
    told = told_of(metadata, several=True)
    asked = checked_stream(name, window, budget, policy, keyed=keyed, folds=folds, level=level, tells=told is not None)
    stream = await host.open_stream(child, asked)
    try:
        if fold is not None and stream.spawned:
            fold.go_on(stream.state)
        if not stream.is_over:
            await _feed(stream, source, key, position, fold, told)
        state = None if fold is None else fold.written()
        while await stream.drain(state):
            state = None
            if fold is not None:
                await fold.add(stream)
        ended = await stream.finish()
    finally:
        stream.close()
    failed = bytearray(b"".join(bytes.fromhex(one) for one in ended.failures))
    return ended, ChildGroup(stream.workflow, stream.codec, failed)


async def _feed(
    stream: ChildStream,
    source: Source,
    key: Callable[[Any], str] | None,
    position: Callable[[Any], Any] | None,
    fold: Fold | None,
    told: Told,
) -> None:
    inputs = Inputs(source(ANY.decode(stream.position)) if callable(source) else source)
    try:
        if stream.spawned and not callable(source):
            await _skip(stream, inputs, key)
        while places := await stream.places():
            if fold is not None:
                await fold.add(stream)
            values = await inputs.take(places)
            if not values:
                return
            keys = None if key is None else [key(value) for value in values]
            behind = None if position is None else ANY.named("the position of a stream").encode(position(values[-1]))
            each = None if told is None else [told(value) if callable(told) else told for value in values]
            await stream.put(values, keys, behind, None if fold is None else fold.written(), each)
        if fold is not None:
            await fold.add(stream)
    finally:
        await inputs.close()


async def _skip(stream: ChildStream, inputs: Inputs, key: Callable[[Any], str] | None) -> None:
    """Take what was taken by an attempt before. The last of it has to be what it was."""
    left, last = stream.spawned, None
    while left:
        values = await inputs.take(min(left, SKIPPED_AT_ONCE))
        if not values:
            raise SourceChanged(stream.workflow, stream.spawned, stream.last, None, stream.spawned - left)
        left -= len(values)
        last = values[-1]
        await asyncio.sleep(0)
    await stream.check(last, None if key is None else key(last))


class Fold:
    """Folds the outputs of children to one value, each once, in the order in which they are heard of."""

    def __init__(self, function: Callable[[Any, Any], Any], initial: Any) -> None:
        self._function = function
        self._codec = ANY if not isinstance(initial, msgspec.Struct) else Codec(type(initial), "what is folded")
        self.value: Any = None
        self.go_on(self._written(initial))

    def go_on(self, state: bytes) -> None:
        """Go on from what was folded before."""
        self.value = self._codec.decode_output(msgspec.Raw(state))

    def written(self) -> bytes:
        """Return the value as JSON."""
        return self._written(self.value)

    def _written(self, value: Any) -> bytes:
        return bytes(self._codec.named("what reduce has folded").encode_output(value))

    async def add(self, stream: ChildStream) -> None:
        """Fold the outputs of those that have ended meanwhile."""
        for outcome in await stream.taken():
            value = self._function(self.value, stream.codec.decode_output(outcome.output))
            self.value = await value if inspect.isawaitable(value) else value


class Inputs:
    """What a source gives, no more than is asked for. `close` it at the end."""

    def __init__(self, source: Iterable[Any] | AsyncIterable[Any]) -> None:
        self._iterator = None if isinstance(source, AsyncIterable) else iter(source)
        self._source = source
        self._there: list[Any] = []
        self._asked = 0
        self._moved, self._room = asyncio.Event(), asyncio.Event()
        self._taking: asyncio.Task[None] | None = None

    async def take(self, most: int) -> list[Any]:
        """Wait for the next input, and return it with those behind it that are there already; none at the end."""
        if self._iterator is not None:
            return list(islice(self._iterator, most))
        if self._taking is None:
            self._taking = asyncio.get_running_loop().create_task(self._take_all())
            self._taking.add_done_callback(lambda _: self._moved.set())
        self._asked = max(0, most - len(self._there))
        if self._asked:
            self._room.set()
        while not self._there and not self._taking.done():
            self._moved.clear()
            await self._moved.wait()
        taken, self._there = self._there[:most], self._there[most:]
        if not taken:
            self._taking.result()
        return taken

    async def _take_all(self) -> None:
        assert isinstance(self._source, AsyncIterable)
        await self._has_room()
        async for value in self._source:
            self._there.append(value)
            self._asked -= 1
            self._moved.set()
            await self._has_room()

    async def _has_room(self) -> None:
        while self._asked <= 0:
            self._room.clear()
            await self._room.wait()

    async def close(self) -> None:
        """Take nothing more, and end a generator."""
        if self._taking is not None:
            self._taking.cancel()
            await asyncio.gather(self._taking, return_exceptions=True)
        end = getattr(self._source, "aclose", None)
        if end is not None:
            await end()


def _check_source(source: Any, key: Any, position: Any) -> None:
    """Refuse what is no source.

    Raises:
        InvalidInput: it is none, or its position or keys cannot be told.
    """
    for given, what in ((key, "key"), (position, "position")):
        if given is not None and not callable(given):
            raise InvalidInput(f"the {what} of spawn_stream is a function of the input, and not {given!r}")
    if callable(source):
        if position is None:
            raise InvalidInput(
                "a source of spawn_stream that is a function is called with the position to go on behind: "
                "give position=, a function of the input that tells it"
            )
    elif isinstance(source, str | bytes) or not (hasattr(source, "__iter__") or hasattr(source, "__aiter__")):
        raise InvalidInput(
            f"the source of spawn_stream is a generator, a list or the like, or a function that returns one, and not "
            f"{type(source).__name__}"
        )
    elif position is not None:
        raise InvalidInput(
            "position= is for a source that is a function, which it tells where to go on; what a list or a generator "
            "has given before is skipped"
        )
