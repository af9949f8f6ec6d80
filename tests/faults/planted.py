"""The faults of the shell. Each replaces one piece of one module, which has to be there exactly once."""

from __future__ import annotations

from typing import Final

from tests.faults.playing import Fault

ATTEMPTS: Final = "tests/endings/test_attempts.py"
BLOCKING: Final = "tests/fundamentals/test_08_blocking.py"
BROKER_PARTS: Final = "tests/integration/test_broker.py"
CANCELLING: Final = "tests/endings/test_cancelling.py"
CHILDREN: Final = "tests/fundamentals/test_04_children.py"
DELETING: Final = "tests/endings/test_deleting.py"
FAILING: Final = "tests/fundamentals/test_06_failing.py"
FLEETS: Final = "tests/endings/test_fleets.py"
FOREIGN: Final = "tests/endings/test_foreign_records.py"
IDENTITY: Final = "tests/fundamentals/test_05_identity.py"
JOINS: Final = "tests/endings/test_joins.py"
LARGE: Final = "tests/endings/test_large_values.py"
LIMITS: Final = "tests/fundamentals/test_09_limits.py"
NETS: Final = "tests/integration/test_nets.py"
ONCE: Final = "tests/endings/test_once.py"
PAUSES: Final = "tests/endings/test_pauses.py"
PERMISSIONS: Final = "tests/endings/test_permissions.py"
TIMERS: Final = "tests/endings/test_timers.py"
TRIGGERING: Final = "tests/fundamentals/test_02_triggering.py"
TROUBLE: Final = "tests/endings/test_trouble.py"
WAITING: Final = "tests/fundamentals/test_07_waiting.py"
WIRE: Final = "tests/integration/test_wire.py"

DELIVERIES: Final = (
    Fault(
        "a task is acknowledged although its outcome was not taken",
        "worker/recorder.py",
        "if error is None:\n            self._record_less(work.size)\n            self._deliveries.ack(work.delivery)",
        "if True:\n            self._record_less(work.size)\n            self._deliveries.ack(work.delivery)",
        (f"{PERMISSIONS}::test_an_outcome_that_may_not_be_recorded_is_kept_until_it_may",),
    ),
    Fault(
        "what is held is not kept alive",
        "worker/deliveries.py",
        "            self.held[delivery.reply] = monotonic()\n            return True",
        "            return True",
        (f"{BLOCKING}::test_a_step_may_run_longer_than_ack_wait",),
    ),
    Fault(
        "heartbeats go by what a worker has asked for, and not by what the consumer has",
        "worker/pullers.py",
        "self._on_ack_wait(consumer.ack_wait)",
        "self._on_ack_wait(self._ack_wait)",
        (f"{ATTEMPTS}::test_heartbeats_go_by_what_the_consumer_has",),
    ),
    Fault(
        "a task that is handed back counts as an attempt",
        "worker/deliveries.py",
        "error=failure, returned=True",
        "error=failure, returned=False",
        (f"{FAILING}::test_a_task_that_a_stopping_worker_hands_back_has_not_failed",),
    ),
    Fault(
        "each delivery counts as an attempt",
        "worker/executor.py",
        "work.attempt = task.tried + attempts_made(tried) + 1",
        "work.attempt = task.tried + delivery.count",
        (f"{ATTEMPTS}::test_deliveries_that_reach_nobody_are_no_attempts",),
    ),
    Fault(
        "what is delivered again begins without a record",
        "worker/executor.py",
        "await self._deliveries.begin(work.delivery, work.task, work.attempt)",
        "pass",
        (f"{ATTEMPTS}::test_what_is_delivered_again_is_recorded_as_it_begins",),
    ),
    Fault(
        "what is delivered again while it runs here runs beside itself",
        "worker/deliveries.py",
        "if here is None or here.sequence != delivery.sequence:",
        "if True:",
        (f"{ATTEMPTS}::test_what_is_delivered_again_while_it_runs_goes_on_under_the_new_delivery",),
    ),
    Fault(
        "a malformed message is rejected without a word to the server",
        "worker/deliveries.py",
        "self._session.connection.send(delivery.reply, TERM)",
        "pass",
        (f"{LIMITS}::test_a_message_that_is_no_task_is_rejected",),
    ),
    Fault(
        "a task whose run was cancelled meanwhile starts",
        "worker/executor.py",
        "if waited and self._is_cancelled(work):",
        "if False:",
        (f"{CANCELLING}::test_a_task_that_is_delivered_again_while_its_run_is_cancelled_does_not_start",),
    ),
    Fault(
        "what a live worker runs is begun beside it",
        "worker/executor.py",
        "elif work.may_run_elsewhere and await self._is_held(work):",
        "elif False:",
        (f"{ATTEMPTS}::test_what_a_live_worker_runs_is_not_begun_beside_it",),
    ),
    Fault(
        "a worker does not see that it was paused",
        "worker/fetching.py",
        "self._awake_until = now + max(AWAKE_WITHIN, self._deliveries.ack_wait / 2)",
        "self._awake_until = inf",
        (f"{PAUSES}::test_what_was_sent_to_a_paused_worker_is_looked_at_before_it_begins",),
    ),
    Fault(
        "what comes soon after a pause begins without a look",
        "worker/fetching.py",
        "        if self._doubts:\n            delivery.again = True\n",
        "",
        (f"{PAUSES}::test_what_comes_soon_after_a_pause_is_looked_at_too",),
    ),
    Fault(
        "a worker takes the places of a step that its version does not have",
        "worker/pullers.py",
        "is_declared=declared is not None,",
        "is_declared=True,",
        (f"{FLEETS}::test_a_step_that_newer_versions_do_not_have_keeps_its_places",),
    ),
    Fault(
        "each task that was delivered again is a question",
        "broker/holders.py",
        "if tasks and size + len(task) >= most:",
        "if tasks:",
        (f"{ATTEMPTS}::test_many_tasks_that_are_delivered_again_are_asked_about_together",),
    ),
    Fault(
        "two workers that ask one another both leave the task",
        "worker/deliveries.py",
        "return subject not in self._asking or self._session.holders.name < asker",
        "return True",
        (f"{ATTEMPTS}::test_of_two_workers_that_ask_one_another_one_goes_on",),
    ),
    Fault(
        "a task that kills its workers is run for ever",
        "worker/executor.py",
        "elif work.attempt > work.step.retry.attempts:",
        "elif False:",
        (f"{FAILING}::test_a_task_that_kills_its_workers_is_poison",),
    ),
)

