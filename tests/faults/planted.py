"""The faults of the shell. Each replaces one piece of one module, which has to be there exactly once."""

from __future__ import annotations

from typing import Final

from tests.faults.planted_below import BROKER, EFFECTS
from tests.faults.planted_beside import PROCESSES
from tests.faults.planted_hedging import HEDGING
from tests.faults.planted_in_batches import BATCHES
from tests.faults.planted_in_dashboard import DASHED
from tests.faults.planted_in_events import IN_EVENTS
from tests.faults.planted_in_levels import BOUNDED, LEVELS
from tests.faults.planted_in_processes import IN_PROCESSES
from tests.faults.planted_in_steps import CROWDED, LIMITED_STEPS
from tests.faults.planted_in_time import IN_TIME
from tests.faults.planted_looking import LOOKING
from tests.faults.planted_loosening import LOOSENING
from tests.faults.planted_within import WITHIN
from tests.faults.playing import Fault
from tests.faults.suites import (
    ATTEMPTS,
    BLOCKING,
    CANCELLING,
    FAILING,
    FLEETS,
    FOREIGN,
    FORKS,
    KEPT,
    LIMITS,
    NETS,
    ONCE,
    PAUSES,
    PERMISSIONS,
    STOPPING,
    TIMERS,
    TROUBLE,
    WAITING,
    WIRE,
)

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
        "            self.hold(delivery)\n            return True",
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
        "await self._deliveries.begin(delivery, task, work.attempt)",
        "pass",
        (f"{ATTEMPTS}::test_what_is_delivered_again_is_recorded_as_it_begins",),
    ),
    Fault(
        "what is delivered again while it runs here runs beside itself",
        "worker/deliveries.py",
        "if here is delivery or here.sequence != delivery.sequence:",
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
        "if (delivery.again or step.context_name is not None) and self._is_cancelled(work):",
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
        "elif work.attempt > step.retry.attempts:",
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
        "Header.SCHEDULE_TARGET, Header.ATTEMPT, *TRAVELS)",
        "Header.SCHEDULE_TARGET, *TRAVELS)",
        (f"{TROUBLE}::test_a_timer_that_is_due_while_the_account_is_full_fires_afterwards",),
    ),
    Fault(
        "a sweep puts no first task back",
        "worker/sweeper.py",
        "                await self._kept.look()\n",
        "",
        (f"{KEPT}::test_a_worker_puts_back_what_a_client_could_not",),
    ),
    Fault(
        "a first task is put back although its tree was deleted",
        "worker/kept.py",
        "if await self._is_deleted(first):\n            if is_old",
        "if False:\n            if is_old",
        (f"{KEPT}::test_nothing_is_put_back_of_a_deleted_tree",),
    ),
    Fault(
        "a copy of a first task is removed at once",
        "worker/kept.py",
        "is_old = time() - copy.time > OLD",
        "is_old = True",
        (f"{KEPT}::test_what_was_put_back_is_not_needed_twice",),
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
        "await self._wakes.all([parked for _, parked in steps])",
        "pass",
        (f"{TIMERS}::test_the_next_attempt_is_made_by_another_worker",),
    ),
    Fault(
        "a timer of a run that has ended wakes it",
        "worker/wakes.py",
        "        if over:  # but what runs when its run has failed goes on",
        "        over.clear()\n        if over:",
        (f"{TIMERS}::test_a_timer_of_a_cancelled_run_starts_nothing",),
    ),
    Fault(
        "a lost consumer of events begins with those that come",
        "worker/event_runs.py",
        "since=max(time() - back, 0.0 if declared is None else declared.time),",
        "since=time(),",
        (
            "tests/integration/test_nets.py::test_events_that_were_never_given_to_anybody_start_runs_when_their_consumer_was_lost",
        ),
    ),
    Fault(
        "a request to look is acknowledged, and nobody looks",
        "worker/inbox.py",
        "await self._performer.run(settle(StepAddress(root, run, step)))",
        "pass",
        (f"{WIRE}::test_the_last_raw_child_asks_for_the_look",),
    ),
    Fault(
        "a request to look at one gate is acknowledged, and nobody looks",
        "worker/inbox.py",
        "await self._performer.gates.look(LookAtGate(Place(limit, key)))",
        "pass",
        ("tests/fundamentals/test_28_limiting.py::test_another_sdk_removes_an_entry_and_asks_for_a_look",),
    ),
    Fault(
        "a trigger of an unknown workflow is lost unseen",
        "worker/starting.py",
        "await self._fail(_nowhere(workflow, run, key), error)",
        "pass",
        (f"{WIRE}::test_an_unknown_workflow_is_a_failed_run",),
    ),
)

