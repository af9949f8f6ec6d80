"""Faults below the worker: in what runs and the broker are to it."""

from __future__ import annotations

from typing import Final

from tests.faults.playing import Fault
from tests.faults.suites import (
    BROKER_PARTS,
    CANCELLING,
    CHILDREN,
    DELETING,
    FAILING,
    IDENTITY,
    JOINS,
    KEPT,
    LARGE,
    NETS,
    SHARED,
    TIMERS,
    TROUBLE,
)

EFFECTS: Final = (
    Fault(
        "increments are lost",
        "runs/performer.py",
        "self._publisher.count(counter, effect.by, partial",
        "self._publisher.count(counter, 0, partial",
        (f"{CHILDREN}::test_a_step_is_complete_when_its_children_are",),
    ),
    Fault(
        "the next turn is numbered + 2",
        "runs/performer.py",
        "task.parent, task.run, effect.turn)",
        "task.parent, task.run, effect.turn and effect.turn + 1)",
        (f"{NETS}::test_the_turns_of_a_step_are_numbered_without_gaps",),
    ),
    Fault(
        "an outcome that was stored before is not read",
        "runs/performer.py",
        "        else:\n            self._store_for_sure(write, procedure, done)",
        "        else:\n            self._advance(procedure, write.outcome, done)",
        (f"{NETS}::test_who_comes_second_goes_on_by_the_outcome_that_is_stored",),
    ),
    Fault(
        "a redelivered task does not find that its run has ended",
        "runs/performer.py",
        "run=None if run is None else decode_outcome(run.body)",
        "run=None",
        (f"{NETS}::test_a_redelivered_task_finds_that_its_run_has_ended",),
    ),
    Fault(
        "the rest of a decided join is not cancelled",
        "runs/performer.py",
        "        if children:\n            await cancel_children",
        "        if False:\n            await cancel_children",
        (f"{JOINS}::test_cancelling_the_rest_of_many",),
    ),
    Fault(
        "ids of outcomes are remembered through a reconnect",
        "runs/looks.py",
        "session.connection.on_reconnect(self._forget_stored)",
        "pass",
        (f"{NETS}::test_ids_of_outcomes_are_forgotten_at_a_reconnect",),
    ),
    Fault(
        "marks of children that failed are not read",
        "runs/looks.py",
        "marked.update(child.hex() for child in split_ids(page))",
        "pass",
        (f"{FAILING}::test_a_failed_child_fails_a_step_that_did_not_look",),
    ),
    Fault(
        "an outcome that nobody spawned is counted",
        "runs/looks.py",
        "        if tally.disputed:\n            _log",
        "        if False:\n            _log",
        (f"{JOINS}::test_an_outcome_that_nobody_spawned_stands_in_for_no_child",),
    ),
    Fault(
        "a borrowed child is taken for done",
        "runs/looks.py",
        "            if await self._store.leader_last(self._names.records_stream, subject) is not None:\n"
        "                borrowed",
        "            if True:\n                borrowed",
        (f"{IDENTITY}::test_a_shared_child_holds_back_both_steps",),
    ),
    Fault(
        "what is held until its time is forgotten when the worker stops",
        "runs/timers.py",
        "            self.on_holding(-1)\n            self._publish(effect, armed)",
        "            self.on_holding(-1)\n            armed(False, None)",
        (f"{TIMERS}::test_a_worker_that_stops_gives_what_it_holds_to_the_broker",),
    ),
    Fault(
        "the first task of a cancelled tree is not put back",
        "runs/cancelling.py",
        "        await kept.put_back()\n",
        "",
        (f"{CANCELLING}::test_a_key_of_a_cancelled_run_stays_bound_to_its_input",),
    ),
    Fault(
        "there is no copy of a first task when it is purged",
        "runs/cancelling.py",
        "        await kept.keep()\n",
        "",
        (f"{KEPT}::test_a_worker_puts_back_what_a_client_could_not",),
    ),
    Fault(
        "the outcome of a shared child is not compared with those under other steps",
        "runs/performer.py",
        "        if not task.shared:\n",
        "        if True:\n",
        (f"{SHARED}::test_a_shared_child_whose_task_was_removed_ends_once[in the record]",),
    ),
    Fault(
        "the large outcome of a shared child is not compared with those under other steps",
        "runs/performer.py",
        "        write = self._end_of(task, outcome, encode(outcome))\n        stored",
        "        write = self._end_of(msgspec.structs.replace(task, shared=False), outcome, encode(outcome))\n"
        "        stored",
        (f"{SHARED}::test_a_shared_child_whose_task_was_removed_ends_once[by reference]",),
    ),
    Fault(
        "who is refused an outcome waits for one under its own step",
        "runs/performer.py",
        "        return _Write(group, Item(subject, headers, body), taken, outcome)",
        "        return _Write(group, Item(subject, headers, body), subject, outcome)",
        (f"{SHARED}::test_a_shared_child_whose_task_was_removed_ends_once[in the record]",),
    ),
    Fault(
        "children of steps that stand in line are compared, too",
        "worker/execution.py",
        "shared=task.step not in work.known_graph.in_line,",
        "shared=True,",
        (f"{SHARED}::test_only_what_may_be_shared_is_compared_with_other_steps",),
    ),
    Fault(
        "a client removes the copy by which a task of a deleted tree is found",
        "runs/keeping.py",
        "if not await was_deleted(self._session, self._first.root):",
        "if True:",
        (f"{KEPT}::test_what_was_put_back_while_its_tree_was_deleted_is_removed",),
    ),
    Fault(
        "what a cancel removes is not noted",
        "runs/cancelling.py",
        "    if children:\n        await session.publisher.store(",
        "    if False:\n        await session.publisher.store(",
        (f"{CANCELLING}::test_what_a_cancel_removed_is_told",),
    ),
    Fault(
        "a deleted run is started again under its key",
        "runs/targets.py",
        "if task.key is not None and await was_deleted(session, task.run):",
        "if False:",
        (f"{DELETING}::test_a_key_of_a_deleted_run_is_refused_by_name",),
    ),
    Fault(
        "a task of one attempt is given up at the first silence",
        "worker/executor.py",
        "range(ASKED_AGAIN if work.may_run_elsewhere else 0)",
        "range(0)",
        ("tests/endings/test_attempts.py::test_a_worker_that_comes_back_keeps_its_last_attempt",),
    ),
    Fault(
        "a mark of many deleted trees is not read",
        "worker/cancellation.py",
        'if mark.startswith(b"["):',
        "if False:",
        (f"{DELETING}::test_trees_whose_time_is_over_share_a_mark",),
    ),
    Fault(
        "trees whose time is over leave no mark",
        "worker/history.py",
        "        if lately:",
        "        if False:",
        (f"{DELETING}::test_trees_whose_time_is_over_share_a_mark",),
    ),
    Fault(
        "a tree that does not fit into one answer keeps its tasks",
        "runs/deleting.py",
        "if tasks is None or not records:",
        "if False:",
        (f"{DELETING}::test_a_tree_of_more_than_one_answer_holds",),
    ),
    Fault(
        "a large value is not held against its digest",
        "runs/values.py",
        "if cut_hash(data).hex() != digest:",
        "if False:",
        (f"{LARGE}::test_a_changed_input_is_noticed",),
    ),
)

