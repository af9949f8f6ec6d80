"""Child runs as a step sees them: while they run, and how they ended."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterable, Iterator, Sequence
from typing import Any, Generic, Literal, Protocol, TypeVar, overload

import msgspec

from jetflow.engine.joins import ID_BYTES, split_ids
from jetflow.engine.tasks import Failure, Outcome, Status
from jetflow.errors import ChildFailed, InvalidInput, InvalidOutput, StepFailed
from jetflow.wire.codec import Codec

O_co = TypeVar("O_co", covariant=True)


class Waiter(Protocol):
    """Waits for children; given by whoever runs the step."""

    def wait_for(self, ids: Sequence[bytes]) -> Awaitable[list[Outcome]]:
        """Wait for all of them."""
        ...


class ChildGroup:
    """Children that were spawned in one call: their ids, 16 bytes each, and how to read their outputs."""

    __slots__ = ("codec", "ids", "keyed", "workflow")

    def __init__(self, workflow: str, codec: Codec[Any], ids: bytearray, *, keyed: bool = True) -> None:
        self.workflow: str = workflow
        self.codec: Codec[Any] = codec
        self.ids: bytearray = ids
        self.keyed: bool = keyed


class Child(Generic[O_co]):
    """A child run that this step has spawned, or found spawned."""

    __slots__ = ("_codec", "_detached", "_host", "_id", "workflow")

    def __init__(self, host: Waiter, id: bytes, workflow: str, codec: Codec[Any], *, detached: bool = False) -> None:
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
        if self._detached:
            _ = self.group  # which says why not
        [outcome] = await self._host.wait_for([self._id])
        return output_of(self.id, outcome, self._codec)


class Children(Sequence[Child[O_co]], Generic[O_co]):
    """Children spawned in bulk, in the order of their inputs. Kept at 16 bytes each."""

    def __init__(self, host: Waiter, group: ChildGroup) -> None:
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
    """How a child of an earlier step ended.

    One whose output does not fit the type that is asked for counts as failed; it is read when it is first asked for.
    """

    __slots__ = ("_codec", "_outcome", "_output", "id")

    def __init__(self, id: str, outcome: Outcome, codec: Codec[Any]) -> None:
        self.id: str = id
        self._outcome = outcome
        self._codec: Codec[Any] | None = codec
        self._output: Any = None

    def _read(self) -> Outcome:
        """Return the outcome, with its output read once."""
        if self._codec is not None:
            codec, self._codec = self._codec, None
            if self._outcome.status == "succeeded":
                try:
                    self._output = codec.decode_output(self._outcome.output)
                except InvalidOutput as error:
                    self._outcome = self._outcome.unreadable("InvalidOutput", str(error))
        return self._outcome

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
        return self._read().status

    @property
    def error(self) -> Failure | None:
        """Why the child ended without an output."""
        return self._read().error

    @property
    def output(self) -> O_co:
        """The child's output.

        Raises:
            ChildFailed: the child ended without one, or with one that does not fit the type that is asked for.
        """
        outcome = self._read()
        if outcome.status != "succeeded":
            raise child_failed(self.id, outcome)
        return self._output


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


class Streamed(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a stream of children: how many were spawned, and how many of them ``failed``.

    ``stopped`` tells why there were no more: the ``source`` had ended, the ``budget`` was used up, or a ``failure``
    has decided. ``met`` tells whether the policy was. ``failures`` holds the ids of the first children that failed.
    """

    spawned: int
    failed: int = 0
    met: bool = True
    stopped: Literal["source", "budget", "failure"] = "source"
    failures: tuple[str, ...] = ()

    @property
    def succeeded(self) -> int:
        """How many succeeded."""
        return self.spawned - self.failed


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


def output_of(child: str, outcome: Outcome, codec: Codec[Any]) -> Any:
    """Return the output of a child's outcome.

    Raises:
        ChildFailed: it has none, or one that does not fit the type that is asked for.
    """
    if outcome.status == "succeeded":
        try:
            return codec.decode_output(outcome.output)
        except InvalidOutput as error:
            raise child_failed(child, outcome.unreadable("InvalidOutput", str(error))) from error
    raise child_failed(child, outcome)


def child_failed(child: str, outcome: Outcome) -> ChildFailed:
    """Return the error of a child that ended without an output."""
    return ChildFailed(child, outcome.workflow, status=outcome.status, errors=errors_of(outcome), key=outcome.key)


def errors_of(outcome: Outcome) -> list[StepFailed]:
    """Return every error that an outcome without an output tells."""
    failures = outcome.failures or (Failure("Cancelled", "the run was cancelled"),)
    return [
        StepFailed(error.step or outcome.step or None, error.type, error.message, error.traceback) for error in failures
    ]


def groups_of(children: Children[Any] | Iterable[Child[Any]]) -> list[ChildGroup]:
    """Return children as groups.

    Raises:
        InvalidInput: it is a single child.
    """
    if isinstance(children, Children):
        return [children.group]
    if isinstance(children, Child):
        raise InvalidInput(f"a join takes several children: put {children!r} into a list, or await its result()")
    return [child.group for child in children]