HEARTBEATS: Final = (
    Fault(
        "heartbeats end after the first",
        "worker/heartbeat.py",
        "self._send(connecting, list(beaten))\n",
        "self._send(connecting, list(beaten))\n                    if beaten:\n                        return\n",
        (f"{BLOCKING}::test_a_step_may_run_longer_than_ack_wait",),
    ),
    Fault(
        "heartbeats leave with the event loop that a step blocks",
        "worker/heartbeat.py",
        "if beaten and (connecting is None or _has_failed(connecting)):",
        "if False:",
        (f"{BLOCKING}::test_a_step_that_blocks_the_event_loop_keeps_its_task",),
    ),
    Fault(
        "a step that blocks the event loop is not told of",
        "worker/heartbeat.py",
        "elif now - self._asked >= BLOCKED_AFTER and",
        "elif False and",
        (f"{BLOCKING}::test_a_step_that_blocks_the_event_loop_keeps_its_task",),
    ),
)

SERVICES: Final = (
    Fault(
        "the sweeper looks at nothing",
        "worker/sweeper.py",
        "for subject in random.sample(page, min(len(page), JOINS_A_SWEEP)):",
        "for subject in page[:0]:",
        (f"{FOREIGN}::test_the_sweeper_ends_the_run_of_a_join_record_that_cannot_be_read",),
    ),
    Fault(
        "the sweeper sweeps once",
        "worker/sweeper.py",
        "                await self.sweep()\n",
        "                await self.sweep()\n                return\n",
        (f"{FOREIGN}::test_the_sweeper_goes_on_sweeping",),
    ),
    Fault(
        "overdue timers are left as they are",
        "worker/sweeper.py",
        "                await self._overdue.arm_again()\n",
        "",
        (f"{TROUBLE}::test_a_timer_that_is_due_while_the_account_is_full_fires_afterwards",),
    ),
    Fault(
        "an overdue timer is armed without the attempts made",
        "worker/overdue.py",
        "_KEPT: Final = (Header.SCHEDULE, Header.SCHEDULE_TARGET, Header.ATTEMPT)",
        "_KEPT: Final = (Header.SCHEDULE, Header.SCHEDULE_TARGET)",
        (f"{TROUBLE}::test_a_timer_that_is_due_while_the_account_is_full_fires_afterwards",),
    ),
    Fault(
        "the sweeper leaves the counters of joins that are done",
        "worker/sweeper.py",
        'await self._session.connection.api(f"STREAM.PURGE.{names.counters_stream}", {"filter": counter})\n'
        "            return False\n        next_turn",
        "return False\n        next_turn",
        (f"{FOREIGN}::test_the_sweeper_ends_the_run_of_a_join_record_that_cannot_be_read",),
    ),
    Fault(
        "marks of cancelled runs are not read at the start",
        "worker/cancellation.py",
        "        await self._read()\n\n    async def stop",
        "\n    async def stop",
        (f"{CANCELLING}::test_a_worker_that_starts_later_knows",),
    ),
    Fault(
        "marks of cancelled runs are not read after a reconnect",
        "worker/cancellation.py",
        "self._session.connection.on_reconnect(self._catch_up)",
        "lambda: None",
        (f"{NETS}::test_marks_that_were_missed_are_read_after_a_reconnect",),
    ),
    Fault(
        "a mark that is heard of is told to nobody",
        "worker/cancellation.py",
        "        self._add_all(message.subject, message.data)\n        self.on_cancelled()",
        "        self._add_all(message.subject, message.data)",
        (f"{CANCELLING}::test_a_running_step_gets_cancelled_error",),
    ),
    Fault(
        "a timer that has fired wakes nobody",
        "worker/waking.py",
        "await self._performer.run(wake(task, int(tried)))",
        "pass",
        (f"{TIMERS}::test_the_next_attempt_is_made_by_another_worker",),
    ),
    Fault(
        "a timer of a run that has ended wakes it",
        "worker/waking.py",
        "task is not None and await self._may_run(task)",
        "task is not None",
        (f"{TIMERS}::test_a_timer_of_a_cancelled_run_starts_nothing",),
    ),
    Fault(
        "a request to look is acknowledged, and nobody looks",
        "worker/inbox.py",
        "await self._performer.run(settle(StepAddress(root, run, step)))",
        "pass",
        (f"{WIRE}::test_the_last_raw_child_asks_for_the_look",),
    ),
    Fault(
        "a trigger of an unknown workflow is lost unseen",
        "worker/inbox.py",
        "await self._fail(_nowhere(workflow, run, key), error)",
        "pass",
        (f"{WIRE}::test_an_unknown_workflow_is_a_failed_run",),
    ),
)

