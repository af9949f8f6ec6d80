"""The host of a context that no worker stands behind: children are spawned into memory, and end as a test says.

Identity, digests, types and policies are the engine's own, so that a step meets the same refusals as in a real run.
"""

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
from contextlib import asynccontextmanager
from functools import partial
from time import time
from types import MappingProxyType
from typing import Any, NoReturn
from uuid import uuid4

import msgspec

from jetflow.children import ChildGroup, Streamed
from jetflow.conditions import Signal
from jetflow.engine.awaiting import Group, Taken, WaitNames
from jetflow.engine.events import checked_topic, key_token
from jetflow.engine.hedging import Hedge
from jetflow.engine.identity import checked_key, child_id
from jetflow.engine.levels import checked_level
from jetflow.engine.matching import Matching
from jetflow.engine.policies import ALL_SUCCEED, JoinPolicy
from jetflow.engine.sleeping import Sleep, SleepNames
from jetflow.engine.tasks import NULL, Failure, Outcome
from jetflow.engine.windows import AskedStream, Page, Window
from jetflow.errors import InvalidInput, KeyConflict, StepSkipped
from jetflow.wire.codec import ANY, Codec, written
from jetflow.wire.metadata import Told
from jetflow.workflow import Step, Workflow, checked_workflow


class Spawned(msgspec.Struct, frozen=True, kw_only=True):
    """One child that a step has spawned: its workflow's name, its input as it was given, and the child's ``id``.

    ``delay`` is seconds; ``metadata`` are those that it was given beside its parent's.
    """

    workflow: str
    input: Any
    key: str | None = None
    detached: bool = False
    delay: float | None = None
    level: str | None = None
    metadata: Mapping[str, Any] = {}
    id: str = ""


class Decision(msgspec.Struct, frozen=True):
    """How a policy was decided; see `jetflow.children.Decided`."""

    ended: dict[bytes, Outcome]
    open: set[bytes]
    met: bool


class FakeVoice:
    """What a step has said: see `jetflow.host.Voice`."""

    def __init__(self) -> None:
        self.chunks: list[Any] = []
        self.values: list[tuple[float, str]] = []
        self.lines: list[str] = []

    async def chunk(self, value: Any) -> None:
        """See `Context.stream`."""
        if not isinstance(value, bytes):
            value = ANY.decode(written(value, "a chunk"))
        self.chunks.append(value)

    def progress(self, fraction: float, text: str = "") -> None:
        """See `Context.progress`."""
        if not 0 <= fraction <= 1:
            raise InvalidInput(f"ctx.progress({fraction!r}): from 0 to 1")
        self.values.append((float(fraction), text))

    def log(self, level: str, message: str, *, fields: Mapping[str, Any] | None = None) -> None:
        """See `Context.log`."""
        self.lines.append(message)


