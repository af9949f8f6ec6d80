"""Errors of what is declared, given and asked for: names, values, runs and their keys."""

from __future__ import annotations

from collections.abc import Sequence

from jetflow.errors.root import JetflowError


class InvalidDeclaration(JetflowError, ValueError):
    """A workflow or step was declared wrongly: a bad name, a cycle, an unknown upstream step, a bad type."""


class InvalidName(InvalidDeclaration):
    """A name does not fit the token rule ``[A-Za-z0-9][A-Za-z0-9_-]{0,63}``."""

    def __init__(self, what: str, name: object) -> None:
        shown = repr(name)
        if len(shown) > 80:
            shown = f"{shown[:77]}..."
        super().__init__(
            f"{what} {shown} is not a valid name: use 1 to 64 of A-Z a-z 0-9 _ -, starting with a letter or digit"
        )
        self.what = what
        self.name = name


class InvalidInput(JetflowError, ValueError):
    """A value does not fit the declared input type; the message names the path inside the value."""


class InvalidQuery(JetflowError, ValueError):
    """A question about what is stored makes no sense: a filter, an order, a cursor or a limit."""


class InvalidOutput(JetflowError, ValueError):
    """A step's output cannot be encoded as JSON, or does not fit the type that is asked for."""


class PayloadTooLarge(JetflowError, ValueError):
    """A value is larger than it may be. ``size`` and ``limit`` are bytes."""

    def __init__(self, what: str, size: int, limit: int) -> None:
        super().__init__(
            f"{what} takes {size:,} bytes as JSON, and at most {limit:,} bytes are taken: pass a reference to it"
        )
        self.size = size
        self.limit = limit


class RunBegun(JetflowError, ValueError):
    """A run cannot be put to another time: it has begun."""

    def __init__(self, run: str) -> None:
        super().__init__(f"run {run} has begun, and cannot be put to another time: cancel it, and trigger another")
        self.run_id = run


class ScheduleExists(JetflowError, ValueError):
    """There is a schedule of this name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"there is a schedule {name!r}: update it, or take another name")
        self.name = name


class UnknownSchedule(JetflowError, LookupError):
    """There is no schedule of this name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"there is no schedule {name!r} in this namespace")
        self.name = name


class LimitKeyFailed(JetflowError, ValueError):
    """The function that gives the key of a limit has raised, or has given no str. ``limit`` is its name."""

    def __init__(self, limit: str, why: str) -> None:
        super().__init__(f"the function key= of limit {limit!r} gives no key for this input: {why}")
        self.limit = limit


class RateUnitsFailed(JetflowError, ValueError):
    """A run needs a number of units of a rate limit that is none, or that it never has. ``limit`` is its name."""

    def __init__(self, limit: str, why: str) -> None:
        super().__init__(f"units= of rate limit {limit!r} gives no number of units for this input: {why}")
        self.limit = limit


class PlaceHeld(JetflowError, RuntimeError):
    """A child needs a place that a run above it holds, or a step one that its run holds, and would wait for ever."""

    def __init__(self, workflow: str, limit: str, key: str, *, step: str = "", own: bool = False) -> None:
        of = f" (key {key!r})" if key else ""
        who = f"step {step!r} of {workflow!r}" if step else f"a run of {workflow!r}"
        holder = "its run holds" if own else "a run above it holds"
        instead = "another limit or key" if own else "another limit or key, or spawn it detached"
        super().__init__(
            f"{who} needs a place of limit {limit!r}{of} that {holder}, and would wait for ever: give it {instead}"
        )
        self.limit = limit
        self.key = key