BROKER: Final = (
    Fault(
        "a full stream is taken for a message that is stored",
        "broker/publisher.py",
        "if refusal is Refusal.TAKEN:",
        "if refusal in (Refusal.TAKEN, Refusal.PASSING):",
        (f"{TROUBLE}::test_a_trigger_into_a_full_stream_says_so",),
    ),
    Fault(
        "of those who count together the first alone is called back",
        "broker/publisher.py",
        "for other in waiting[1:]:",
        "for other in waiting[:0]:",
        (f"{BROKER_PARTS}::test_each_of_those_who_count_together_is_told",),
    ),
    Fault(
        "a denied publish is told to nobody",
        "broker/connection.py",
        "denial(subject)",
        "pass",
        (f"{TROUBLE}::test_a_trigger_that_is_not_allowed_is_refused_by_name",),
    ),
    Fault(
        "a consumer that was deleted is not made again",
        "broker/puller.py",
        "            self._recreate()\n",
        "            pass\n",
        (f"{NETS}::test_a_consumer_that_was_deleted_is_made_again",),
    ),
    Fault(
        "a publish that nobody has answered is not sent again",
        "broker/publisher.py",
        '            self._again(token, "no stream answers")\n            return',
        "            self._settle(token, Receipt(stored=True))\n            return",
        (f"{NETS}::test_a_publish_that_nobody_answers_is_sent_again",),
    ),
)