class FakeSteering:
    """What a step has asked for itself: see `jetflow.host.Steering`. ``seconds`` are those of its extensions."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.is_cancelled: bool = False
        self.has_released: bool = False

    def extend_timeout(self, seconds: float) -> None:
        """See `Context.extend_timeout`."""
        self.seconds.append(seconds)

    async def cancel(self) -> NoReturn:
        """See `Context.cancel`."""
        self.is_cancelled = True
        raise asyncio.CancelledError

    def release_slot(self) -> None:
        """See `Context.release_slot`."""
        self.has_released = True


class FakeStream:
    """See `jetflow.host.ChildStream`. Each child ends before the next is spawned."""

    def __init__(
        self,
        workflow: str,
        codec: Codec[Any],
        asked: AskedStream,
        put: Callable[[Any, str | None, bytes | None], Awaitable[tuple[bytes, Outcome]]],
    ) -> None:
        self._asked = asked
        self._put = put
        self._window = Window(asked.window, Page())
        self.workflow: str = workflow
        self.codec: Codec[Any] = codec
        self._taken: list[Outcome] = []
        self.position: bytes = b"null"
        self.state: bytes = b"null"
        self.is_over: bool = False

    @property
    def spawned(self) -> int:
        """How many were spawned."""
        return self._window.spawned

    @property
    def last(self) -> str:
        """The id of the last of them."""
        return self._window.last

    async def places(self) -> int:
        """See `ChildStream.places`."""
        window, asked = self._window, self._asked
        if asked.policy is not None and asked.policy.early and window.failed > asked.policy.tolerated:
            window.stopped = "failure"
        elif asked.budget is not None and window.spawned >= asked.budget:
            window.stopped = "budget"
        return 0 if window.stopped else 1

    async def taken(self) -> list[Outcome]:
        """See `ChildStream.taken`."""
        taken, self._taken = self._taken, []
        return taken

    async def put(
        self,
        values: Sequence[Any],
        keys: Sequence[str] | None,
        position: bytes | None,
        state: bytes | None,
        told: Sequence[bytes] | None,
    ) -> None:
        """See `ChildStream.put`."""
        for number, value in enumerate(values):
            child, outcome = await self._put(
                value, None if keys is None else keys[number], None if told is None else told[number]
            )
            well = outcome.status == "succeeded"
            self._window.spawn([child])
            self._window.end(child, well=well)
            self._taken += [outcome] if well and self._asked.folds else []

    async def check(self, value: Any, key: str | None) -> None:
        """See `ChildStream.check`. Nothing was taken before."""

    async def drain(self, state: bytes | None) -> bool:
        """See `ChildStream.drain`."""
        return False

    async def finish(self) -> Streamed:
        """See `ChildStream.finish`."""
        window, policy = self._window, self._asked.policy or ALL_SUCCEED
        verdict = policy.verdict(window.spawned, window.spawned - window.failed, window.spawned)
        return Streamed(
            spawned=window.spawned,
            failed=window.failed,
            met=verdict == "met" and window.stopped != "failure",
            stopped=window.stopped or "source",
            failures=tuple(window.failures),
        )

    def close(self) -> None:
        """See `ChildStream.close`."""


class FakeHost:
    """See `jetflow.host.StepHost`. ``children_spawned`` are by id."""

    def __init__(
        self,
        *,
        results: Mapping[str, Any],
        outputs: Mapping[Step[..., Any, Any] | str, Any],
        children: Mapping[Step[..., Any, Any] | str, Sequence[Any]],
        metadata: Mapping[str, Any] | None,
        level: str | None,
        attempt: int,
        run_id: str,
        errors: Sequence[Failure | BaseException],
        once: Mapping[str, Any],
        events: Sequence[tuple[Any, ...]] = (),
        skipped: Iterable[Step[..., Any, Any] | str] = (),
    ) -> None:
        self._skipped = {_step(step) for step in skipped}
        self._wait_names = WaitNames()
        self._events: list[tuple[str, str | None, bytes] | None] = [_event(run_id, *event) for event in events]
        self._results = results
        self._outputs = {_step(step): _written(step, output) for step, output in outputs.items()}
        self._children = {
            _step(step): [(uuid4().hex, _outcome(ANY, "", None, one)) for one in ended]
            for step, ended in children.items()
        }
        self._metadata = ANY.named("metadata").encode(dict(metadata or {}))
        self._digests: dict[str, str] = {}
        self._codecs: dict[str, Codec[Any]] = {}
        self._ended: dict[str, Outcome] = {}
        self._groups: list[ChildGroup] = []
        self.children_spawned: dict[str, Spawned] = {}
        self.recorded: dict[str, Any] = {name: ANY.decode(ANY.encode(value)) for name, value in once.items()}
        self.run_id: str = run_id
        self.level: str | None = level
        self.attempt: int = attempt
        self.idempotency_key: str = f"{run_id}.step"
        self.errors: tuple[Failure, ...] = tuple(_failure(error) for error in errors)
        self.is_void: bool = False
        self.voice: FakeVoice = FakeVoice()
        self.steering: FakeSteering = FakeSteering()
        self.slept: list[Sleep] = []
        self._names = SleepNames()

    @property
    def metadata(self) -> Mapping[str, Any]:
        """See `Context.metadata`."""
        return MappingProxyType(msgspec.json.decode(self._metadata))

    def was_skipped(self, step: str) -> bool:
        """See `Context.was_skipped`."""
        if step not in self._outputs and step not in self._skipped:
            raise LookupError(f"step {step!r} has not ended in this test: give context(outputs={{{step}: ...}})")
        return step in self._skipped

    def output(self, step: str) -> msgspec.Raw:
        """See `Context.output`."""
        if step in self._skipped:
            raise StepSkipped(step)
        if step not in self._outputs:
            raise LookupError(f"step {step!r} has no output in this test: give context(outputs={{{step}: ...}})")
        return msgspec.Raw(self._outputs[step])

    async def children(self, step: str) -> AsyncIterator[list[tuple[str, Outcome]]]:
        """See `Context.children`."""
        if step not in self._children:
            raise LookupError(f"step {step!r} has no children in this test: give context(children={{{step}: [...]}})")
        yield self._children[step]

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
        group = _group(workflow)
        self._groups.append(group)
        given = [value async for value in inputs] if isinstance(inputs, AsyncIterable) else list(inputs)
        for value in given:
            group.ids += self._add(
                workflow, value, None if key is None else key(value), delay=delay, level=level, told=told
            )
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
        group = _group(workflow)
        group.ids += self._add(workflow, input, key, detached=detached, delay=delay, level=level, told=told)
        if not detached:
            self._groups.append(group)
        return group

    def _add(
        self,
        workflow: Workflow[Any, Any] | str,
        value: Any,
        key: str | None,
        *,
        detached: bool = False,
        delay: float | None = None,
        level: str | None = None,
        told: Told = None,
    ) -> bytes:
        name, codec, output = _known(workflow)
        if level is not None and isinstance(workflow, Workflow):
            checked_level(name, workflow.graph.levels, level)
        if key is not None:
            checked_key("a child", key)
        body = codec.encode(value)
        digest = codec.digest(body)
        child = child_id(self.run_id, name, key=key, digest=digest)
        if self._digests.setdefault(child, digest) != digest:
            raise KeyConflict(name, key or "", child, self._digests[child], digest)
        self._codecs[child] = output
        own = told(value) if callable(told) else told
        spawned = Spawned(
            workflow=name,
            input=value,
            key=key,
            detached=detached,
            delay=delay,
            level=level,
            metadata={} if own is None else msgspec.json.decode(own),
            id=child,
        )
        self.children_spawned.setdefault(child, spawned)
        return bytes.fromhex(child)

    async def open_stream(self, workflow: Workflow[Any, Any] | str, asked: AskedStream) -> FakeStream:
        """See `Context.spawn_stream`."""
        name, _, output = _known(workflow)
        return FakeStream(name, output, asked, partial(self._put, workflow))

    async def _put(
        self, workflow: Workflow[Any, Any] | str, value: Any, key: str | None, told: bytes | None
    ) -> tuple[bytes, Outcome]:
        child = self._add(workflow, value, key, told=told)
        return child, await self._end(child.hex())

    def spawned(self) -> list[ChildGroup]:
        """See `Context.spawned`."""
        return self._groups

    async def wait_for(self, ids: Sequence[bytes]) -> list[Outcome]:
        """See `Context.join`."""
        return [await self._end(child.hex()) for child in ids]

    async def _end(self, child: str) -> Outcome:
        """Return how a child ends. It ends once, when it is first waited for."""
        if child not in self._ended:
            spawned = self.children_spawned[child]
            if spawned.workflow not in self._results:
                raise LookupError(
                    f"a child of {spawned.workflow!r} is waited for, and has no result in this test: "
                    f"give context(results={{{spawned.workflow!r}: ...}})"
                )
            result = self._results[spawned.workflow]
            if callable(result) and not isinstance(result, type):
                result = await _called(result, spawned.input)
            self._ended[child] = _outcome(self._codecs[child], spawned.workflow, spawned.key, result)
        return self._ended[child]

    async def decide(self, ids: Sequence[bytes], policy: JoinPolicy) -> Decision:
        """See `Context.join`."""
        ended = {child: await self._end(child.hex()) for child in ids}
        succeeded = sum(outcome.status == "succeeded" for outcome in ended.values())
        return Decision(ended, set(), policy.verdict(len(ended), succeeded, len(ended)) == "met")

    @asynccontextmanager
    async def hedged(self, groups: Sequence[ChildGroup], hedge: Hedge) -> AsyncGenerator[None]:
        """See `Context.join`. No child is late here."""
        yield

    async def once(self, name: str, function: Callable[..., Any], *args: Any) -> Any:
        """See `Context.once`."""
        if name not in self.recorded:
            value = function(*args)
            if inspect.isawaitable(value):
                value = await value
            body = ANY.named(f"the value of once({name!r})").encode_output(value)
            self.recorded[name] = ANY.decode(body)
        return self.recorded[name]

    async def sleep(self, sleep: Sleep) -> None:
        """See `Context.sleep`. It is over at once."""
        await self.once(self._names.name(sleep), lambda: sleep.end(time()))
        self.slept.append(sleep)

    async def wait_for_events(self, groups: Sequence[Group]) -> list[Taken]:
        """See `Context.wait_for`: of what the test says comes, each is taken once, in order."""
        return [self._taken(group) for group in groups]

    def _taken(self, group: Group) -> Taken:
        name = self._wait_names.name(group)
        for number, event in enumerate(self._events):
            if event is None:
                continue
            topic, key, body = event
            for which, awaited in enumerate(group.events):
                fits = awaited.topic == topic and awaited.key in (None, key_token(key))
                if fits and Matching("a wait", awaited.if_).fits(msgspec.json.decode(body)):
                    self._events[number] = None
                    return Taken(
                        which=which, sequence=number + 1, id=f"event-{number}", key=key, payload=msgspec.Raw(body)
                    )
        if group.has_end:
            return Taken()
        raise LookupError(
            f"the step waits for {', '.join(one.topic for one in group.events)} ({name}), and no such event comes in "
            "this test: give context(events=[(topic, payload)])"
        )

    async def as_they_end(self, ids: set[bytes]) -> AsyncGenerator[bytes]:
        """See `Context.as_completed`."""
        for child in [child for child in map(bytes.fromhex, self.children_spawned) if child in ids]:
            await self._end(child.hex())
            yield child

    def block_on(self, awaitable: Awaitable[Any]) -> Any:
        """See `Context.block_on`. The awaitable runs on an event loop of its own."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return asyncio.run(_awaited(awaitable))
        if inspect.iscoroutine(awaitable):
            awaitable.close()
        raise RuntimeError("ctx.block_on is for plain def steps: call one outside of an event loop, or in a thread")


