"""What a context needs of whoever runs its step: a worker, a process of one, or a test."""

from __future__ import annotations

from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import AbstractAsyncContextManager
from typing import Any, NoReturn, Protocol

import msgspec

from jetflow.children import ChildGroup, Decided, Streamed
from jetflow.engine.awaiting import Group, Taken
from jetflow.engine.hedging import Hedge
from jetflow.engine.policies import JoinPolicy
from jetflow.engine.sleeping import Sleep
from jetflow.engine.tasks import Failure, Outcome
from jetflow.engine.windows import AskedStream
from jetflow.wire.codec import Codec
from jetflow.wire.metadata import Told
from jetflow.workflow import Workflow


class Voice(Protocol):
    """How a step says something while it runs."""

    async def chunk(self, value: Any) -> None:
        """Store a chunk."""
        ...

    def progress(self, fraction: float, text: str = "") -> None:
        """Store how far the step is."""
        ...

    def log(self, level: str, message: str, *, fields: Mapping[str, Any] | None = None) -> None:
        """Keep a line of its log."""
        ...


class Steering(Protocol):
    """What a step asks for its own attempt, and for its run."""

    def extend_timeout(self, seconds: float) -> None:
        """Let the attempt take so much longer."""
        ...

    async def cancel(self) -> NoReturn:
        """Cancel the run."""
        ...

    def release_slot(self) -> None:
        """Go on without a slot."""
        ...


class ChildStream(Protocol):
    """A stream of children, as the worker spawns it. `close` it at the end."""

    @property
    def workflow(self) -> str:
        """The children's workflow."""
        ...

    @property
    def codec(self) -> Codec[Any]:
        """How their outputs are read."""
        ...

    @property
    def spawned(self) -> int:
        """How many were spawned, also by attempts before."""
        ...

    @property
    def last(self) -> str:
        """The id of the last child that was spawned."""
        ...

    @property
    def position(self) -> bytes:
        """Behind which position to go on, as JSON."""
        ...

    @property
    def state(self) -> bytes:
        """What was folded, as JSON."""
        ...

    @property
    def is_over(self) -> bool:
        """Whether nothing more is spawned."""
        ...

    async def places(self) -> int:
        """Wait until children may be spawned, and return how many; 0 if none may ever."""
        ...

    async def taken(self) -> list[Outcome]:
        """Those that have ended well since it was asked last, of a stream that folds them."""
        ...

    async def put(
        self,
        values: Sequence[Any],
        keys: Sequence[str] | None,
        position: bytes | None,
        state: bytes | None,
        told: Sequence[bytes] | None,
    ) -> None:
        """Spawn children, for which there are places. All that were taken are folded in ``state``.

        ``told`` are metadata of each, where the stream tells some.
        """
        ...

    async def check(self, value: Any, key: str | None) -> None:
        """Refuse an input that is not the last that was taken before."""
        ...

    async def drain(self, state: bytes | None) -> bool:
        """Wait until another has ended; False if none is open. Nothing more is spawned."""
        ...

    async def finish(self) -> Streamed:
        """What became of them."""
        ...

    def close(self) -> None:
        """Wait for nothing more."""
        ...


class StepHost(Protocol):
    """What a context needs of the worker that runs the step."""

    @property
    def run_id(self) -> str:
        """The run's id."""
        ...

    @property
    def attempt(self) -> int:
        """Which attempt this is."""
        ...

    @property
    def idempotency_key(self) -> str:
        """The same for every attempt."""
        ...

    @property
    def metadata(self) -> Mapping[str, Any]:
        """The root run's metadata."""
        ...

    @property
    def level(self) -> str | None:
        """How urgent the run is."""
        ...

    @property
    def voice(self) -> Voice:
        """What the step says while it runs."""
        ...

    @property
    def steering(self) -> Steering:
        """What the step asks for itself."""
        ...

    def output(self, step: str) -> msgspec.Raw:
        """The stored output of a step."""
        ...

    def was_skipped(self, step: str) -> bool:
        """Whether a step before was skipped."""
        ...

    def children(self, step: str) -> AsyncIterator[list[tuple[str, Outcome]]]:
        """Pages of how a step's children ended."""
        ...

    async def spawn(
        self,
        workflow: Workflow[Any, Any] | str,
        inputs: Iterable[Any] | AsyncIterable[Any],
        key: Callable[[Any], str] | None,
        delay: float | None,
        level: str | None,
        told: Told = None,
    ) -> ChildGroup:
        """Spawn a child for each input."""
        ...

    async def spawn_one(
        self,
        workflow: Workflow[Any, Any] | str,
        input: Any,
        key: str | None,
        detached: bool,
        delay: float | None,
        level: str | None,
        told: Told = None,
    ) -> ChildGroup:
        """Spawn one child."""
        ...

    async def open_stream(self, workflow: Workflow[Any, Any] | str, asked: AskedStream) -> ChildStream:
        """Begin to spawn a stream, or go on with it."""
        ...

    def spawned(self) -> list[ChildGroup]:
        """All that this step has spawned."""
        ...

    def wait_for(self, ids: Sequence[bytes]) -> Awaitable[list[Outcome]]:
        """Wait for all of them."""
        ...

    def hedged(self, groups: Sequence[ChildGroup], hedge: Hedge) -> AbstractAsyncContextManager[None]:
        """Have twins made of stragglers while they are waited for."""
        ...

    @property
    def is_void(self) -> bool:
        """Whether what the step comes to cannot count any more."""
        ...

    @property
    def errors(self) -> tuple[Failure, ...]:
        """Why the run has failed."""
        ...

    async def decide(self, ids: Sequence[bytes], policy: JoinPolicy) -> Decided:
        """Wait until a policy is decided."""
        ...

    async def once(self, name: str, function: Callable[..., Any], *args: Any) -> Any:
        """Compute a value once for the run."""
        ...

    async def sleep(self, sleep: Sleep) -> None:
        """Sleep until an end that is fixed when it is first reached."""
        ...

    async def wait_for_events(self, groups: Sequence[Group]) -> list[Taken]:
        """Wait until each group has come to something."""
        ...

    def as_they_end(self, ids: set[bytes]) -> AsyncGenerator[bytes]:
        """Yield each when it has ended."""
        ...

    def block_on(self, awaitable: Awaitable[Any]) -> Any:
        """Run on the loop, from a thread."""
        ...
