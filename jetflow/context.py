"""What a running step sees: its run, what came before it, and its children."""

from __future__ import annotations

from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Mapping,
)
from contextlib import aclosing
from datetime import datetime, timedelta
from typing import Any, Final, NoReturn, TypeVar, Unpack, overload

import msgspec

from jetflow.children import (
    Child,
    ChildGroup,
    Children,
    ChildResult,
    ChildResults,
    JoinResult,
    Streamed,
    child_failed,
    groups_of,
    output_of,
)
from jetflow.conditions import AllOf, AnyOf, Event, Happened, Signal, asked_events
from jetflow.engine.hedging import Hedge
from jetflow.engine.joins import ID_BYTES, split_ids
from jetflow.engine.policies import JoinPolicy
from jetflow.engine.sleeping import Sleep, checked_sleep, seconds_of, timestamp_of
from jetflow.engine.tasks import LONGEST_CAUSE, Failure
from jetflow.engine.windows import StreamNames
from jetflow.errors import ChildFailed, ChildrenFailed, InvalidInput, WaitTimeout
from jetflow.host import StepHost
from jetflow.streaming import Fold, Windowed, spawn_stream
from jetflow.wire.codec import ANY, Codec
from jetflow.wire.metadata import told_of
from jetflow.workflow import Step, Workflow

I = TypeVar("I")  # noqa: E741 - the input of a workflow, as O is its output
O = TypeVar("O")  # noqa: E741
OUT = TypeVar("OUT")
T = TypeVar("T")

_ITERATED: Final = ("__iter__", "__aiter__", "__getitem__")


