"""Faults of sleeps, of runs that begin later, and of schedules."""

from __future__ import annotations

from typing import Final

from tests.faults.playing import Fault

SLEEPING: Final = "tests/endings/test_sleeping.py"
DELAYS: Final = "tests/endings/test_delays.py"
SCHEDULES: Final = "tests/endings/test_schedules.py"

IN_TIME: Final = (
    Fault(
        "the end of a sleep is not recorded",
        "worker/execution.py",
        "return float(await self.once(name, lambda: end(time())))",
        "return end(time())",
        (f"{SLEEPING}::test_the_end_is_fixed_when_it_is_first_reached",),
    ),
    Fault(
        "a sleeper is parked without its time",
        "worker/waits.py",
        "min((wait.deadline for wait in waits if wait.deadline is not None), default=None),",
        "None,",
        (f"{SLEEPING}::test_a_step_sleeps_as_long_as_it_says[parked]",),
    ),
    Fault(
        "a step is parked while it finds out until when it sleeps",
        "worker/waiting.py",
        "if self._is_reading or self._arriving:",
        "if self._is_reading:",
        (f"{SLEEPING}::test_a_sleep_beside_a_child_ends_first",),
    ),
    Fault(
        "a sleep that outlasts its run is slept",
        "engine/sleeping.py",
        "if kept is not None and until >= began + kept:",
        "if False:",
        (f"{SLEEPING}::test_a_sleep_that_outlasts_what_is_kept_is_refused",),
    ),
    Fault(
        "a run that begins later replaces one of its key",
        "runs/delays.py",
        'headers = _armed(session, task, at) | {Header.EXPECTED_LAST: "0"}',
        "headers = _armed(session, task, at)",
        (f"{DELAYS}::test_a_key_is_one_run",),
    ),
    Fault(
        "a child begins at once",
        "worker/executor.py",
        "task.not_before > time()",
        "False",
        (f"{DELAYS}::test_a_child_begins_later",),
    ),
    Fault(
        "a debounced run is put off for ever",
        "runs/delays.py",
        "min(now + seconds, first + at_most)",
        "now + seconds",
        (f"{DELAYS}::test_a_debounced_run_is_put_off_so_long_and_no_longer",),
    ),
    Fault(
        "a tick is armed over a change",
        "runs/schedules.py",
        "        Header.EXPECTED_LAST: str(effect.sequence),\n        Header.EXPECTED_LAST_OF: names.schedule(name),\n",
        "",
        (f"{SCHEDULES}::test_a_zombie_arms_nothing_over_a_change",),
    ),
    Fault(
        "nobody mends a chain",
        "worker/ticking.py",
        "if (name, found.sequence) in self._idle:",
        "if False:",
        (f"{SCHEDULES}::test_a_chain_that_was_broken_by_hand_is_mended",),
    ),
    Fault(
        "what is declared no more stays",
        "runs/schedules.py",
        "            await delete(session, name)\n",
        "",
        (f"{SCHEDULES}::test_what_is_declared_is_stored_by_workers",),
    ),
    Fault(
        "a message is ended whatever kept a worker from handling it",
        "worker/answers.py",
        "if isinstance(error, Impossible):",
        "if not isinstance(error, BrokerError):",
        ("tests/endings/test_answers.py::test_a_sleep_ends_though_its_timer_could_not_be_handled",),
    ),
    Fault(
        "a timer of an unknown kind is ended",
        "worker/waking.py",
        "return self._leave(kind)",
        "return self._answers.reject(delivery, kind)",
        ("tests/endings/test_timers.py::test_a_timer_of_another_version_is_left_to_its_workers",),
    ),
)