def _event(run_id: str, topic: str | Signal[Any], payload: Any = None, key: str | None = None) -> Any:
    """Return an event as a test gives it: of a topic, or a signal by its name."""
    if isinstance(topic, Signal):
        topic, key = topic.topic, run_id
    return checked_topic(topic), key, written(payload, f"the payload of an event {topic!r}")


async def _awaited(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


async def _called(function: Callable[[Any], Any], value: Any) -> Any:
    """Return what a function makes of an input; its error, if it raises one."""
    try:
        result = function(value)
        return await result if inspect.isawaitable(result) else result
    except Exception as error:  # it is how the child ends
        return error


def _step(step: Step[..., Any, Any] | str) -> str:
    return step if isinstance(step, str) else step.name


def _written(step: Step[..., Any, Any] | str, output: Any) -> bytes:
    codec = ANY.named(f"the output of step {step!r}") if isinstance(step, str) else step.output
    return bytes(codec.encode_output(output))


def _known(workflow: Workflow[Any, Any] | str) -> tuple[str, Codec[Any], Codec[Any]]:
    if isinstance(workflow, str):
        return workflow, ANY.named(f"input of workflow {workflow!r}"), ANY
    checked = checked_workflow("what is started", workflow)
    return checked.name, checked.input, checked.output


def _group(workflow: Workflow[Any, Any] | str) -> ChildGroup:
    name, _, output = _known(workflow)
    return ChildGroup(name, output, bytearray())


def _outcome(codec: Codec[Any], workflow: str, key: str | None, result: Any) -> Outcome:
    """Return the outcome of a child: the result is its output, or its error."""
    if isinstance(result, BaseException) or (isinstance(result, type) and issubclass(result, BaseException)):
        return Outcome(status="failed", output=NULL, error=_failure(result), workflow=workflow, key=key)
    output = msgspec.Raw(codec.encode_output(result))
    return Outcome(status="succeeded", output=output, workflow=workflow, key=key)


def _failure(error: Failure | BaseException | type[BaseException]) -> Failure:
    if isinstance(error, Failure):
        return error
    if isinstance(error, type):
        return Failure(error.__name__, error.__name__)
    return Failure(type(error).__name__, str(error) or type(error).__name__)
