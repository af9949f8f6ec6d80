"""What the context of a step has in a process of the pool: what it was given, and a link to ask its worker by."""

from __future__ import annotations

import asyncio
import inspect
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
from types import MappingProxyType
from typing import Any, Final

import msgspec

from jetflow import forks
from jetflow.children import ChildGroup
from jetflow.engine.awaiting import Group, Taken
from jetflow.engine.hedging import Hedge
from jetflow.engine.joins import split_ids
from jetflow.engine.policies import JoinPolicy
from jetflow.engine.sleeping import Sleep
from jetflow.engine.tasks import Failure, Outcome
from jetflow.engine.windows import AskedStream
from jetflow.errors import ForkedProcess, InvalidInput, StepEnded, StepSkipped
from jetflow.processes.pool_link import Link
from jetflow.processes.pool_messages import Call
from jetflow.processes.pool_steering import PoolSteering
from jetflow.processes.pool_streams import Opened, PoolStream
from jetflow.processes.pool_voice import PoolVoice
from jetflow.wire.codec import ANY, Codec
from jetflow.wire.metadata import Told
from jetflow.wire.records import decode_outcome
from jetflow.workflow import Workflow, checked_workflow

AT_ONCE: Final = 500
"""Children of a bulk spawn that the worker is told of at a time, at most."""

BYTES_AT_ONCE: Final = 1024 * 1024
"""Bytes of their inputs from which on it is told."""


class Decision(msgspec.Struct, frozen=True):
    """How a policy was decided; see `jetflow.children.Decided`."""

    ended: dict[bytes, Outcome]
    open: set[bytes]
    met: bool


