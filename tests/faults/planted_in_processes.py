"""The faults of steps in processes."""

from __future__ import annotations

from typing import Final

from tests.faults.playing import Fault
from tests.faults.suites import PROCESSES

IN_PROCESSES: Final = (
    Fault(
        "processes: one whose step is ended from outside goes on",
        "processes/pool_process.py",
        "        except asyncio.CancelledError:\n            await self.kill()\n            raise",
        "        except asyncio.CancelledError:\n            raise",
        (f"{PROCESSES}::test_a_timeout_kills",),
    ),
    Fault(
        "processes: what one has started outlives it",
        "processes/pool_process.py",
        "os.killpg(self.pid, signal.SIGKILL)",
        "os.kill(self.pid, signal.SIGKILL)",
        (f"{PROCESSES}::test_a_timeout_kills",),
    ),
    Fault(
        "processes: the kernel is not asked to end those of a dead worker",
        "processes/pool_link.py",
        "fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC",
        "fcntl.fcntl(lifeline, fcntl.F_GETFL)",
        (f"{PROCESSES}::test_processes_end_with_a_worker_that_is_killed",),
    ),
    Fault(
        "processes: the death of an idle one costs an attempt",
        "worker/bodies.py",
        "if process.has_begun or not left:",
        "if True:",
        (f"{PROCESSES}::test_a_process_that_dies_idle_costs_no_attempt",),
    ),
    Fault(
        "processes: tasks are fetched for them as if they were slots",
        "worker/services.py",
        "            return self.fetchers[1]",
        "            return self.fetcher",
        (f"{PROCESSES}::test_no_more_are_fetched_than_there_are_processes",),
    ),
    Fault(
        "processes: a request that has ended is made again before the last task has its slot",
        "broker/puller.py",
        "self._loop.call_soon(self._still_want)",
        "self._still_want()",
        (f"{PROCESSES}::test_no_more_are_fetched_than_there_are_processes",),
    ),
    Fault(
        "processes: a step that waits keeps its place",
        "worker/bodies.py",
        "slots=work.slots or self._slots,",
        "slots=self._slots,",
        (f"{PROCESSES}::test_steps_that_wait_hold_no_place",),
    ),
    Fault(
        "processes: any number of them waits",
        "worker/bodies.py",
        "return not self._bodies.stopping and self.waiting < self._most",
        "return not self._bodies.stopping",
        (f"{PROCESSES}::test_steps_that_wait_hold_no_place",),
    ),
    Fault(
        "processes: every error is worth another attempt",
        "worker/in_process.py",
        "is_final=is_final(error, step.retry)",
        "is_final=False",
        (f"{PROCESSES}::test_an_error_is_told_as_if_it_had_been_raised_in_a_thread",),
    ),
    Fault(
        "processes: none is ever replaced",
        "processes/pool.py",
        "process.steps >= options.steps",
        "False",
        (f"{PROCESSES}::test_processes_are_warm_and_replaced_after_a_while",),
    ),
    Fault(
        "processes: they outlive their worker's end",
        "worker/services.py",
        "            await self.pool.close()",
        "            pass",
        (f"{PROCESSES}::test_processes_are_warm_and_replaced_after_a_while",),
    ),
    Fault(
        "processes: want of memory is not told",
        "processes/pool_memory.py",
        "return now - self._at < _JUST_NOW",
        "return False",
        (f"{PROCESSES}::test_a_process_that_the_kernel_has_killed_for_memory_is_told_so",),
    ),
    Fault(
        "processes: what they execute ignores Ctrl-C, too",
        "processes/pool_child.py",
        "signal.signal(signal.SIGINT, _ignored)",
        "signal.signal(signal.SIGINT, signal.SIG_IGN)",
        (f"{PROCESSES}::test_ctrl_c_is_the_workers",),
    ),
    Fault(
        "processes: a forked child asks its parent's worker",
        "processes/pool_host.py",
        "if forks.is_child(self._born):",
        "if False:",
        (f"{PROCESSES}::test_a_forked_child_of_a_process_is_told_apart",),
    ),
)
