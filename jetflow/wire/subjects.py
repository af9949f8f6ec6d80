"""Every name on the broker: streams, buckets, subjects, consumers, headers. Built and parsed here only.

Each subject carries the ids that someone filters by, so that "all children of a step", "the whole tree of a root run"
and "all queued tasks of a workflow" are one filter each (``docs/wire.md``, section Subjects).
"""

from __future__ import annotations

from typing import Final

from jetflow.engine.identity import check_name, is_run_id
from jetflow.engine.levels import queue_of
from jetflow.engine.tasks import StepAddress, Task
from jetflow.wire.timer_subjects import TimerSubjects

EDITION: Final = "2"
"""Edition of the wire format. Streams carry it in their metadata, and those of another edition are refused."""

EDITION_KEY: Final = "jetflow_edition"
"""The name under which the metadata of a stream hold the edition."""

LAYOUT: Final = "1"
"""Number of how streams are set up within an edition: it grows when their settings do. `jetflow setup` brings streams
of an older one up to it; those of a newer one are used."""

LAYOUT_KEY: Final = "jetflow_layout"
"""The name under which the metadata of a stream hold the layout."""

BEGUN: Final = "begun-"
"""Stands before the delivery in the subject of a record that its body has begun."""

TWIN: Final = "h1"
"""Stands behind the turn in the subject of a twin (`jetflow.engine.hedging`)."""

LOOSENED: Final = 1_000_000_000
"""Is added to the turn in the subject of a join record each time that its policy is loosened: it has nine digits."""

RECORD_KINDS: Final = ("run", "step", "join", "mark", "try", "once")
"""The second token of the subjects in the records stream."""


