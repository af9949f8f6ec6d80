"""Faults beside the worker: in who watches it, and starts it again."""

from __future__ import annotations

from typing import Final

from tests.faults.playing import Fault
from tests.faults.suites import GUARD, SUPERVISOR

PROCESSES: Final = (
    Fault(
        "a guard gives nothing back",
        "processes/guard.py",
        "                await self._release()\n",
        "                pass\n",
        (f"{GUARD}::test_a_task_whose_worker_dies_is_delivered_again_at_once",),
    ),
    Fault(
        "a guard records no loss",
        "processes/releasing.py",
        "await self._record(held, reason)",
        "pass",
        (f"{GUARD}::test_a_task_whose_worker_dies_is_delivered_again_at_once",),
    ),
    Fault(
        "a guard counts what had not begun",
        "processes/releasing.py",
        "if held.started:",
        "if True:",
        (f"{GUARD}::test_what_had_not_begun_is_no_attempt",),
    ),
    Fault(
        "what a worker never saw is not looked for",
        "processes/releasing.py",
        'if int(consumer.state["num_ack_pending"]) <= len(own):',
        "if True:",
        (f"{GUARD}::test_what_a_worker_was_given_and_never_saw_is_given_back",),
    ),
    Fault(
        "a guard gives back what other workers have fetched",
        "worker/deliveries.py",
        "            return here is not None\n",
        "            return here is not None and here.running is not None\n",
        (f"{GUARD}::test_what_a_worker_was_given_and_never_saw_is_given_back",),
    ),
    Fault(
        "a guard keeps nothing alive",
        "processes/guard.py",
        "self._connection.send(reply, IN_PROGRESS)",
        "pass",
        (f"{GUARD}::test_a_call_that_lets_nothing_else_run_loses_no_task",),
    ),
    Fault(
        "a guard keeps alive what a stopped process holds",
        "processes/guard.py",
        " and not is_stopped(self._watched.pid)",
        "",
        (f"{GUARD}::test_a_worker_that_is_stopped_by_a_signal_keeps_nothing_from_others",),
    ),
    Fault(
        "a guard that has died is not replaced",
        "processes/guarding.py",
        "            self._stopping.wait(pause)\n",
        "            return\n",
        (f"{GUARD}::test_a_guard_that_dies_is_replaced",),
    ),
    Fault(
        "a forked child holds open what its parent's death closes",
        "processes/guarding.py",
        "        forks.in_child(self, Guarding._leave)\n",
        "",
        (f"{GUARD}::test_a_child_that_outlives_the_worker_hides_its_death_from_nobody",),
    ),
    Fault(
        "a worker relies on a guard that is away",
        "worker/deliveries.py",
        "self._table is not None and monotonic() - self._table.beaten <= within",
        "self._table is not None",
        (f"{GUARD}::test_a_worker_whose_guard_stands_still_keeps_its_tasks_alive_itself",),
    ),
    Fault(
        "the guard does not hear that a body begins",
        "worker/executor.py",
        "        self._deliveries.begin_body(delivery, started)\n",
        "",
        (f"{GUARD}::test_a_task_whose_worker_dies_is_delivered_again_at_once",),
    ),
    Fault(
        "a supervisor starts nothing again",
        "processes/supervisor.py",
        "        self.due = now + pause\n",
        "",
        (f"{SUPERVISOR}::test_a_worker_process_that_dies_is_started_again",),
    ),
    Fault(
        "a supervisor leaves the ends of orphans where they are",
        "processes/supervisor.py",
        "os.waitpid(-1, os.WNOHANG)",
        "os.waitpid(next((one.pid for one in self._workers if one.pid), os.getpid()), os.WNOHANG)",
        (f"{SUPERVISOR}::test_the_first_process_of_a_container_takes_the_ends_of_orphans",),
    ),
    Fault(
        "a supervisor tells no guard how its worker has ended",
        "processes/supervisor.py",
        "os.write(self._status, str(status).encode())",
        "pass",
        (f"{SUPERVISOR}::test_a_worker_process_that_dies_is_started_again",),
    ),
)
