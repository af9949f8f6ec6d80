"""What a running step sees: its run, what came before it, and its children."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Generator, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, overload

import msgspec

from jetflow.engine.joins import ID_BYTES, split_ids
from jetflow.engine.policies import JoinPolicy
from jetflow.engine.tasks import Failure, Outcome, Status
from jetflow.errors import ChildFailed, ChildrenFailed
from jetflow.wire.codec import ANY, Codec
from jetflow.workflow import Step, Workflow

if TYPE_CHECKING:
    from collections.abc import Mapping

I = TypeVar("I")  # noqa: E741 - the input of a workflow, as O is its output
O = TypeVar("O")  # noqa: E741
O_co = TypeVar("O_co", covariant=True)
OUT = TypeVar("OUT")


class ChildGroup:
    """Children that were spawned in one call: their ids, 16 bytes each, and how to read their outputs."""

    __slots__ = ("codec", "ids", "workflow")

    def __init__(self, workflow: str, codec: Codec[Any], ids: bytearray) -> None:
        self.workflow: str = workflow
        self.codec: Codec[Any] = codec
        self.ids: bytearray = ids


class Decided(Protocol):
    """How a policy was decided."""

    @property
    def ended(self) -> dict[bytes, Outcome]:
        """How those have ended that have."""
        ...

    @property
    def open(self) -> set[bytes]:
        """Those that have not."""
        ...

    @property
    def met(self) -> bool:
        """Whether the policy was met."""
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

    def output(self, step: str) -> msgspec.Raw:
        """The stored output of a step."""
        ...

    def children(self, step: str) -> AsyncIterator[list[tuple[str, Outcome]]]:
        """Pages of how a step's children ended."""
        ...

    async def spawn(
        self,
        workflow: Workflow[Any, Any] | str,
        inputs: Iterable[Any] | AsyncIterable[Any],
        key: Callable[[Any], str] | None,
    ) -> ChildGroup:
        """Spawn a child for each input."""
        ...

    async def spawn_one(
        self, workflow: Workflow[Any, Any] | str, input: Any, key: str | None, detached: bool
    ) -> ChildGroup:
        """Spawn one child."""
        ...

    def spawned(self) -> list[ChildGroup]:
        """All that this step has spawned."""
        ...

    async def wait_for(self, ids: Sequence[bytes]) -> list[Outcome]:
        """Wait for all of them."""
        ...

    @property
    def cancelled(self) -> bool:
        """Whether the run is cancelled."""
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

    async def wait_for_some(self, ids: set[bytes]) -> list[bytes]:
        """Wait for at least one, and return those that have ended."""
        ...

    def block_on(self, awaitable: Awaitable[Any]) -> Any:
        """Run on the loop, from a thread."""
        ...


class Child(Generic[O_co]):
    """A child run that this step has spawned, or found spawned."""

    __slots__ = ("_codec", "_detached", "_host", "_id", "workflow")

    def __init__(self, host: StepHost, id: bytes, workflow: str, codec: Codec[Any], *, detached: bool = False) -> None:
        self._detached = detached
        self._host = host
        self._id = id
        self._codec = codec
        self.workflow: str = workflow

    @property
    def id(self) -> str:
        """The child's run id."""
        return self._id.hex()

    @property
    def group(self) -> ChildGroup:
        """The child as a group of one.

        Raises:
            ValueError: the child is detached, and belongs to no join.
        """
        if self._detached:
            raise ValueError(f"child {self.id} is detached and cannot be joined: follow it by client.run(id)")
        return ChildGroup(self.workflow, self._codec, bytearray(self._id))

    def __repr__(self) -> str:
        return f"<Child {self.id} of {self.workflow!r}>"

    async def result(self) -> O_co:
        """Wait for the child to end, and return its output. The step's slot is given back while it waits.

        Raises:
            ChildFailed: the child ended without an output.
        """
        [outcome] = await self._host.wait_for([bytes(self.group.ids)])
        return output_of(self.id, outcome, self._codec)


