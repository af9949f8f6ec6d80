"""Faults of twins of stragglers."""

from __future__ import annotations

from typing import Final

from tests.faults.playing import Fault

CHAPTER: Final = "tests/fundamentals/test_37_hedging.py"
ENDINGS: Final = "tests/endings/test_hedging.py"
RULE: Final = "tests/unit/test_hedging.py"

OVERTAKEN: Final = f"{CHAPTER}::test_a_straggler_is_overtaken_by_its_twin"
IN_VAIN: Final = f"{ENDINGS}::test_a_twin_is_not_begun_in_vain"
LATER: Final = f"{ENDINGS}::test_a_later_attempt_is_told_that_a_twin_of_an_earlier_one_was_faster"

HEDGING: Final = (
    Fault(
        "what is late gets no twin",
        "worker/twins.py",
        "if not (why or work.has_twin) and seconds >= late_after:",
        "if False:",
        (OVERTAKEN,),
    ),
    Fault(
        "the original is not told that its twin was faster",
        "worker/twins.py",
        "        work.has_twin = True\n        self.watch(work)",
        "        work.has_twin = True",
        (OVERTAKEN,),
    ),
    Fault(
        "a twin is not told that the original was faster",
        "worker/executor.py",
        "if step.idempotent and (delivery.again or task.turn or task.twin):",
        "if step.idempotent and (delivery.again or task.turn):",
        (f"{CHAPTER}::test_the_first_may_be_faster_still",),
    ),
    Fault(
        "a later attempt is not told that a twin was faster",
        "worker/executor.py",
        "if step.idempotent and (delivery.again or task.turn or task.twin):",
        "if step.idempotent and task.twin:",
        (LATER,),
    ),
    Fault(
        "a loser is recorded as an attempt that failed",
        "worker/executor.py",
        "elif body.has_lost and not body.cancelled:",
        "elif False:",
        (f"{ENDINGS}::test_a_loser_leaves_nothing_behind",),
    ),
    Fault(
        "a twin that fails is recorded",
        "worker/executor.py",
        "        if work.task.twin:\n            self._forget(work)\n        elif body.has_lost",
        "        if body.has_lost",
        (f"{CHAPTER}::test_a_twin_that_fails_is_no_attempt",),
    ),
    Fault(
        "a twin is begun whose run has ended",
        "worker/executor.py",
        "or await self._has_ended(task)\n        ):",
        "):",
        (IN_VAIN,),
    ),
    Fault(
        "a twin is begun of a step that is not idempotent",
        "worker/executor.py",
        "or never(task, work.known_graph, idempotent=step.idempotent)",
        "or False",
        (IN_VAIN,),
    ),
    Fault(
        "a parked join is not woken for its stragglers",
        "worker/hedging.py",
        "await self._waiting.some(set(self._workflow_of), enough)",
        "while len(self._waiting.ended_of(self._workflow_of)) < enough:\n            await asyncio.sleep(0.1)",
        (f"{CHAPTER}::test_a_join_hedges_that_is_parked",),
    ),
    Fault(
        "a parked join is not woken when one may be late",
        "worker/hedging.py",
        "await self._waiting.sleep(time() + pause, alone=False)",
        "await asyncio.sleep(pause)",
        (f"{CHAPTER}::test_a_join_hedges_that_is_parked",),
    ),
    Fault(
        "it is not asked whether children may have twins",
        "worker/hedging.py",
        "            await _check(session, workflow)",
        "            pass",
        (f"{CHAPTER}::test_it_is_told_who_may_have_a_twin",),
    ),
    Fault(
        "a workflow with limits has steps that may get twins",
        "workflow.py",
        "if step.idempotent and (self.limits or self.rates):",
        "if False:",
        (f"{CHAPTER}::test_it_is_told_who_may_have_a_twin",),
    ),
    Fault(
        "an idempotent step spawns, sleeps and streams",
        "worker/bodies.py",
        "Repeatable if step.idempotent else Execution",
        "Execution",
        (f"{CHAPTER}::test_an_idempotent_step_does_its_work_in_one_go",),
    ),
    Fault(
        "children are late before any has ended",
        "engine/hedging.py",
        "return max(1, min(total - 1, int(self.after * total + ROUNDING)))",
        "return min(total - 1, int(self.after * total + ROUNDING))",
        (f"{RULE}::test_how_many_have_to_end_first",),
    ),
    Fault(
        "those that ended last make the others less late",
        "engine/hedging.py",
        "share = min(1.0, self.enough(total) / max(1, ended))",
        "share = 1.0",
        (f"{RULE}::test_when_a_child_is_late",),
    ),
    Fault(
        "what is queued is never asked after again",
        "engine/hedging.py",
        "if len(told) < asked:",
        "if False:",
        (f"{RULE}::test_when_to_ask_again",),
    ),
)