BODIES: Final = (
    Fault(
        "a step that waits keeps its slot",
        "worker/waiting.py",
        "            self.holds_slot = False\n            self._slots.give_back()\n        self._outside",
        "            pass\n        self._outside",
        (f"{WAITING}::test_a_waiting_step_holds_no_slot",),
    ),
    Fault(
        "the clock of a step goes on while it waits",
        "worker/clock.py",
        "self.timeout.reschedule(None)",
        "pass",
        (f"{FAILING}::test_waiting_for_children_does_not_use_up_the_timeout",),
    ),
    Fault(
        "a value of ctx.once is the one that was computed, not the one that was recorded",
        "worker/execution.py",
        "return body if receipt.stored else await self.recorded(name)",
        "return body",
        (f"{ONCE}::test_the_first_value_wins",),
    ),
)

THREADS: Final = (
    Fault(
        "what goes on in a thread when its worker stops is handed back at once",
        "worker/executor.py",
        "if body.call is not None and body.call.is_hung:",
        "if False:",
        (f"{STOPPING}::test_what_goes_on_in_a_thread_is_begun_by_nobody_else",),
    ),
    Fault(
        "nobody keeps alive what goes on in a thread when its worker has stopped",
        "worker/leftovers.py",
        "connection.send(reply, IN_PROGRESS)",
        "pass",
        (f"{STOPPING}::test_what_goes_on_in_a_thread_is_begun_by_nobody_else",),
    ),
    Fault(
        "what went on in a thread is never handed back",
        "worker/leftovers.py",
        "                    connection.send(reply, NAK)\n",
        "",
        (f"{STOPPING}::test_what_has_gone_on_in_a_thread_is_handed_back_when_it_returns",),
    ),
    Fault(
        "a step in a thread is not told that its time is over",
        "worker/bodies.py",
        "work.error, body.is_void = error, True",
        "work.error = error",
        (f"{STOPPING}::test_a_step_in_a_thread_is_told_that_its_time_is_over",),
    ),
    Fault(
        "threads that hang are not counted",
        "worker/threads.py",
        "sum(call.is_hung for call in list(under_way)) > more_than",
        "False",
        (f"{STOPPING}::test_threads_that_hang_do_not_grow_without_bound",),
    ),
    Fault(
        "a signal that a forked child gets goes to its parent's loop",
        "forks.py",
        "if signal.set_wakeup_fd(-1) != -1:",
        "if False:",
        (f"{FORKS}::test_a_worker_outlives_the_forks_of_its_steps",),
    ),
    Fault(
        "a forked child that comes back goes on as its parent does",
        "forks.py",
        "    return born != _generation",
        "    return False",
        (f"{FORKS}::test_a_client_says_so_in_a_forked_child",),
    ),
    Fault(
        "a forked child holds the pipe of the server's guard",
        "server.py",
        "forks.close_here(self._process.stdin.fileno())",
        "pass",
        (f"{FORKS}::test_a_child_holds_neither_the_connection_nor_the_servers_guard",),
    ),
)

_OF_WORKERS: Final = (*DELIVERIES, *HEARTBEATS, *SERVICES, *BODIES, *THREADS, *IN_PROCESSES)

_LIMITS: Final = (*WITHIN, *LEVELS, *BOUNDED, *LIMITED_STEPS, *CROWDED)

_BESIDE: Final = (*LOOKING, *DASHED, *IN_TIME, *IN_EVENTS, *BATCHES, *_LIMITS, *LOOSENING, *HEDGING)

FAULTS: Final = (*_OF_WORKERS, *EFFECTS, *BROKER, *PROCESSES, *_BESIDE)
