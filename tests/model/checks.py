"""What must hold: never early, never twice, never stuck.

The checks know from the scripts which children a body spawned, and so judge a transition without asking the join
record, the counter or the tally. Write-once is kept by the broker; that nothing is done again that is already
recorded is checked by the shell.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from jetflow.engine.joins import JoinRecord
from jetflow.engine.tasks import Outcome, Task
from tests.model.state import UNPUBLISHED, State
from tests.model.universe import Universe


class Violation(Exception):
    """A rule is broken; the message says which."""


class Checks:
    """The checks of one configuration."""

    def __init__(self, universe: Universe) -> None:
        self._universe = universe
        self._ends = [universe.run_slots[run] for run in universe.scripts]
        self._no_sequels = all(not script.graph.sequels for script in universe.scripts.values())

    def adopting(self, child: str) -> None:
        """Check that what is adopted of a child has ended well."""
        if self._universe.scripts[child].elder not in ("succeeded", "late"):
            raise Violation(f"wrong: {self._universe.names[child]} is adopted, and its elder has failed")

    def spawning(self, task: Task, child: str) -> None:
        """Check that a child is not run again whose elder has ended well, where it is looked for."""
        universe = self._universe
        if universe.scripts[child].elder == "succeeded" and task.step in universe.graph(task.run).in_line:
            raise Violation(f"again: {universe.names[child]} is spawned, and its elder has succeeded")

    def run_ending(self, task: Task, outcome: Outcome, records: Sequence[int]) -> None:
        """Check the outcome of a run that is about to be stored."""
        universe, graph = self._universe, self._universe.graph(task.run)
        if graph.sinks == (outcome.step,):  # the last step has run: its end is the run's
            self._body_ending(task, outcome, records)
            return
        ends = {step: self._step_end(task.run, step, records) for step in graph.upstream}
        bad = {step: end for step, end in ends.items() if end and end.status in ("failed", "timed_out")}
        run = universe.names[task.run]
        if not (graph.fail_fast and bad):
            for sink in graph.sinks:
                if ends[sink] is None:
                    raise Violation(f"early: run {run} ends before its step {sink} has")
        if outcome.status != ("failed" if bad else "succeeded"):
            raise Violation(f"wrong: run {run} ends as {outcome.status}, its failed steps are {list(bad)}")
        told = [error.step for error in outcome.failures]
        if not graph.fail_fast and told != list(bad):
            raise Violation(f"wrong: run {run} tells the errors of {told}, and {list(bad)} have failed")

    def step_ending(self, task: Task, outcome: Outcome, records: Sequence[int]) -> None:
        """Check the outcome of a step that is about to be stored."""
        if outcome.status == "cancelled":
            self._left_out(task, records)
        else:
            self._body_ending(task, outcome, records)

    def _left_out(self, task: Task, records: Sequence[int]) -> None:
        before = self._universe.graph(task.run).upstream[task.step]
        ends = [self._step_end(task.run, step, records) for step in before]
        what = f"step {task.step} of {self._universe.names[task.run]} is left out"
        if None in ends:
            raise Violation(f"early: {what} before those that it comes after have ended")
        if all(end and end.status == "succeeded" for end in ends):
            raise Violation(f"wrong: {what} although all went well before it")

    def _step_end(self, run: str, step: str, records: Sequence[int]) -> Outcome | None:
        number = records[self._universe.step_slots[run, step]]
        return self._universe.values.outcome(number) if number else None

    def _body_ending(self, task: Task, outcome: Outcome, records: Sequence[int]) -> None:
        """Check the outcome of a step that has run."""
        universe = self._universe
        failed = outcome.status != "succeeded"
        if failed and (outcome.error is None or outcome.error.type != "ChildrenFailed"):
            return
        if outcome.adopted:
            self._adopted(task, outcome)
            return
        elder = universe.scripts[task.run].elders.get(outcome.step)
        if elder == "succeeded" and outcome.step not in self._sequels(task):
            raise Violation(f"again: step {outcome.step} of {universe.names[task.run]} runs, its elder has succeeded")
        body = universe.body_of_tag(task.run, outcome.worker)
        endings = self._endings(body.spawns, records)
        what = f"step {outcome.step} of {universe.names[task.run]} (delivery {outcome.worker})"
        if body.ends in ("park", "sleep"):
            raise Violation(f"early: {what} ends although it has only parked")
        missing = [name for name, ending in endings.items() if ending is None]
        bad = [name for name, ending in endings.items() if ending and ending.status != "succeeded"]
        ended = len(endings) - len(missing)
        succeeded = ended - len([name for name in bad if name not in body.excused])
        verdict = body.policy.verdict(len(endings), succeeded, ended)
        if verdict == "open":
            raise Violation(f"early: {what} ends before its children {', '.join(missing)} have")
        if failed != (verdict == "missed"):
            raise Violation(f"wrong: {what} ends as {outcome.status}, its failed children are {bad}")

    def _sequels(self, task: Task) -> tuple[str, ...]:
        return self._universe.graph(task.run).sequels

    def _adopted(self, task: Task, outcome: Outcome) -> None:
        script = self._universe.scripts[task.run]
        if script.elders.get(outcome.step) not in ("succeeded", "late"):
            raise Violation(f"wrong: step {outcome.step} is adopted, and its elder has not succeeded")
        if outcome.step in script.graph.sequels:
            raise Violation(f"wrong: step {outcome.step} is adopted, and this run has ended by itself")

    def starting(self, task: Task, step: str, turn: int, records: Sequence[int]) -> None:
        """Check a step's task that is about to be published."""
        universe = self._universe
        where = f"turn {turn} of step {step} of {universe.names[task.run]}"
        if step in self._sequels(task):
            ended = records[universe.run_slots[task.run]]
            well = step == universe.graph(task.run).on_success
            if not ended or (universe.values.outcome(ended).status == "succeeded") != well:
                raise Violation(f"wrong: {where} starts although its run has not ended so")
            return
        if turn == 0:
            for upstream in universe.graph(task.run).upstream[step]:
                end = self._step_end(task.run, upstream, records)
                if end is None:
                    raise Violation(f"early: {where} starts before step {upstream} has ended")
                if end.status != "succeeded":
                    raise Violation(f"wrong: {where} starts although step {upstream} {end.status}")
            return
        number = universe.task_numbers[task.run, step, turn - 1]
        stored = records[universe.join_slots[number]]
        if not stored:
            raise Violation(f"early: {where} starts before turn {turn - 1} has parked")
        if number not in universe.time_slots or not records[universe.time_slots[number]]:
            self._parked(where, task, universe.values.record(stored), records)

    def counting_attempts(self, task: Task, step: str, turn: int, tried: int, records: Sequence[int]) -> None:
        """Check that a turn that is about to be published counts the attempts that its step has made."""
        universe, made = self._universe, 0
        if turn:
            stored = records[universe.join_slots[universe.task_numbers[task.run, step, turn - 1]]]
            made = universe.values.record(stored).tried if stored else 0
        if tried != made:
            raise Violation(f"wrong: turn {turn} of step {step} counts {tried} attempts as made, and there were {made}")

    def _parked(self, where: str, task: Task, record: JoinRecord, records: Sequence[int]) -> None:
        if record.kind != "parked":
            raise Violation(f"early: {where} starts although the turn before it has sealed")
        body = self._universe.body_of_tag(task.run, record.worker)
        if body.ends in ("later", "sleep"):
            raise Violation(f"early: {where} begins before its time has come")
        ended = sum(ending is not None for ending in self._endings(body.spawns, records).values())
        needed = len(body.spawns) if body.needed is None else body.needed
        if ended < needed:
            raise Violation(f"early: {where} starts with {ended} of the {needed} children that it waits for")

    def _endings(self, names: Sequence[str], records: Sequence[int]) -> dict[str, Outcome | None]:
        universe = self._universe
        stored = {name: records[universe.run_slots[universe.run_id(name)]] for name in names}
        return {name: universe.values.outcome(number) if number else None for name, number in stored.items()}

    def over(self, state: State) -> bool:
        """Tell whether every run that can exist has ended: no outcome, child or turn can come too early any more."""
        return self._no_sequels and all(state.records[slot] for slot in self._ends)

    def final(self, state: State) -> str | None:
        """Check a state in which nothing more happens by itself: the root and all that was spawned has ended."""
        universe = self._universe
        open_runs = [
            name
            for run, name in universe.names.items()
            if run in universe.scripts
            and state.tasks[universe.first_task(run)] != UNPUBLISHED
            and not state.records[universe.run_slots[run]]
        ]
        open_runs += [f"{universe.names[run]}/{step}" for run, step in self._open_sequels(state)]
        return f"stuck: nothing more happens, and {', '.join(open_runs)} has not ended" if open_runs else None

    def _open_sequels(self, state: State) -> Iterator[tuple[str, str]]:
        """The steps behind an end that have not run although their run has ended so."""
        universe = self._universe
        for run, script in universe.scripts.items():
            ended = state.records[universe.run_slots[run]]
            if not ended:
                continue
            well = universe.values.outcome(ended).status == "succeeded"
            step = script.graph.on_success if well else script.graph.on_failure
            if step is not None and not state.records[universe.step_slots[run, step]]:
                yield run, step
