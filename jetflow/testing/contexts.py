"""A context for calling one step directly: it records what the step does, and gives what the test says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from jetflow.context import Context
from jetflow.engine.tasks import Failure
from jetflow.testing.fakes import FakeHost, Spawned
from jetflow.workflow import Step, Workflow


class TestedContext(Context):
    """The context of a step that a test calls, with what the step has done to it. Made by `context`."""

    __test__ = False  # it is no test, whatever pytest thinks of its name

    def __init__(self, host: FakeHost) -> None:
        super().__init__(host)
        self._fake = host

    @property
    def spawned(self) -> list[Spawned]:
        """The children that the step has spawned, each once, in order."""
        return list(self._fake.children_spawned.values())

    @property
    def recorded(self) -> dict[str, Any]:
        """What `once` has recorded, by name."""
        return dict(self._fake.recorded)

    @property
    def streamed(self) -> list[Any]:
        """The chunks that the step has streamed, in order."""
        return list(self._fake.voice.chunks)

    @property
    def told(self) -> list[tuple[float, str]]:
        """What it has told of its progress, in order."""
        return list(self._fake.voice.values)

    @property
    def logged(self) -> list[str]:
        """The messages that it has kept by ``ctx.log``, in order."""
        return list(self._fake.voice.lines)

    @property
    def slept(self) -> list[float | datetime]:
        """What the step has slept, in order: seconds, or until when. In a test it is over at once."""
        return [
            datetime.fromtimestamp(one.until, UTC) if one.until is not None else one.seconds or 0.0
            for one in self._fake.slept
        ]

    @property
    def extended(self) -> list[float]:
        """By how many seconds the step has extended its timeout, in order."""
        return list(self._fake.steering.seconds)

    @property
    def has_released_slot(self) -> bool:
        """Whether it goes on without a slot."""
        return self._fake.steering.has_released

    @property
    def has_cancelled(self) -> bool:
        """Whether it has cancelled its run: then it has ended by ``asyncio.CancelledError``."""
        return self._fake.steering.is_cancelled

    def set_cancelled(self) -> None:
        """Have ``ctx.cancelled`` be true from now on."""
        self._fake.is_void = True


def context(
    *,
    results: Mapping[Workflow[Any, Any] | str, Any] | None = None,
    outputs: Mapping[Step[..., Any, Any] | str, Any] | None = None,
    children: Mapping[Step[..., Any, Any] | str, Sequence[Any]] | None = None,
    metadata: Mapping[str, Any] | None = None,
    level: str | None = None,
    attempt: int = 1,
    run_id: str | None = None,
    errors: Sequence[Failure | BaseException] = (),
    once: Mapping[str, Any] | None = None,
    events: Sequence[tuple[Any, ...]] = (),
    skipped: Iterable[Step[..., Any, Any] | str] = (),
) -> TestedContext:
    """Return a context for calling one step, without a broker: ``await scan(Tree("."), jetflow.testing.context())``.

    Everything that travels is written as JSON and read again, as in a real run: a type that does not fit is refused.

    - ``results``: how children end, by their workflow: a function of the input, called for each child, or else the
      output of all of them. What the function raises fails the child, and so does an exception in its place. A child
      that is waited for, and has no result here, is a LookupError.
    - ``outputs``: the outputs of the steps before, for ``ctx.output``; ``skipped``: those that have none.
    - ``children``: the outputs of children that an earlier step has spawned, for ``ctx.children``; an exception stands
      for one that failed.
    - ``metadata``, ``level``, ``attempt``, ``run_id``, ``errors`` (of a step on failure): what the context tells of
      them.
    - ``events``: what comes for ``ctx.wait_for``, in order: ``(topic, payload)``, ``(topic, payload, key)``, or a
      ``Signal`` in the place of the topic. A wait that ends by a time ends by it where none of them fits.
    - ``once``: values that an earlier attempt has recorded.

    All children end when they are first waited for: a join policy that is decided before sees them all ended, and its
    time limit never passes.

    Raises:
        InvalidInput, InvalidOutput: a canned value does not fit its type.
    """
    return TestedContext(
        FakeHost(
            results={_name(workflow): result for workflow, result in (results or {}).items()},
            outputs=outputs or {},
            children=children or {},
            metadata=metadata,
            level=level,
            attempt=attempt,
            run_id=run_id or uuid4().hex,
            errors=errors,
            once=once or {},
            events=events,
            skipped=skipped,
        )
    )


def _name(workflow: Workflow[Any, Any] | str) -> str:
    return workflow if isinstance(workflow, str) else workflow.name