class Context:
    """What a running step sees of its run, and how it spawns and joins children.

    In a step that is a plain ``def`` (run in a thread or a process), wrap what has to be awaited in `block_on`.
    """

    __jetflow_context__ = True

    def __init__(self, host: StepHost) -> None:
        self._host = host
        self._streams = StreamNames()

    @property
    def run_id(self) -> str:
        """The id of this run."""
        return self._host.run_id

    @property
    def attempt(self) -> int:
        """Which attempt this is, from 1."""
        return self._host.attempt

    @property
    def idempotency_key(self) -> str:
        """A string that is the same for every attempt of this step of this run: for side effects of your own."""
        return self._host.idempotency_key

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What was given to the root run when it was triggered, and to those between when they were spawned."""
        return self._host.metadata

    @property
    def level(self) -> str | None:
        """How urgent the run is, and what it spawns, where nothing else is said; None if nothing says it."""
        return self._host.level

    @overload
    def output(self, step: Step[..., Any, OUT]) -> OUT: ...
    @overload
    def output(self, step: str) -> Any: ...
    def output(self, step: Step[..., Any, Any] | str) -> Any:
        """Return the output of a step that comes before this one.

        Raises:
            LookupError: ``step`` does not come before this one, or was skipped (`StepSkipped`).
            InvalidOutput: the stored output does not fit the step's type.
        """
        if isinstance(step, Step):
            return step.output.decode_output(self._host.output(step.name))
        return msgspec.json.decode(self._host.output(step))

    def was_skipped(self, step: Step[..., Any, Any] | str) -> bool:
        """Tell whether a step that comes before this one was skipped, so that it has no output.

        Raises:
            LookupError: ``step`` does not come before this one.
        """
        return self._host.was_skipped(step.name if isinstance(step, Step) else step)

    @overload
    def children(self, step: Step[..., Any, Any] | str, child: Workflow[Any, O]) -> ChildResults[O]: ...
    @overload
    def children(self, step: Step[..., Any, Any] | str, child: None = None) -> ChildResults[Any]: ...
    def children(self, step: Step[..., Any, Any] | str, child: Workflow[Any, Any] | None = None) -> ChildResults[Any]:
        """Return how the children ended that a step before this one spawned. ``child`` types their outputs."""
        name = step.name if isinstance(step, Step) else step
        return ChildResults(lambda: self._host.children(name), ANY if child is None else child.output)

    @property
    def cancelled(self) -> bool:
        """Whether it is in vain to go on: for steps that run in a thread, which no exception can interrupt.

        So it is when the run was cancelled, when the step has used up its time, and when its worker has to end. A step
        in a process never sees it: the process is killed.
        """
        return self._host.is_void

    def extend_timeout(self, seconds: float | timedelta) -> None:
        """Give this attempt so many more seconds than its ``timeout``; again each time it is called.

        Where there is no timeout there is nothing to extend. The deadline of the run stays where it is.

        Raises:
            InvalidInput: it is no number of seconds from 0 on.
        """
        self._host.steering.extend_timeout(seconds_of(seconds, "what ctx.extend_timeout takes"))

    async def cancel(self) -> NoReturn:
        """Cancel this run, as ``client.cancel`` does: its children with it, and what stands behind this step.

        It does not return: the step ends here, by ``CancelledError``.

        Raises:
            InvalidInput: it is called where the run has ended, in a step on its failure; or in a batch.
        """
        await self._host.steering.cancel()

    def release_slot(self) -> None:
        """Give the step's slot to others, and go on without one to its end: for one that only waits, for long.

        Its worker goes on to hold the task, and its place of ``max_running``. Nothing bounds how many do so at once.

        Raises:
            InvalidInput: it is called in a batch, whose slot is that of all its runs.
        """
        self._host.steering.release_slot()

    @property
    def errors(self) -> tuple[Failure, ...]:
        """In an ``on_failure`` step: why the run has failed."""
        return self._host.errors

    @overload
    async def once(self, name: str, function: Callable[..., Awaitable[OUT]], *args: Any) -> OUT: ...
    @overload
    async def once(self, name: str, function: Callable[..., OUT], *args: Any) -> OUT: ...
    async def once(self, name: str, function: Callable[..., Any], *args: Any) -> Any:
        """Call ``function(*args)`` once in the life of this step of this run, and return its value ever after.

        The value is JSON, and recorded write-once under ``name``. A worker that dies between the call and the record
        calls it again: hand `idempotency_key` to what must not happen twice.

        Raises:
            InvalidOutput: the value cannot be written as JSON.
            PayloadTooLarge: the value is larger than a record may be.
        """
        if not callable(function):
            raise InvalidInput(
                f"once({name!r}) calls a function, and {type(function).__name__} is none: write "
                f"ctx.once({name!r}, function, argument), and not function(argument)"
            )
        return await self._host.once(name, function, *args)

    # --- while it runs

    async def stream(self, chunk: Any) -> None:
        """Store one value for those who read ``run.stream()``, now or later: JSON, or bytes.

        It waits for no reader, and for the broker only where a thousand chunks are under way. Of one step the newest
        10,000 are kept, for a week. An attempt that is made again, or a turn, streams from its beginning anew: readers
        can tell, by ``attempt`` and ``turn``.

        Raises:
            InvalidInput: JSON cannot hold it.
            PayloadTooLarge: it has more than 256 KiB.
        """
        await self._host.voice.chunk(chunk)

    def progress(self, fraction: float, text: str = "") -> None:
        """Tell how far the step is, from 0 to 1, for ``run.progress()``. It never waits; five values a second are kept.

        Raises:
            InvalidInput: the fraction is none.
        """
        self._host.voice.progress(fraction, text)

    def log(self, message: str, *, level: str = "info", **fields: Any) -> None:
        """Keep a line with the run, for ``run.logs()`` and ``jetflow logs``. It never waits.

        What is logged by ``logging`` is kept as well where the worker has ``keep_logs``. Of one attempt 10,000 lines
        are kept; what is too much is dropped, and a line says so.
        """
        self._host.voice.log(level, str(message), fields=fields)

    async def sleep(
        self, duration: float | timedelta | None = None, *, until: datetime | None = None, key: str | None = None
    ) -> None:
        """Sleep for a ``duration`` (seconds), or ``until`` a time, and hold no slot meanwhile.

        The end is fixed when the sleep is first reached: a retry, another worker or a new version of the code sleeps
        for what is left. A short one stays in memory; a longer one leaves no trace in any worker, and the step begins
        from its top when it is over, in any of them. Sleeps are told apart by their duration and their order; ``key``
        names one, where either may change. It is never too short, and too long by a quarter of a second at most.

        Raises:
            InvalidInput: neither or both are given, the duration is negative, or ``until`` has no time zone.
            SleepTooLong: what is stored of the run would not be kept for so long.
        """
        await self._host.sleep(asked_sleep(duration, until, key))

    @overload
    async def wait_for(
        self, condition: Event[T] | Signal[T], *, timeout: float | timedelta | None = None, name: str | None = None
    ) -> Happened[T]: ...
    @overload
    async def wait_for(
        self, condition: AnyOf, *, timeout: float | timedelta | None = None, name: str | None = None
    ) -> Happened[Any]: ...
    @overload
    async def wait_for(
        self, condition: AllOf, *, timeout: float | timedelta | None = None, name: str | None = None
    ) -> list[Happened[Any]]: ...
    async def wait_for(
        self,
        condition: Event[Any] | Signal[Any] | AnyOf | AllOf,
        *,
        timeout: float | timedelta | None = None,
        name: str | None = None,
    ) -> Happened[Any] | list[Happened[Any]]:
        """Wait for an event, a signal, or several of them, and hold nothing meanwhile.

        The earliest one that was stored since the run began is taken, also one that came before it was waited for; the
        next wait for the same goes on behind it. What was taken is recorded, and stays so in later turns and attempts.
        Of `any_of`, the first that comes is returned, and its ``condition`` says which; of `all_of`, all of them in
        their order. The step is parked, and begins from its top when it goes on: `once` is for what must not be done
        twice. Waits are told apart by what they wait for, and by their order; ``name`` names one.

        Raises:
            WaitTimeout: it has not come within ``timeout`` (seconds). That is recorded, too.
            InvalidInput: the payload does not fit its type; or the condition is none.
            PayloadTooLarge: the payload is larger than a record may be.
        """
        seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
        asked = asked_events(condition, self.run_id, timeout=seconds, name=name)
        taken = await self._host.wait_for_events([one.group for one in asked])
        happened = [one.happened(what) for one, what in zip(asked, taken, strict=True)]
        came = [one for one in happened if one is not None]
        if len(came) < len(happened):
            raise WaitTimeout(repr(condition), seconds)
        return came if isinstance(condition, AllOf) else came[0]

    # --- spawning

    @overload
    async def spawn_workflow(
        self,
        child: Workflow[I, O],
        input: I,
        *,
        key: str | None = None,
        detached: bool = False,
        delay: float | timedelta | None = None,
        level: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Child[O]: ...
    @overload
    async def spawn_workflow(
        self,
        child: Workflow[None, O],
        input: None = None,
        *,
        key: str | None = None,
        detached: bool = False,
        delay: float | timedelta | None = None,
        level: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Child[O]: ...
    @overload
    async def spawn_workflow(
        self,
        child: str,
        input: Any = None,
        *,
        key: str | None = None,
        detached: bool = False,
        delay: float | timedelta | None = None,
        level: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Child[Any]: ...
    async def spawn_workflow(
        self,
        child: Workflow[Any, Any] | str,
        input: Any = None,
        *,
        key: str | None = None,
        detached: bool = False,
        delay: float | timedelta | None = None,
        level: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Child[Any]:
        """Spawn one child run, or attach to the one that this run has spawned with the same key or input.

        A ``detached`` child belongs to nobody's join and survives its parent: it is a root run of its own, to be
        followed by ``client.run(child.id)``. With a ``delay`` (seconds) it begins so long after it is first spawned.
        ``level`` is how urgent it is, one of the child's levels; else it is that of its parent.
        Its ``ctx.metadata`` are this run's, and in their place the ``metadata`` given here; they are no part of what
        it is: one that exists has what it was first spawned with.

        Raises:
            InvalidInput: the input does not fit the child's type.
            UnknownWorkflow: nobody has declared a workflow of this name.
            UnknownLevel: the child's workflow does not declare the level.
            KeyConflict: the key was used with another input.
            DepthExceeded: the child would be nested too deep.
            PayloadTooLarge: the input is larger than the server accepts.
        """
        later = None if delay is None else seconds_of(delay, "the delay of a child")
        group = await self._host.spawn_one(child, input, key, detached, later, level, told_of(metadata, several=False))
        return Child(self._host, bytes(group.ids), group.workflow, group.codec, detached=detached)

    @overload
    async def spawn_workflows(
        self,
        child: Workflow[I, O],
        inputs: Iterable[I] | AsyncIterable[I],
        *,
        key: Callable[[I], str] | None = None,
        delay: float | timedelta | None = None,
        level: str | None = None,
        metadata: Mapping[str, Any] | Callable[[I], Mapping[str, Any]] | None = None,
    ) -> Children[O]: ...
    @overload
    async def spawn_workflows(
        self,
        child: str,
        inputs: Iterable[Any] | AsyncIterable[Any],
        *,
        key: Callable[[Any], str] | None = None,
        delay: float | timedelta | None = None,
        level: str | None = None,
        metadata: Mapping[str, Any] | Callable[[Any], Mapping[str, Any]] | None = None,
    ) -> Children[Any]: ...
    async def spawn_workflows(
        self,
        child: Workflow[Any, Any] | str,
        inputs: Iterable[Any] | AsyncIterable[Any],
        *,
        key: Callable[[Any], str] | None = None,
        delay: float | timedelta | None = None,
        level: str | None = None,
        metadata: Mapping[str, Any] | Callable[[Any], Mapping[str, Any]] | None = None,
    ) -> Children[Any]:
        """Spawn one child run for each input, in bulk. The inputs are taken as they come, and not kept.

        With a ``delay`` (seconds) all of them begin so long after they are first spawned; all have the same
        ``level``. ``metadata`` are for all of
        them, beside this run's; or a function of the input tells those of each.
        It raises what `spawn_workflow` raises. Children spawned before the error stay, and are attached to by a retry.
        """
        check_bulk(inputs, key, call="spawn_workflows", for_one="spawn_workflow")
        later = None if delay is None else seconds_of(delay, "the delay of children")
        told = told_of(metadata, several=True)
        return Children(self._host, await self._host.spawn(child, inputs, key, later, level, told))

    @overload
    async def spawn_stream(
        self,
        child: Workflow[I, Any],
        source: Iterable[I] | AsyncIterable[I] | Callable[[Any], Iterable[I] | AsyncIterable[I]],
        **how: Unpack[Windowed[I]],
    ) -> Streamed: ...
    @overload
    async def spawn_stream(
        self,
        child: str,
        source: Iterable[Any] | AsyncIterable[Any] | Callable[[Any], Iterable[Any] | AsyncIterable[Any]],
        **how: Unpack[Windowed[Any]],
    ) -> Streamed: ...
    async def spawn_stream(
        self,
        child: Workflow[Any, Any] | str,
        source: Iterable[Any] | AsyncIterable[Any] | Callable[[Any], Iterable[Any] | AsyncIterable[Any]],
        **how: Unpack[Windowed[Any]],
    ) -> Streamed:
        """Spawn a child run for each input of a source, with at most ``window`` of them open, and wait for all.

        An input is taken when there is room for its child, and nothing is kept of one that has ended, so a source may
        be endless. A retry, or a later turn, goes on where the stream was: what a list or a generator has given before
        is skipped, so it must give the same each time; a source that is a function is called with the ``position`` of
        the last input that was taken (None at first), which is JSON. ``budget`` ends the stream when the tree of the
        run has so many descendants, by about as much as others spawn meanwhile. Streams of a step are told apart by
        their workflow and their order, or by ``name``. Equal inputs are one child; they count as often as they come.
        ``metadata`` are for all of them, beside this run's; or a function of the input tells those of each.

        Without a policy a child that failed is raised at the end; with one, `Streamed` tells. Under ``fail_fast()`` the
        first failure ends the stream, and what is open is cancelled.

        Raises:
            ChildrenFailed: children failed; it holds the first ones.
            SourceChanged: the source gave other inputs to an attempt before.
            InvalidInput: an input does not fit the child's type; or what is asked for cannot be done.
        """
        streamed, failed = await spawn_stream(self._host, self._streams, child, source, **how)
        if streamed.failed and how.get("policy") is None:
            raise await self._children_failed(streamed, failed)
        return streamed

    @overload
    async def reduce(
        self,
        child: Workflow[I, O],
        source: Iterable[I] | AsyncIterable[I] | Callable[[Any], Iterable[I] | AsyncIterable[I]],
        function: Callable[[T, O], T | Awaitable[T]],
        initial: T,
        **how: Unpack[Windowed[I]],
    ) -> T: ...
    @overload
    async def reduce(
        self,
        child: str,
        source: Iterable[Any] | AsyncIterable[Any] | Callable[[Any], Iterable[Any] | AsyncIterable[Any]],
        function: Callable[[T, Any], T | Awaitable[T]],
        initial: T,
        **how: Unpack[Windowed[Any]],
    ) -> T: ...
    async def reduce(
        self,
        child: Workflow[Any, Any] | str,
        source: Iterable[Any] | AsyncIterable[Any] | Callable[[Any], Iterable[Any] | AsyncIterable[Any]],
        function: Callable[[Any, Any], Any],
        initial: Any,
        **how: Unpack[Windowed[Any]],
    ) -> Any:
        """Spawn as `spawn_stream` does, and fold the children's outputs: ``value = function(value, output)``.

        Each output is in the result once, whatever crashes. What was folded is kept with the stream's position, so the
        value is JSON, or a Struct, and small; a crash folds anew what has ended since then, a window's children or 500.
        They come in the order in which they are heard of: the function must not depend on it. Children that fail are
        not folded, and raised at the end, unless the ``policy`` allows them.

        Raises:
            ChildrenFailed: more children failed than the policy allows; without one, any.
            InvalidOutput: an output does not fit its type, or the value cannot be written as JSON.
            SourceChanged: the source gave other inputs to an attempt before.
            InvalidInput: an input does not fit the child's type; or what is asked for cannot be done.
        """
        if not callable(function):
            raise InvalidInput(f"reduce folds by a function of the value and an output, and not by {function!r}")
        fold = Fold(function, initial)
        streamed, failed = await spawn_stream(self._host, self._streams, child, source, fold=fold, **how)
        if not streamed.met:
            raise await self._children_failed(streamed, failed)
        return fold.value

    async def _children_failed(self, streamed: Streamed, failed: ChildGroup) -> ChildrenFailed:
        ids = list(split_ids(bytes(failed.ids)))
        outcomes = await self._host.wait_for(ids)
        errors = [child_failed(id.hex(), one) for id, one in zip(ids, outcomes, strict=True)]
        first = str(errors[0])[:LONGEST_CAUSE]
        return ChildrenFailed(f"{streamed.failed} of {streamed.spawned} children failed, first {first}", errors)

    # --- joining

    @overload
    async def join(self, children: Children[O] | Iterable[Child[O]], *, hedge: Hedge | None = None) -> list[O]: ...
    @overload
    async def join(
        self, children: Children[O] | Iterable[Child[O]], *, return_exceptions: bool, hedge: Hedge | None = None
    ) -> list[O | ChildFailed]: ...
    @overload
    async def join(
        self, children: Children[O] | Iterable[Child[O]], *, policy: JoinPolicy, hedge: Hedge | None = None
    ) -> JoinResult[O]: ...
    @overload
    async def join(
        self, children: None = None, *, return_exceptions: bool = False, hedge: Hedge | None = None
    ) -> list[Any]: ...
    @overload
    async def join(
        self, children: None = None, *, policy: JoinPolicy, hedge: Hedge | None = None
    ) -> JoinResult[Any]: ...
    async def join(
        self,
        children: Children[Any] | Iterable[Child[Any]] | None = None,
        *,
        return_exceptions: bool = False,
        policy: JoinPolicy | None = None,
        hedge: Hedge | None = None,
    ) -> list[Any] | JoinResult[Any]:
        """Wait for children, all that this step has spawned by default, and return their outputs in spawn order.

        The step's slot is given back while it waits. With ``return_exceptions`` a child that failed stands in the
        list as its ChildFailed. With a ``policy`` a JoinResult is returned, which separates the children by how they
        ended; nothing is raised for those that failed. With ``hedge`` those that run far longer than their siblings did
        get twins: the same step is run a second time beside the first, and what succeeds first counts. Their workflows
        end by a step that is declared ``idempotent=True``.

        Raises:
            ChildrenFailed: at least one child failed, once all have ended.
            NothingToHedge: with ``hedge``, the workflow of a child has no such step, or has limits.
        """
        groups = self._host.spawned() if children is None else groups_of(children)
        if hedge is None:
            return await self._join(groups, return_exceptions, policy)
        async with self._host.hedged(groups, hedge):
            return await self._join(groups, return_exceptions, policy)

    async def _join(
        self, groups: list[ChildGroup], return_exceptions: bool, policy: JoinPolicy | None
    ) -> list[Any] | JoinResult[Any]:
        ids = [child for group in groups for child in split_ids(bytes(group.ids))]
        codecs = [group.codec for group in groups for _ in range(len(group.ids) // ID_BYTES)]
        if policy is not None:
            return await self._decide(ids, codecs, policy)
        outcomes = await self._host.wait_for(ids)
        results: list[Any] = []
        failed: dict[bytes, ChildFailed] = {}
        outcomes.reverse()
        for child, codec in zip(ids, codecs, strict=True):
            try:
                results.append(output_of(child.hex(), outcomes.pop(), codec))  # its JSON is not needed any more
            except ChildFailed as error:
                results.append(failed.setdefault(child, error))
        if failed and not return_exceptions:
            errors = list(failed.values())
            first = str(errors[0])[:LONGEST_CAUSE]
            raise ChildrenFailed(f"{len(failed)} of {len(ids)} children failed, first {first}", errors)
        return results

    async def _decide(self, ids: list[bytes], codecs: list[Codec[Any]], policy: JoinPolicy) -> JoinResult[Any]:
        decision = await self._host.decide(ids, policy)
        results = [
            ChildResult[Any](child.hex(), decision.ended[child], codec)
            for child, codec in dict(zip(ids, codecs, strict=True)).items()
            if child in decision.ended
        ]
        ended = JoinResult(
            results, [child.hex() for child in dict.fromkeys(ids) if child in decision.open], met=decision.met
        )
        succeeded = len(ended.succeeded)
        if decision.met and succeeded < sum(one.status == "succeeded" for one in decision.ended.values()):
            ended.met = policy.verdict(len(results), succeeded, len(results)) == "met"  # some cannot be read
        return ended

    async def as_completed(self, children: Children[O] | Iterable[Child[O]]) -> AsyncIterator[Child[O]]:
        """Yield children as they end; ``await child.result()`` then returns at once."""
        waiting: dict[bytes, Child[O]] = {bytes.fromhex(child.id): child for child in children}
        async with aclosing(self._host.as_they_end(set(waiting))) as those_that_end:
            async for ended in those_that_end:
                yield waiting.pop(ended)

    def block_on(self, awaitable: Awaitable[OUT]) -> OUT:
        """In a plain ``def`` step: run ``awaitable`` on the worker's loop, and wait for its result.

        In a process it runs on an event loop there.

        Raises:
            RuntimeError: called on the event loop, where it would block for ever; use ``await`` there.
        """
        return self._host.block_on(awaitable)


def asked_sleep(duration: float | timedelta | None, until: datetime | None, key: str | None) -> Sleep:
    """Return what is asked of `Context.sleep`.

    Raises:
        InvalidInput: it cannot be slept.
    """
    seconds = None if duration is None else seconds_of(duration, "what ctx.sleep takes")
    return checked_sleep(seconds, None if until is None else timestamp_of(until, "ctx.sleep(until=...)"), key)


def check_bulk(inputs: Any, key: Any, *, call: str, for_one: str) -> None:
    """Refuse what is no list of inputs, or a key for all of them. ``for_one`` is the call that takes one input.

    Raises:
        InvalidInput: it is one of these.
    """
    if key is not None and not callable(key):
        raise InvalidInput(
            f"the key of {call} is a function of the input, such as key=lambda x: x.id, not {key!r}: "
            f"one key for all would make one of them; a str is for {for_one}"
        )
    if isinstance(inputs, str | bytes) or not any(hasattr(inputs, how) for how in _ITERATED):
        raise InvalidInput(
            f"the inputs of {call} are a list or the like, not one {type(inputs).__name__}: {for_one} takes one"
        )