class PoolHost:
    """The host of a context in a process: see `jetflow.host.StepHost`."""

    def __init__(self, link: Link, call: Call) -> None:
        self._link = link
        self._call = call
        self._groups: list[ChildGroup] = []
        self._voice = PoolVoice(call.number, self._ask, link.send)
        self._over = False
        self._born = forks.generation()
        self.run_id: str = call.run
        self.attempt: int = call.attempt
        self.idempotency_key: str = f"{call.run}.{call.step}"
        self.errors: tuple[Failure, ...] = call.errors
        self.is_void: bool = False
        """A step whose end cannot count any more is killed, so that none ever sees this true."""

    def close(self) -> None:
        """Refuse what is asked from now on."""
        self._over = True

    @property
    def metadata(self) -> Mapping[str, Any]:
        """See `Context.metadata`."""
        metadata = self._call.metadata
        return MappingProxyType({} if metadata is None else msgspec.json.decode(metadata))

    @property
    def level(self) -> str | None:
        """See `Context.level`."""
        return self._call.level

    @property
    def voice(self) -> PoolVoice:
        """See `Context.stream`, `Context.progress` and `Context.log`."""
        self._check_open()
        return self._voice

    @property
    def steering(self) -> PoolSteering:
        """See `Context.extend_timeout`, `Context.cancel` and `Context.release_slot`."""
        self._check_open()
        return PoolSteering(self._call.number, self._ask, self._link.send)

    def output(self, step: str) -> msgspec.Raw:
        """See `Context.output`."""
        if step not in self._call.outputs:
            raise LookupError(f"step {step!r} does not come before step {self._call.step!r}: name it in after=")
        if step in self._call.skipped:
            raise StepSkipped(step)
        return msgspec.Raw(self._call.outputs[step])

    def was_skipped(self, step: str) -> bool:
        """See `Context.was_skipped`."""
        if step not in self._call.outputs:
            raise LookupError(f"step {step!r} does not come before step {self._call.step!r}: name it in after=")
        return step in self._call.skipped

    async def children(self, step: str) -> AsyncIterator[list[tuple[str, Outcome]]]:
        """See `Context.children`."""
        async for page in self._stream("children", step):
            yield [(child, decode_outcome(outcome)) for child, outcome in page]

    async def spawn(
        self,
        workflow: Workflow[Any, Any] | str,
        inputs: Iterable[Any] | AsyncIterable[Any],
        key: Callable[[Any], str] | None,
        delay: float | None,
        level: str | None,
        told: Told = None,
    ) -> ChildGroup:
        """See `Context.spawn_workflows`."""
        name, input_codec, output_codec = _known(workflow)
        group = ChildGroup(name, output_codec, bytearray(), keyed=key is not None)
        self._groups.append(group)
        each = told if callable(told) else None
        async for bodies, keys, of_each in _batches(inputs, input_codec, key, each):
            group.ids += await self._ask("spawn", name, bodies, keys, delay, level, told if each is None else of_each)
        return group

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
        """See `Context.spawn_workflow`."""
        name, input_codec, output_codec = _known(workflow)
        child: bytes = await self._ask("spawn_one", name, input_codec.encode(input), key, detached, delay, level, told)
        group = ChildGroup(name, output_codec, bytearray(child), keyed=key is not None)
        if not detached:
            self._groups.append(group)
        return group

    async def open_stream(self, workflow: Workflow[Any, Any] | str, asked: AskedStream) -> PoolStream:
        """See `Context.spawn_stream`."""
        name, input_codec, output_codec = _known(workflow)
        opened = msgspec.convert(await self._ask("stream_open", name, msgspec.to_builtins(asked)), Opened)
        return PoolStream(self._ask, opened, name, input_codec, output_codec)

    def spawned(self) -> list[ChildGroup]:
        """See `Context.spawned`."""
        return self._groups

    async def wait_for(self, ids: Sequence[bytes]) -> list[Outcome]:
        """See `Context.join`."""
        outcomes: list[bytes] = await self._ask("wait_for", b"".join(ids))
        return [decode_outcome(outcome) for outcome in outcomes]

    async def decide(self, ids: Sequence[bytes], policy: JoinPolicy) -> Decision:
        """See `Context.join`."""
        ended, rest, met = await self._ask("decide", b"".join(ids), msgspec.to_builtins(policy))
        outcomes = {child: decode_outcome(outcome) for child, outcome in ended}
        return Decision(outcomes, set(split_ids(rest)), met)

    def hedged(self, groups: Sequence[ChildGroup], hedge: Hedge) -> AbstractAsyncContextManager[None]:
        """See `Context.join`."""
        raise InvalidInput(
            "ctx.join(hedge=...) is not for a step that runs in a process: leave it out, or join in another step"
        )

    async def once(self, name: str, function: Callable[..., Any], *args: Any) -> Any:
        """See `Context.once`. The function is called in this process."""
        stored: bytes | None = await self._ask("recorded", name)
        if stored is None:
            value = function(*args)
            if inspect.isawaitable(value):
                value = await value
            body = ANY.named(f"the value of once({name!r})").encode_output(value)
            stored = await self._ask("record", name, body)
        return None if stored is None else ANY.decode(stored)

    async def sleep(self, sleep: Sleep) -> None:
        """See `Context.sleep`."""
        await self._ask("sleep", sleep.seconds, sleep.until, sleep.key)

    async def wait_for_events(self, groups: Sequence[Group]) -> list[Taken]:
        """See `Context.wait_for`."""
        taken: list[bytes] = await self._ask("events", [msgspec.to_builtins(group) for group in groups])
        return [msgspec.json.decode(one, type=Taken) for one in taken]

    async def as_they_end(self, ids: set[bytes]) -> AsyncGenerator[bytes]:
        """See `Context.as_completed`."""
        async for child in self._stream("ends", b"".join(ids)):
            yield child

    def block_on(self, awaitable: Awaitable[Any]) -> Any:
        """See `Context.block_on`. The awaitable runs in this process."""
        self._check_open()
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return self._link.block_on(awaitable)
        raise RuntimeError("ctx.block_on is for plain code: on an event loop, use await")

    # --- asking

    async def _ask(self, what: str, *given: Any) -> Any:
        self._check_open()
        return await self._link.ask(self._call.number, what, *given)

    async def _stream(self, what: str, of: Any) -> AsyncGenerator[Any]:
        """Ask for one item after the other, until there are no more, or no more are wanted."""
        stream: int = await self._ask("open", what, of)
        try:
            while item := await self._ask("next", stream):
                yield item[0]
        finally:
            if not self._over:
                await self._ask("shut", stream)

    def _check_open(self) -> None:
        if forks.is_child(self._born):
            raise ForkedProcess("ctx", "return to it what it shall do")
        if self._over:
            raise StepEnded(self._call.step, self._call.run)


def _known(workflow: Workflow[Any, Any] | str) -> tuple[str, Codec[Any], Codec[Any]]:
    """Return the name of a workflow, and how its inputs are written and its outputs read."""
    if isinstance(workflow, str):
        return workflow, ANY.named(f"input of workflow {workflow!r}"), ANY
    checked = checked_workflow("what is started", workflow)
    return checked.name, checked.input, checked.output


async def _batches(
    inputs: Iterable[Any] | AsyncIterable[Any],
    codec: Codec[Any],
    key: Callable[[Any], str] | None,
    told: Callable[[Any], bytes] | None,
) -> AsyncIterator[tuple[list[bytes], list[str] | None, list[bytes]]]:
    bodies: list[bytes] = []
    keys: list[str] = []
    of_each: list[bytes] = []
    size = 0
    async for value in _each(inputs):
        bodies.append(codec.encode(value))
        if key is not None:
            keys.append(key(value))
        if told is not None:
            of_each.append(told(value))
        size += len(bodies[-1])
        if len(bodies) >= AT_ONCE or size >= BYTES_AT_ONCE:
            yield bodies, None if key is None else keys, of_each
            bodies, keys, of_each, size = [], [], [], 0
    if bodies:
        yield bodies, None if key is None else keys, of_each


async def _each(inputs: Iterable[Any] | AsyncIterable[Any]) -> AsyncIterator[Any]:
    if isinstance(inputs, AsyncIterable):
        async for value in inputs:
            yield value
    else:
        for value in inputs:
            yield value