class Subjects(TimerSubjects):
    """The names of one namespace.

    Raises:
        InvalidName: the namespace does not fit the token rule.
    """

    def __init__(self, namespace: str) -> None:
        super().__init__(check_name("namespace", namespace))
        self.namespace: str = namespace
        self.tasks_stream: str = f"JF_{namespace}_tasks"
        self.records_stream: str = f"JF_{namespace}_records"
        self.inbox_stream: str = f"JF_{namespace}_inbox"
        self.values_stream: str = f"JF_{namespace}_values"
        self.counters_stream: str = f"KV_jf_{namespace}_counters"
        self.workflows_stream: str = f"KV_jf_{namespace}_workflows"
        self.inbox_consumer = "workers"
        self._task = f"{self.prefix}.task"
        self._run = f"{self.prefix}.run"
        self._live = f"{self.prefix}.live.run"
        self._counter = f"$KV.jf_{namespace}_counters"
        self._workflow = f"$KV.jf_{namespace}_workflows"

    # --- tasks

    @property
    def all_tasks(self) -> tuple[str, ...]:
        """What the tasks stream holds: tasks, and the marks that stop them."""
        return f"{self._task}.>", f"{self.prefix}.cancel.>"

    @property
    def republished_tasks(self) -> tuple[str, str]:
        """From which subjects of the tasks stream to which live ones the server republishes: marks of cancelling."""
        return f"{self.prefix}.cancel.>", f"{self.prefix}.live.cancel.>"

    def tasks_of_step(self, workflow: str, step: str) -> str:
        """Every task of one step, of all runs; of one with levels, those of one queue (`jetflow.engine.levels`)."""
        return f"{self._task}.{workflow}.{step}.>"

    def tasks_of_parent(self, root: str, parent: str) -> str:
        """Every task of every child of one run."""
        return f"{self._task}.*.*.{root}.{parent}.>"

    def tasks_of_run(self, root: str, run: str) -> str:
        """Every task of one run."""
        return f"{self._task}.*.*.{root}.*.{run}.*"

    def tasks_of_run_id(self, run: str) -> str:
        """Every task of one run whose root is not known."""
        return f"{self._task}.*.*.*.*.{run}.*"

    def tasks_of_tree(self, root: str) -> str:
        """Every task of one root run and all its descendants."""
        return f"{self._task}.*.*.{root}.>"

    def task(self, workflow: str, step: str, root: str, parent: str, run: str, turn: int = 0) -> str:
        """One turn of one step of one run."""
        return f"{self._task}.{workflow}.{step}.{root}.{parent}.{run}.{turn}"

    def task_of(self, task: Task) -> str:
        """The subject of a task."""
        own = self.task(task.workflow, queue_of(task, task.step), task.root, task.parent, task.run, task.turn)
        return f"{own}.{TWIN}" if task.twin else own

    def child_tasks(self, workflow: str, step: str, root: str, parent: str) -> tuple[str, str]:
        """What stands before and after the run id in the subjects of many children."""
        return f"{self._task}.{workflow}.{step}.{root}.{parent}.", ".0"

    @staticmethod
    def next_turn(task: str) -> str:
        """The subject of the turn that follows the one on subject ``task``."""
        before, _, turn = task.rpartition(".")
        return f"{before}.{int(turn) + 1}"

    # --- outcomes and other records

    @property
    def all_records(self) -> tuple[str, ...]:
        """What the records stream holds."""
        return tuple(f"{self.prefix}.{kind}.>" for kind in RECORD_KINDS)

    @property
    def republished_records(self) -> tuple[str, str]:
        """From which records to which live subjects the server republishes: how root runs ended.

        Of the others, whose parents mostly do not listen, the workers tell (see `live_run`).
        """
        return f"{self._run}.*.-.-.*", f"{self._live}.{{{{wildcard(1)}}}}.-.-.{{{{wildcard(2)}}}}"

    def run(self, root: str, parent: str, parent_step: str, run: str) -> str:
        """How one run ended."""
        return f"{self._run}.{root}.{parent}.{parent_step}.{run}"

    def run_of(self, task: Task) -> str:
        """How the run of a task ended."""
        return f"{self._run}.{task.root}.{task.parent}.{task.parent_step}.{task.run}"

    def run_of_any_step(self, task: Task) -> str:
        """How the run of a task ended, whichever step of its parent has spawned it."""
        return f"{self._run}.{task.root}.{task.parent}.*.{task.run}"

    def run_of_tree(self, root: str, run: str) -> str:
        """How one run of a tree ended."""
        return f"{self._run}.{root}.*.*.{run}"

    def run_by_id(self, run: str) -> str:
        """How one run ended whose parent is not known."""
        return f"{self._run}.*.*.*.{run}"

    def live_run(self, run: str) -> str:
        """The live copy of a record ``run`` of how one run ended."""
        return f"{self._live}{run[len(self._run) :]}"

    def live_run_by_id(self, run: str) -> str:
        """The live copy of how one run ended."""
        return f"{self._live}.*.*.*.{run}"

    def live_root_by_id(self, run: str) -> str:
        """The live copy of how one root run ended."""
        return f"{self._live}.*.-.-.{run}"

    def runs_of_join(self, join: StepAddress) -> str:
        """How the children ended that one step spawned."""
        return f"{self._run}.{join.root}.{join.run}.{join.step}.*"

    def runs_of_parent(self, root: str, parent: str) -> str:
        """How the children of one run ended."""
        return f"{self._run}.{root}.{parent}.*.*"

    def live_runs_of_parent(self, root: str, parent: str) -> str:
        """The live copies of how the children of one run ended."""
        return f"{self._live}.{root}.{parent}.*.*"

    def step(self, join: StepAddress) -> str:
        """How one step ended."""
        return f"{self.prefix}.step.{join.root}.{join.run}.{join.step}"

    def steps_of_run(self, root: str, run: str) -> str:
        """How the steps of one run ended."""
        return f"{self.prefix}.step.{root}.{run}.*"

    def join(self, join: StepAddress, turn: int) -> str:
        """What one turn of a step waits for."""
        return f"{self.prefix}.join.{join.root}.{join.run}.{join.step}.{turn}"

    def loosened_join(self, join: StepAddress, turn: int, time: int) -> str:
        """What one turn of a step waits for since its policy was loosened for the ``time``-th time."""
        return self.join(join, time * LOOSENED + turn)

    def joins_of_step(self, join: StepAddress) -> str:
        """What the turns of a step wait for."""
        return f"{self.prefix}.join.{join.root}.{join.run}.{join.step}.*"

    def joins_of_run(self, root: str, run: str) -> str:
        """What the turns of all steps of a run wait for."""
        return f"{self.prefix}.join.{root}.{run}.*.*"

    def mark_of(self, task: Task, status: str) -> str:
        """The hint that a run ended other than well: its body tells of what, in short."""
        return f"{self.prefix}.mark.{task.root}.{task.parent}.{task.parent_step}.{status}.{task.workflow}.{task.run}"

    def marks_of_join(self, join: StepAddress) -> str:
        """The hints that children of one step ended other than well."""
        return f"{self.prefix}.mark.{join.root}.{join.run}.{join.step}.*.*.*"

    def marks_of_parent(self, root: str, parent: str, status: str) -> str:
        """The hints that children of one run ended with ``status``."""
        return f"{self.prefix}.mark.{root}.{parent}.*.{status}.*.*"

    def attempt(self, join: StepAddress, turn: int, delivery: int) -> str:
        """How one delivery of a task ended without an outcome."""
        return f"{self.prefix}.try.{join.root}.{join.run}.{join.step}.{turn}.{delivery}"

    def begun(self, join: StepAddress, turn: int, delivery: int) -> str:
        """That the body of a task which was delivered again has begun under one delivery."""
        return f"{self.prefix}.try.{join.root}.{join.run}.{join.step}.{turn}.{BEGUN}{delivery}"

    def attempts_of_turn(self, join: StepAddress, turn: int) -> str:
        """How the deliveries of one turn ended without an outcome, and which of them began."""
        return f"{self.prefix}.try.{join.root}.{join.run}.{join.step}.{turn}.*"

    def attempts_of_run(self, root: str, run: str) -> str:
        """How deliveries of a run's tasks ended without an outcome, and which of them began."""
        return f"{self.prefix}.try.{root}.{run}.*.*.*"

    def once(self, join: StepAddress, name: str) -> str:
        """A value that a step computes once."""
        return f"{self.prefix}.once.{join.root}.{join.run}.{join.step}.{name}"

    def page(self, join: StepAddress, stream: str, spawned: int | str) -> str:
        """A page of a stream of children: how far it was when so many were spawned; ``*`` for all of them."""
        return f"{self.once(join, stream)}.{spawned}"

    def cancelled(self, root: str, run: str) -> str:
        """The mark that a run is cancelled; where it is the root, its whole tree."""
        return f"{self.prefix}.cancel.{root}.{run}"

    def all_deleted(self, mark: str) -> str:
        """The mark that many root runs are deleted; ``mark`` tells it from others of its kind."""
        return f"{self.prefix}.cancel.-.{mark}"

    @property
    def all_cancelled(self) -> str:
        """Every mark that a run is cancelled."""
        return f"{self.prefix}.cancel.*.*"

    def kept(self, root: str, chance: str) -> str:
        """A copy of a root run's first task while its tree is cancelled; ``chance`` tells it from others' copies."""
        return f"{self.prefix}.cancel.{root}.kept.{chance}"

    @property
    def all_kept(self) -> str:
        """Every copy of a first task."""
        return f"{self.prefix}.cancel.*.kept.*"

    @property
    def live_cancelled(self) -> str:
        """The live copies of the marks that runs are cancelled."""
        return f"{self.prefix}.live.cancel.*.*"

    def records_of_tree(self, root: str) -> list[str]:
        """Every record of one root run and its descendants; how the runs ended comes first."""
        return [f"{self.prefix}.{kind}.{root}.>" for kind in RECORD_KINDS]

    def any_of_tree(self, root: str) -> str:
        """Every record of one root run and its descendants, in the stream of records."""
        return f"{self.prefix}.*.{root}.>"

    def counters_of_tree(self, root: str) -> str:
        """Every counter of one root run and its descendants."""
        return f"{self._counter}.*.{root}.>"

    def values_of_tree(self, root: str) -> str:
        """Every large value of one root run and its descendants."""
        return f"{self.prefix}.value.{root}.>"

    def value(self, root: str, digest: str, chunk: int) -> str:
        """One chunk of a large value."""
        return f"{self.prefix}.value.{root}.{digest}.{chunk}"

    @property
    def all_values(self) -> str:
        """Every chunk of every large value."""
        return f"{self.prefix}.value.>"

    @property
    def roots_ended(self) -> str:
        """How all root runs ended."""
        return f"{self._run}.*.-.-.*"

    # --- counters

    @property
    def all_counters(self) -> str:
        """Every counter."""
        return f"{self._counter}.>"

    @property
    def join_counters(self) -> str:
        """Every join's counter."""
        return f"{self._counter}.join.>"

    def counter(self, kind: str, address: StepAddress) -> str:
        """The counter of one join or gate."""
        return f"{self._counter}.{kind}.{address.root}.{address.run}.{address.step}"

    def parse_counter(self, subject: str) -> StepAddress:
        """Return the join whose counter has this subject."""
        return StepAddress(*subject.rsplit(".", 3)[1:])

    # --- declared workflows

    @property
    def all_workflows(self) -> str:
        """Every declared workflow."""
        return f"{self._workflow}.>"

    def workflow(self, name: str) -> str:
        """The declaration of one workflow."""
        return f"{self._workflow}.{name}"

    def workflow_version(self, name: str, version: str) -> str:
        """One version of the graph of a workflow."""
        return f"{self._workflow}.{name}.{version}"

    # --- what comes from outside

    @property
    def all_inbox(self) -> str:
        """Every message to the workers at large."""
        return f"{self.prefix}.in.>"

    def inbox_trigger(self, workflow: str) -> str:
        """Triggers of one workflow by any NATS client."""
        return f"{self.prefix}.in.trigger.{workflow}"

    def inbox_look(self, join: StepAddress) -> str:
        """Asks any worker to look at a join."""
        return f"{self.prefix}.in.look.{join.root}.{join.run}.{join.step}"

    def parse_inbox(self, subject: str) -> list[str]:
        """Return what stands behind the inbox's own tokens."""
        return subject.removeprefix(f"{self.prefix}.in.").split(".")

    def who(self, workflow: str) -> str:
        """Asks the workers of one workflow whether they are there."""
        return f"{self.prefix}.who.{workflow}"

    # --- consumers

    @staticmethod
    def consumer(workflow: str, step: str) -> str:
        """The durable consumer of one step, or of one queue of it. ``=`` cannot stand in a name: no two share one."""
        return f"{workflow}={step}"


def kind_of(subject: str) -> str:
    """Return what kind of record a subject is of: ``step``, ``join``, ``try`` or another."""
    return subject.split(".")[2]


def last_token(subject: str) -> str:
    """Return what stands behind the last dot."""
    return subject[subject.rindex(".") + 1 :]


def turn_of_join(subject: str) -> int:
    """Return the turn in the subject of a join record, loosened or not."""
    return int(last_token(subject)) % LOOSENED


def last_id(subject: str) -> bytes | None:
    """Return the run id in which a subject ends, packed; None if it ends in something else."""
    token = last_token(subject)
    return bytes.fromhex(token) if is_run_id(token) else None


def run_of_outcome(subject: str) -> str | None:
    """Return the run in the subject of an outcome, of it or of a step of it; None if it is the subject of neither."""
    tokens = subject.split(".")
    run = tokens[-1] if tokens[2:3] == ["run"] else tokens[-2] if len(tokens) > 1 else ""
    return run if is_run_id(run) else None


def run_of_task(subject: str) -> bytes | None:
    """Return the run id in the subject of a task, packed; None if it is not the subject of any task."""
    tokens = subject.split(".")
    return bytes.fromhex(tokens[7]) if len(tokens) == 9 and is_run_id(tokens[7]) else None