class Children(Sequence[Child[O_co]], Generic[O_co]):
    """Children spawned in bulk, in the order of their inputs. Kept at 16 bytes each."""

    def __init__(self, host: StepHost, group: ChildGroup) -> None:
        self._host = host
        self._group = group

    @property
    def group(self) -> ChildGroup:
        """The packed ids."""
        return self._group

    def __len__(self) -> int:
        return len(self._group.ids) // ID_BYTES

    @overload
    def __getitem__(self, index: int) -> Child[O_co]: ...
    @overload
    def __getitem__(self, index: slice) -> Children[O_co]: ...
    def __getitem__(self, index: int | slice) -> Child[O_co] | Children[O_co]:
        if isinstance(index, slice):
            picked = range(len(self))[index]
            ids = bytearray(b"".join(self._group.ids[at * ID_BYTES : (at + 1) * ID_BYTES] for at in picked))
            return Children(self._host, ChildGroup(self._group.workflow, self._group.codec, ids))
        at = range(len(self))[index] * ID_BYTES
        return self._child(bytes(self._group.ids[at : at + ID_BYTES]))

    def __iter__(self) -> Iterator[Child[O_co]]:
        return (self._child(child) for child in split_ids(bytes(self._group.ids)))

    def __repr__(self) -> str:
        return f"<{len(self)} Children of {self._group.workflow!r}>"

    def _child(self, id: bytes) -> Child[O_co]:
        return Child(self._host, id, self._group.workflow, self._group.codec)


class ChildResult(Generic[O_co]):
    """How a child of an earlier step ended."""

    __slots__ = ("_codec", "_outcome", "id")

    def __init__(self, id: str, outcome: Outcome, codec: Codec[Any]) -> None:
        self.id: str = id
        self._outcome = outcome
        self._codec = codec

    def __repr__(self) -> str:
        return f"<ChildResult {self.id} of {self.workflow!r}: {self.status}>"

    @property
    def workflow(self) -> str:
        """The child's workflow."""
        return self._outcome.workflow

    @property
    def key(self) -> str | None:
        """The key that the child was spawned with."""
        return self._outcome.key

    @property
    def status(self) -> Status:
        """How the child ended."""
        return self._outcome.status

    @property
    def error(self) -> Failure | None:
        """Why the child ended without an output."""
        return self._outcome.error

    @property
    def output(self) -> O_co:
        """The child's output.

        Raises:
            ChildFailed: the child ended without one.
        """
        return output_of(self.id, self._outcome, self._codec)


class JoinResult(Generic[O_co]):
    """How a join under a policy was decided, with its children by how they ended, in spawn order.

    ``met`` tells whether the policy was; ``open`` holds the ids of the children that had not ended.
    """

    def __init__(self, children: Sequence[ChildResult[O_co]], open: Sequence[str], *, met: bool) -> None:
        self.met = met
        self.open: tuple[str, ...] = tuple(open)
        self.succeeded: tuple[ChildResult[O_co], ...] = self._with("succeeded", children)
        self.failed: tuple[ChildResult[O_co], ...] = self._with("failed", children)
        self.cancelled: tuple[ChildResult[O_co], ...] = self._with("cancelled", children)
        self.timed_out: tuple[ChildResult[O_co], ...] = self._with("timed_out", children)

    @staticmethod
    def _with(status: Status, children: Sequence[ChildResult[O_co]]) -> tuple[ChildResult[O_co], ...]:
        return tuple(child for child in children if child.status == status)

    def __repr__(self) -> str:
        return (
            f"<JoinResult {'met' if self.met else 'missed'}: {len(self.succeeded)} succeeded, "
            f"{len(self.failed)} failed, {len(self.cancelled)} cancelled, {len(self.timed_out)} timed out, "
            f"{len(self.open)} open>"
        )

    @property
    def outputs(self) -> list[O_co]:
        """The outputs of the children that succeeded."""
        return [child.output for child in self.succeeded]