class UnknownLimit(JetflowError, LookupError):
    """There is no limit of this name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"there is no limit {name!r} in this namespace: a worker declares it when it starts")
        self.name = name


class UnknownLevel(JetflowError, ValueError):
    """A run is to have a level that its workflow does not declare; ``levels`` are those that it does."""

    def __init__(self, workflow: str, level: object, levels: Sequence[str]) -> None:
        known = f"has the levels {', '.join(map(repr, levels))}" if levels else "declares no levels"
        super().__init__(f"a run of {workflow!r} cannot have the level {level!r}: the workflow {known}")
        self.workflow = workflow
        self.level = level
        self.levels: tuple[str, ...] = tuple(levels)


class UnknownWorker(JetflowError, LookupError):
    """No worker of this name answers."""

    def __init__(self, worker: str) -> None:
        super().__init__(f"no worker {worker!r} answers: `client.workers()` and `jetflow workers` tell their names")
        self.worker = worker


class SleepTooLong(JetflowError, ValueError):
    """A step asked to sleep for longer than what is stored of its run is kept.

    ``seconds`` is how long it would sleep, ``left`` for how long what is stored of its tree is kept still, and ``kept``
    for how long the namespace keeps it in all.
    """

    def __init__(self, seconds: float, left: float, kept: float) -> None:
        super().__init__(
            f"a sleep of {seconds / 86400:.3g} days would outlast its run: this namespace keeps what is stored for "
            f"{kept / 86400:.3g} days, of which {left / 86400:.3g} are left to the tree of this run. Make its streams "
            "with a longer max_age, or end here and start a run at that time: client.trigger(..., at=...)"
        )
        self.seconds = seconds
        self.left = left
        self.kept = kept


class UnknownWorkflow(JetflowError, LookupError):
    """Nobody has declared a workflow of this name in the namespace. ``near`` holds similar names.

    ``declared`` is how many workflows are; None if that is not known.
    """

    def __init__(self, name: str, near: Sequence[str] = (), declared: int | None = None) -> None:
        hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
        if declared == 0:
            hint = ", nor is any other: is it the right server and namespace?"
        super().__init__(
            f"no workflow named {name!r} is declared in this namespace{hint} "
            "(a worker declares its workflows when it starts)"
        )
        self.name = name
        self.near: tuple[str, ...] = tuple(near)


class UnknownRun(JetflowError, LookupError):
    """No run with this id is stored in the namespace."""

    def __init__(self, run_id: str) -> None:
        super().__init__(f"no run {run_id!r} is stored in this namespace")
        self.run_id = run_id


class KeyConflict(JetflowError, ValueError):
    """The same key was used again with a different input; the first run stands, nothing was started."""

    def __init__(self, workflow: str, key: str, run_id: str, stored: str, given: str) -> None:
        super().__init__(
            f"key {key!r} of workflow {workflow!r} is taken by run {run_id} with another input "
            f"(stored digest {stored}, given digest {given}): use another key, or the same input"
        )
        self.workflow = workflow
        self.key = key
        self.run_id = run_id
        self.stored_digest = stored
        self.given_digest = given


class SourceChanged(JetflowError, ValueError):
    """The source of a stream of children does not give the inputs that it gave an attempt before, in their order."""

    def __init__(self, workflow: str, taken: int, stored: str, given: str | None, inputs: int | None = None) -> None:
        now = f"it is {given} now" if inputs is None else f"it has only {inputs:,} inputs now"
        super().__init__(
            f"child {taken:,} of a stream of {workflow!r} is run {stored}, and {now}: have the source give the same "
            "inputs in the same order each time, or be a function of the position to go on behind (position=)"
        )
        self.workflow = workflow
        self.taken = taken
        self.stored_child = stored
        self.given_child = given


class NothingToHedge(JetflowError, ValueError):
    """A join asks for twins of stragglers, and children of a workflow may have none."""

    def __init__(self, workflow: str, why: str) -> None:
        super().__init__(f"children of workflow {workflow!r} get no twins: {why}. Leave out hedge=, or change that")
        self.workflow = workflow


class RecentlyDeleted(JetflowError, ValueError):
    """The key names a run that was deleted, and what may still be under way of it is refused for an hour."""

    def __init__(self, workflow: str, key: str, run_id: str) -> None:
        super().__init__(
            f"key {key!r} of workflow {workflow!r} names run {run_id}, which was deleted less than an hour ago: "
            "use another key, or wait"
        )
        self.workflow = workflow
        self.key = key
        self.run_id = run_id


class DepthExceeded(JetflowError, RecursionError):
    """A spawn would nest runs deeper than the namespace's limit."""

    def __init__(self, workflow: str, depth: int, limit: int) -> None:
        super().__init__(
            f"spawning {workflow!r} would nest runs {depth} deep, past the limit of {limit}: "
            "end the recursion, or raise WorkerOptions(max_depth=...)"
        )
        self.depth = depth
        self.limit = limit


class NothingToLoosen(JetflowError, LookupError):
    """The policy of a join cannot be loosened: none is open there, or the code that waits does not know of it."""

    def __init__(self, run: str, why: str) -> None:
        super().__init__(f"run {run} has no join whose policy could be loosened: {why}")
        self.run_id = run


class TighterPolicy(JetflowError, ValueError):
    """The policy of a join can only be loosened while its step waits; ``step`` waits in run ``run_id``."""

    def __init__(self, run: str, step: str, why: str) -> None:
        super().__init__(
            f"the join of step {step!r} of run {run} can only be loosened while it waits, not tightened: {why}"
        )
        self.run_id = run
        self.step = step