BODIES: Final = (
    Fault(
        "a step that waits keeps its slot",
        "worker/waiting.py",
        "            self.holds_slot = False\n            self._slots.give_back()",
        "            pass",
        (f"{WAITING}::test_a_waiting_step_holds_no_slot",),
    ),
    Fault(
        "the clock of a step goes on while it waits",
        "worker/waiting.py",
        "self.pause.reschedule(None)",
        "pass",
        (f"{FAILING}::test_waiting_for_children_does_not_use_up_the_timeout",),
    ),
    Fault(
        "a value of ctx.once is the one that was computed, not the one that was recorded",
        "worker/execution.py",
        "            if receipt.stored:\n                return ANY.decode(body)",
        "            if receipt:\n                return ANY.decode(body)",
        (f"{ONCE}::test_the_first_value_wins",),
    ),
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
        "        else:\n            self._store_for_sure((group.stream, item, outcome), procedure, done)",
        "        else:\n            self._advance(procedure, outcome, done)",
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
        "await session.publisher.store(session.names.task_of(first), first.input, header_block(headers))",
        "pass",
        (f"{CANCELLING}::test_a_key_of_a_cancelled_run_stays_bound_to_its_input",),
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
        "for _ in range(ASKED_AGAIN):",
        "for _ in range(0):",
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

FAULTS: Final = (*DELIVERIES, *HEARTBEATS, *SERVICES, *BODIES, *EFFECTS, *BROKER)