class ChildResults(Generic[O_co]):
    """The children of an earlier step, in the order in which they ended.

    ``async for`` reads them page by page; ``await`` collects them into a list.
    """

    def __init__(self, pages: Callable[[], AsyncIterator[list[tuple[str, Outcome]]]], codec: Codec[Any]) -> None:
        self._pages = pages
        self._codec = codec

    async def __aiter__(self) -> AsyncIterator[ChildResult[O_co]]:
        async for page in self._pages():
            for child, outcome in page:
                yield ChildResult(child, outcome, self._codec)

    def __await__(self) -> Generator[Any, None, list[ChildResult[O_co]]]:
        return self._collect().__await__()

    async def _collect(self) -> list[ChildResult[O_co]]:
        return [child async for child in self]


class Context:
    """What a running step sees of its run, and how it spawns and joins children.

    In a step that is a plain ``def`` (run in a thread), wrap what has to be awaited in `block_on`.
    """

    __jetflow_context__ = True

    def __init__(self, host: StepHost) -> None:
        self._host = host

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
        """What was given to the root run when it was triggered; every descendant sees the same."""
        return self._host.metadata

    @overload
    def output(self, step: Step[..., Any, OUT]) -> OUT: ...
    @overload
    def output(self, step: str) -> Any: ...
    def output(self, step: Step[..., Any, Any] | str) -> Any:
        """Return the output of a step that comes before this one.

        Raises:
            LookupError: ``step`` does not come before this one.
            InvalidInput: the stored output does not fit the step's type.
        """
        if isinstance(step, Step):
            return step.output.decode(self._host.output(step.name))
        return msgspec.json.decode(self._host.output(step))

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
        """Whether the run was cancelled: for steps that run in a thread, which no exception can interrupt."""
        return self._host.cancelled

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
        return await self._host.once(name, function, *args)

    # --- spawning

    @overload
    async def spawn_workflow(
        self, child: Workflow[I, O], input: I, *, key: str | None = None, detached: bool = False
    ) -> Child[O]: ...
    @overload
    async def spawn_workflow(
        self, child: Workflow[Any, O], input: None = None, *, key: str | None = None, detached: bool = False
    ) -> Child[O]: ...
    @overload
    async def spawn_workflow(
        self, child: str, input: Any = None, *, key: str | None = None, detached: bool = False
    ) -> Child[Any]: ...
    async def spawn_workflow(
        self, child: Workflow[Any, Any] | str, input: Any = None, *, key: str | None = None, detached: bool = False
    ) -> Child[Any]:
        """Spawn one child run, or attach to the one that this run has spawned with the same key or input.

        A ``detached`` child belongs to nobody's join and survives its parent: it is a root run of its own, to be
        followed by ``client.run(child.id)``.

        Raises:
            InvalidInput: the input does not fit the child's type.
            UnknownWorkflow: nobody has declared a workflow of this name.
            KeyConflict: the key was used with another input.
            DepthExceeded: the child would be nested too deep.
            PayloadTooLarge: the input is larger than the server accepts.
        """
        group = await self._host.spawn_one(child, input, key, detached)
        return Child(self._host, bytes(group.ids), group.workflow, group.codec, detached=detached)

    @overload
    async def spawn_workflows(
        self, child: Workflow[I, O], inputs: Iterable[I] | AsyncIterable[I], *, key: Callable[[I], str] | None = None
    ) -> Children[O]: ...
    @overload
    async def spawn_workflows(
        self, child: str, inputs: Iterable[Any] | AsyncIterable[Any], *, key: Callable[[Any], str] | None = None
    ) -> Children[Any]: ...
    async def spawn_workflows(
        self,
        child: Workflow[Any, Any] | str,
        inputs: Iterable[Any] | AsyncIterable[Any],
        *,
        key: Callable[[Any], str] | None = None,
    ) -> Children[Any]:
        """Spawn one child run for each input, in bulk. The inputs are taken as they come, and not kept.

        Raises:
            The same as `spawn_workflow`. Children spawned before the error stay, and are attached to by a retry.
        """
        return Children(self._host, await self._host.spawn(child, inputs, key))

    # --- joining

    @overload
    async def join(self, children: Children[O] | Iterable[Child[O]]) -> list[O]: ...
    @overload
    async def join(
        self, children: Children[O] | Iterable[Child[O]], *, return_exceptions: bool
    ) -> list[O | ChildFailed]: ...
    @overload
    async def join(self, children: Children[O] | Iterable[Child[O]], *, policy: JoinPolicy) -> JoinResult[O]: ...
    @overload
    async def join(self, children: None = None, *, return_exceptions: bool = False) -> list[Any]: ...
    @overload
    async def join(self, children: None = None, *, policy: JoinPolicy) -> JoinResult[Any]: ...
    async def join(
        self,
        children: Children[Any] | Iterable[Child[Any]] | None = None,
        *,
        return_exceptions: bool = False,
        policy: JoinPolicy | None = None,
    ) -> list[Any] | JoinResult[Any]:
        """Wait for children, all that this step has spawned by default, and return their outputs in spawn order.

        The step's slot is given back while it waits. With ``return_exceptions`` a child that failed stands in the
        list as its ChildFailed. With a ``policy`` a JoinResult is returned, which separates the children by how they
        ended; nothing is raised for those that failed.

        Raises:
            ChildrenFailed: at least one child failed, once all have ended.
        """
        groups = self._host.spawned() if children is None else _groups(children)
        ids = [child for group in groups for child in split_ids(bytes(group.ids))]
        codecs = [group.codec for group in groups for _ in range(len(group.ids) // ID_BYTES)]
        if policy is not None:
            return await self._decide(ids, codecs, policy)
        outcomes = await self._host.wait_for(ids)
        results: list[Any] = []
        failed: dict[bytes, ChildFailed] = {}
        for child, outcome, codec in zip(ids, outcomes, codecs, strict=True):
            try:
                results.append(output_of(child.hex(), outcome, codec))
            except ChildFailed as error:
                results.append(failed.setdefault(child, error))
        if failed and not return_exceptions:
            raise ChildrenFailed(f"{len(failed)} of {len(ids)} children failed", list(failed.values()))
        return results

    async def _decide(self, ids: list[bytes], codecs: list[Codec[Any]], policy: JoinPolicy) -> JoinResult[Any]:
        decision = await self._host.decide(ids, policy)
        results = [
            ChildResult[Any](child.hex(), decision.ended[child], codec)
            for child, codec in dict(zip(ids, codecs, strict=True)).items()
            if child in decision.ended
        ]
        return JoinResult(
            results, [child.hex() for child in dict.fromkeys(ids) if child in decision.open], met=decision.met
        )

    async def as_completed(self, children: Children[O] | Iterable[Child[O]]) -> AsyncIterator[Child[O]]:
        """Yield children as they end; ``await child.result()`` then returns at once."""
        waiting: dict[bytes, Child[O]] = {bytes.fromhex(child.id): child for child in children}
        while waiting:
            for ended in await self._host.wait_for_some(set(waiting)):
                yield waiting.pop(ended)

    def block_on(self, awaitable: Awaitable[OUT]) -> OUT:
        """In a step that runs in a thread: run ``awaitable`` on the worker's loop, and wait for its result.

        Raises:
            RuntimeError: called on the event loop, where it would block for ever; use ``await`` there.
        """
        return self._host.block_on(awaitable)


def output_of(child: str, outcome: Outcome, codec: Codec[Any]) -> Any:
    """Return the output of a child's outcome.

    Raises:
        ChildFailed: it has none.
    """
    if outcome.status == "succeeded":
        return codec.decode(outcome.output)
    error = outcome.error or Failure("Cancelled", "the run was cancelled")
    raise ChildFailed(
        child,
        outcome.workflow,
        key=outcome.key,
        status=outcome.status,
        step=error.step or outcome.step or None,
        error_type=error.type,
        error_message=error.message,
        traceback=error.traceback,
    )


def _groups(children: Children[Any] | Iterable[Child[Any]]) -> list[ChildGroup]:
    if isinstance(children, Children):
        return [children.group]
    return [child.group for child in children]
