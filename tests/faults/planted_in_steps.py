"""Faults of the limits that steps have by themselves, and of gates where many stand."""

from __future__ import annotations

from typing import Final

from tests.faults.playing import Fault

_CROWDED: Final = "tests/endings/test_crowded_gates.py"
_CHAPTER: Final = "tests/fundamentals/test_36_limits_of_steps.py"

LIMITED_STEPS: Final = (
    Fault(
        "limits of steps: nobody asks for a place",
        "worker/executor.py",
        "task.step in graph.limited and not await self._has_places(work)",
        "False",
        (f"{_CHAPTER}::test_no_more_of_a_key_are_in_the_step_than_may",),
    ),
    Fault(
        "limits of steps: a step that has ended keeps its place",
        "engine/transitions.py",
        "yield from leave_step(task, task.step)\n        if spawned:",
        "pass\n        if spawned:",
        (f"{_CHAPTER}::test_it_keeps_no_place_behind_its_end",),
    ),
    Fault(
        "limits of steps: the end of a run leaves the places of its steps",
        "engine/transitions.py",
        "        if graph.limited:\n            yield from leave_steps(task, graph)\n        if stored.status",
        "        if stored.status",
        (f"{_CHAPTER}::test_what_ends_its_run_beside_it_gives_its_place_back",),
    ),
    Fault(
        "limits of steps: who cancels a run leaves the places of its steps",
        "engine/transitions.py",
        "    yield from conclude(task, outcome)\n    yield from leave_steps(task, of)",
        "    yield from conclude(task, outcome)",
        (f"{_CHAPTER}::test_one_that_fails_or_is_cancelled_gives_its_place_back",),
    ),
    Fault(
        "limits of steps: a step that goes on waits for its place again",
        "engine/admission.py",
        "return record is not None and record.gate is None and record.admits is not None",
        "return False",
        (f"{_CHAPTER}::test_one_that_has_begun_keeps_its_place_where_there_are_fewer",),
    ),
    Fault(
        "limits of steps: a place that its own run holds is waited for",
        "worker/admitting.py",
        "((task.places, True), (task.held, False))",
        "((task.held, False),)",
        (f"{_CHAPTER}::test_a_place_that_its_run_or_one_above_holds_is_refused",),
    ),
    Fault(
        "limits of steps: children are not told what the step above holds",
        "worker/execution.py",
        "task if work.places is None else _with_places(task, work.places)",
        "task",
        (f"{_CHAPTER}::test_a_place_that_its_run_or_one_above_holds_is_refused",),
    ),
    Fault(
        "limits of steps: its time does not count while it waits",
        "engine/admission.py",
        'return late(place, "step")',
        "pass",
        (f"{_CHAPTER}::test_a_step_waits_no_longer_than_it_may",),
    ),
    Fault(
        "limits of steps: code without the limit lets all pass at once",
        "worker/executor.py",
        "if await self.recorder.left_to_others(work, self._grace, failure_of(why, task.step)):",
        "if False:",
        (f"{_CHAPTER}::test_code_without_the_limit_leaves_its_tasks_to_others",),
    ),
    Fault(
        "limits of steps: limits that are taken both ways round are let be",
        "limits.py",
        "            if path is not None:\n",
        "            if False:\n",
        (f"{_CHAPTER}::test_limits_that_are_taken_both_ways_round_are_refused",),
    ),
    Fault(
        "limits: nobody wakes a run that has just looked",
        "runs/gates.py",
        "self._entering.discard(effect.run)\n        return found",
        "pass\n        return found",
        ("tests/fundamentals/test_28_limiting.py::test_who_has_just_looked_is_woken_by_who_leaves",),
    ),
)

CROWDED: Final = (
    Fault(
        "gates: what is known of one where many stand is not verified",
        "runs/entries.py",
        "return {subject: sequence for subject, sequence in known.items() if subject in there}\n        stored",
        "return known\n        stored",
        (f"{_CROWDED}::test_a_crowd_goes_on_in_its_order_while_some_of_it_are_cancelled",),
    ),
    Fault(
        "gates: nobody is read behind those that are known",
        "runs/entries.py",
        "        while last is not None and last.sequence > after and len(found) < wanted:",
        "        while False:",
        (f"{_CROWDED}::test_entries_are_found_whatever_else_the_stream_holds",),
    ),
    Fault(
        "gates: a gate that is crowded has the others that are read with it wait, too",
        "runs/entries.py",
        "if entries is None and len(filters) > 1:",
        "if False:",
        (f"{_CROWDED}::test_gates_are_read_together_and_a_crowded_one_by_itself",),
    ),
    Fault(
        "gates: a look shares a reading that has begun",
        "broker/together.py",
        "asked, self._asked = list(self._asked.items()), {}",
        "asked = list(self._asked.items())",
        ("tests/unit/test_together.py::test_nobody_is_answered_by_a_reading_that_had_begun",),
    ),
)
