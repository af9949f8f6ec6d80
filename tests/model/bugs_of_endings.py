"""Bugs in how a run of several steps fails, and in how a step waits for a time. `mutants` plants them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from unittest.mock import patch

import msgspec

from jetflow.engine import transitions
from jetflow.engine.effects import Arm, Look, StoreStep
from jetflow.engine.endings import ending
from jetflow.engine.graph import Graph
from jetflow.engine.joins import JoinRecord
from jetflow.engine.tasks import Outcome, Task
from tests.model.broker import Broker
from tests.model.model import Rules
from tests.model.planting import Bug, Edit
from tests.model.procedures import Token
from tests.model.shell import Ack, Delivery, Due, Shell
from tests.model.state import Draft
from tests.model.universe import TIMER


class TellsTheLateOne(Broker):
    def store_step(self, effect: StoreStep, draft: Draft) -> Token:
        super().store_step(effect, draft)
        return self.universe.values.number(effect.outcome)


class LooksAtTimes(Broker):
    def verify(self, effect: Look, read: int, draft: Draft) -> Token:
        with patch.object(JoinRecord, "counted", True):
            return super().verify(effect, read, draft)


class SealsNoFailure(Shell):
    def may_have_children(self, task: Task, attempt: int, owners: dict[str, str]) -> bool:
        return False


class ForgetsEarlierAttempts(Shell):
    def may_have_children(self, task: Task, attempt: int, owners: dict[str, str]) -> bool:
        return bool(owners)


class AcksBeforeTheTimer(Shell):
    def deliver(self, task: Task, attempt: int) -> Delivery:
        delivery = super().deliver(task, attempt)
        result: Any = None
        while True:
            try:
                effect = delivery.send(result)
            except StopIteration as stop:
                return stop.value
            if isinstance(effect, Arm):
                yield Ack(task)
            result = yield effect


class AcksTheTimerFirst(Shell):
    def due(self, task: Task) -> Delivery:
        yield Ack(msgspec.structs.replace(task, step=TIMER + task.step))
        return (yield from super().due(task))


class CountsSleeps(Shell):
    def due(self, task: Task) -> Delivery:
        yield Due(task)
        yield from transitions.wake(task, 1)
        return "ack"


class ForgetsAttempts(Shell):
    def due(self, task: Task) -> Delivery:
        yield Due(task)
        yield from transitions.wake(task, 0)
        return "ack"


def ends_well(task: Task, graph: Graph, outcomes: Mapping[str, Outcome]) -> Outcome:
    return Outcome(status="succeeded")


def tells_one(task: Task, graph: Graph, outcomes: Mapping[str, Outcome]) -> Outcome:
    return msgspec.structs.replace(ending(task, graph, outcomes), errors=())


BESIDE: Final = "a step and what is behind it go on beside a failure"
CHAIN_FAILS: Final = "a step fails in a chain"
TRIED_AGAIN: Final = "an attempt that failed is made again"

BUGS_OF_ENDINGS: Final = (
    # how a run of several steps fails
    Bug("a failed step ends its run", BESIDE, (Edit("advance", "graph.fail_fast and ", ""),)),
    Bug("what is behind a failed step runs", CHAIN_FAILS, replaced=((transitions, "decide", lambda *_, **__: "run"),)),
    Bug(
        "what is behind a step that was left out is forgotten",
        CHAIN_FAILS,
        (Edit("advance", "yield from advance(task, graph, following, stored)", "pass"),),
    ),
    Bug(
        "what is left out has no outcome",
        CHAIN_FAILS,
        (
            Edit(
                "advance",
                "stored: Outcome = yield StoreStep(not_run, left_out(task, following, verdict, before))",
                "stored = left_out(task, following, verdict, before)",
            ),
        ),
    ),
    Bug(
        "a gate counts those that went well only",
        "a gate behind a failure",
        (
            Edit(
                "advance",
                "upstream = graph.upstream[following]",
                "upstream = graph.upstream[following]\n"
                '        if len(upstream) > 1 and ended.status != "succeeded":\n            continue',
            ),
        ),
    ),
    Bug("a late success is believed", "a zombie succeeds where a step has failed", rules=Rules(broker=TellsTheLateOne)),
    Bug(
        "a run of which a step was left out has gone well",
        CHAIN_FAILS,
        replaced=((transitions, "ending", ends_well),),
    ),
    Bug(
        "only the first error is told", "both steps before a gate fail", replaced=((transitions, "ending", tells_one),)
    ),
    Bug("a failed step seals nothing", "a step fails whose child another shares", rules=Rules(shell=SealsNoFailure)),
    Bug(
        "a step that fails in a later attempt seals nothing",
        "a step fails whose child of an earlier attempt another shares",
        rules=Rules(shell=ForgetsEarlierAttempts),
    ),
    Bug(
        "a redelivery forgets that its step has failed",
        CHAIN_FAILS,
        (
            Edit(
                "redelivered",
                "yield from advance(task, graph, task.step, ended.step)",
                'yield from advance(task, graph, task.step, ended.step) if ended.step.status == "succeeded" else ()',
            ),
        ),
    ),
    Bug(
        "nothing runs after a failure of several steps",
        "a step runs after several failures",
        (
            Edit(
                "advance",
                "yield from conclude(task, ending(task, graph, steps), graph)",
                "yield from conclude(task, ending(task, graph, steps))",
            ),
        ),
    ),
    Bug(
        "nothing runs after a success",
        "a step runs after a success",
        (Edit("conclude", "yield from after_success(task, graph.on_success)", "pass"),),
    ),
    Bug(
        "nothing runs after a success of several steps",
        "a child that a step runs behind",
        (
            Edit(
                "advance",
                "yield from conclude(task, ending(task, graph, steps), graph)",
                "yield from conclude(task, ending(task, graph, steps))",
            ),
        ),
    ),
    Bug(
        "a redelivery forgets what runs after a success",
        "a step runs after a success",
        (Edit("repeat_end", "yield from after_success(task, graph.on_success)", "pass"),),
    ),
    Bug(
        "what runs after a success runs after any end",
        "a step runs after a success or a failure",
        (
            Edit(
                "conclude",
                'elif graph.on_success is not None and stored.status == "succeeded":',
                "if graph.on_success is not None:",
            ),
        ),
    ),
    Bug(
        "what runs after a success is taken for its run when it is delivered again",
        "a step runs after a success",
        (Edit("redelivered", "task.step in graph.sequels", "task.step == graph.on_failure"),),
    ),
    # timers
    Bug("a timer is never armed", TRIED_AGAIN, (Edit("await_wakers", "(yield Arm(task, record))", "False"),)),
    Bug(
        "a timer is armed before its record is stored",
        TRIED_AGAIN,
        (
            Edit(
                "seal",
                "    stored: JoinRecord = yield StoreJoin(task, record)\n    yield from await_wakers(task, stored)",
                "    if record.until is not None:\n        yield Arm(task, record)\n"
                "    stored = yield StoreJoin(task, record)\n    yield from await_wakers(task, stored)",
            ),
        ),
    ),
    Bug(
        "a redelivery does not arm",
        TRIED_AGAIN,
        (Edit("redelivered", "yield from await_wakers(task, ended.join, graph)", "pass"),),
    ),
    Bug("a task is acknowledged before its timer is armed", TRIED_AGAIN, rules=Rules(shell=AcksBeforeTheTimer)),
    Bug(
        "a time that has come wakes nobody",
        TRIED_AGAIN,
        (Edit("await_wakers", "yield from wake(task, record.tried)", "pass"),),
    ),
    Bug("a timer is acknowledged before it has woken", TRIED_AGAIN, rules=Rules(shell=AcksTheTimerFirst)),
    Bug("a timer forgets the attempts", TRIED_AGAIN, rules=Rules(shell=ForgetsAttempts)),
    Bug(
        "a step that waits for a time is counted",
        "an attempt is made again after a park",
        (Edit("await_wakers", "elif record.counted:", "if True:"),),
        rules=Rules(broker=LooksAtTimes),
    ),
    Bug(
        "a join with a deadline is not counted",
        "a join with a deadline whose timer is lost",
        (Edit("await_wakers", "elif record.counted:", "elif record.until is None:"),),
    ),
    Bug(
        "a sleeper is counted",
        "a step sleeps after a park",
        (Edit("await_wakers", "elif record.counted:", "if True:"),),
        rules=Rules(broker=LooksAtTimes),
    ),
    Bug(
        "a look takes a sleeper for complete",
        "a step sleeps after a park",
        rules=Rules(broker=LooksAtTimes),
    ),
    Bug("a sleep counts as an attempt", "a step sleeps", rules=Rules(shell=CountsSleeps)),
    Bug("a sleeper is not armed", "a step sleeps", (Edit("await_wakers", "(yield Arm(task, record))", "False"),)),
    Bug(
        "a redelivery does not arm a sleeper",
        "a step sleeps twice",
        (Edit("redelivered", "yield from await_wakers(task, ended.join, graph)", "pass"),),
    ),
    Bug(
        "a step without a time is woken by it",
        "a join with a deadline, then one without",
        (Edit("await_wakers", "record.until is not None and (yield", "(yield"),),
    ),
)
