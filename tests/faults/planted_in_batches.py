"""Faults of batches, of labels, and of draining."""

from __future__ import annotations

from typing import Final

from tests.faults.playing import Fault

_BATCHES: Final = "tests/endings/test_batches.py"
_WHERE: Final = "tests/fundamentals/test_32_where_steps_run.py"

BATCHES: Final = (
    Fault(
        "batches: results are handed to the wrong runs",
        "worker/batches.py",
        "results_of(step.name, returned, len(seats), broadcast=broadcast)",
        "results_of(step.name, returned, len(seats), broadcast=broadcast)[::-1]",
        ("tests/fundamentals/test_31_batches.py::test_one_run_fails_and_the_others_do_not",),
    ),
    Fault(
        "batches: a batch is called with those that have left it",
        "worker/batches.py",
        "        self._gathering.remove(seat)\n",
        "",
        (f"{_BATCHES}::test_one_that_is_cancelled_while_it_is_gathered_is_in_no_call",),
    ),
    Fault(
        "batches: a call waits for those that have left it",
        "worker/batches.py",
        "        self._expected.pop(seat, None)\n",
        "",
        (
            f"{_BATCHES}::test_a_key_that_is_none_fails_that_run_by_name",
            f"{_BATCHES}::test_a_call_of_which_all_are_cancelled_ends",
        ),
    ),
    Fault(
        "batches: a call goes on of which all have left",
        "worker/batches.py",
        "                self.task.cancel()\n",
        "                pass\n",
        (f"{_BATCHES}::test_a_call_of_which_all_are_cancelled_ends",),
    ),
    Fault(
        "batches: a call keeps its slot",
        "worker/batches.py",
        "            self._slots.give_back()\n",
        "            pass\n",
        (f"{_BATCHES}::test_a_call_of_which_all_are_cancelled_ends",),
    ),
    Fault(
        "batches: what was lost with its worker is gathered again",
        "worker/batches.py",
        "if work.attempt > work.task.tried + 1:",
        "if False:",
        (f"{_BATCHES}::test_a_run_that_kills_its_worker_takes_the_others_with_it_once",),
    ),
    Fault(
        "batches: gathering is a part of the time that a step has",
        "worker/batches.py",
        "return await seat.turn",
        "return await asyncio.wait_for(seat.turn, self._step.timeout)",
        (f"{_BATCHES}::test_gathering_is_no_part_of_the_time_that_a_step_has",),
    ),
    Fault(
        "batches: what is gathered stands in the way for ever",
        "worker/batches.py",
        "            self._begin(self._gathering.take_oldest())",
        "            pass",
        (f"{_BATCHES}::test_keys_that_fill_no_batch_do_not_stand_in_each_others_way",),
    ),
    Fault(
        "batches: a batch waits for a slot for ever",
        "worker/batches.py",
        "self._loop.call_later(SLOT_WITHIN, call.hand_back)",
        "self._loop.call_later(SLOT_WITHIN, int)",
        (f"{_BATCHES}::test_a_batch_that_finds_no_slot_is_left_to_others",),
    ),
    Fault(
        "batches: one of a batch may wait in it",
        "worker/members.py",
        'sleep: Sleep) -> None:\n        """See `Context.sleep`."""\n        raise self._no_wait()',
        'sleep: Sleep) -> None:\n        """See `Context.sleep`."""\n        await super().sleep(sleep)',
        (f"{_BATCHES}::test_no_run_of_a_batch_can_wait_in_it",),
    ),
    Fault(
        "where: a worker pulls what it has no labels for",
        "worker/pullers.py",
        "and not declared.requires.fits(self._labels)",
        "and False",
        (f"{_WHERE}::test_a_step_runs_where_its_requirement_holds",),
    ),
    Fault(
        "where: a worker that is drained goes on pulling",
        "worker/services.py",
        "        await asyncio.gather(*(fetcher.stop() for fetcher in self.fetchers))\n",
        "",
        (f"{_WHERE}::test_a_worker_is_drained_by_its_name",),
    ),
)
