"""Faults of levels, and of pauses."""

from __future__ import annotations

from typing import Final

from tests.faults.playing import Fault

_CHAPTER: Final = "tests/fundamentals/test_33_levels.py"
_RULE: Final = "tests/unit/test_levels.py"

LEVELS: Final = (
    Fault(
        "levels: what came first begins first",
        "worker/ranking.py",
        "self._turns.next(waiting)",
        "waiting[-1]",
        (f"{_CHAPTER}::test_urgent_ones_begin_first_and_equals_in_their_order",),
    ),
    Fault(
        "levels: the lowest starves",
        "engine/levels.py",
        "if self._urgent < EVERY - 1:",
        "if True:",
        (f"{_CHAPTER}::test_no_level_starves", f"{_RULE}::test_no_level_that_waits_is_left_out"),
    ),
    Fault(
        "levels: the second of the lower ones gets no turn",
        "engine/levels.py",
        "if rank > self._last",
        "if rank",
        (f"{_RULE}::test_no_level_that_waits_is_left_out",),
    ),
    Fault(
        "levels: children forget the level of their parent",
        "worker/spawning.py",
        "return self._task.level if level is None else",
        "return None if level is None else",
        (f"{_CHAPTER}::test_the_level_is_that_of_the_parent_unless_it_is_given",),
    ),
    Fault(
        "levels: the step on failure stands in a queue of its own",
        "engine/transitions.py",
        "msgspec.structs.replace(at_level(task, graph), deadline=None)",
        "msgspec.structs.replace(task, deadline=None, leveled=False)",
        (f"{_RULE}::test_all_that_begins_a_step_puts_it_into_its_queue",),
    ),
    Fault(
        "levels: a level that nobody declares is taken",
        "engine/levels.py",
        "    if level not in levels:\n        raise UnknownLevel(workflow, level, levels)\n",
        "",
        (f"{_CHAPTER}::test_an_unknown_level_is_refused_where_it_is_given",),
    ),
    Fault(
        "levels: a step is paused at one level alone",
        "runs/query/queues.py",
        "return [step, *(one.partition(BETWEEN)[2] for one in consumers if one.startswith(leveled))]",
        "return [step]",
        (f"{_CHAPTER}::test_pausing_a_step_pauses_all_of_its_levels",),
    ),
    Fault(
        "schedules: those of a paused workflow go on starting runs",
        "engine/schedules.py",
        "schedule.silent is not None and tick < schedule.silent",
        "False",
        ("tests/unit/test_ticks.py::test_a_silent_schedule_starts_nothing_and_goes_on",),
    ),
)
"""Each is caught by the tests that it names."""

_PAUSED: Final = "tests/endings/test_expiring.py"
_PAUSING: Final = "tests/fundamentals/test_36_pausing.py"

BOUNDED: Final = (
    Fault(
        "pauses: what is put back behind a cancel is taken for what waits",
        "runs/expiring.py",
        "if Header.TRIGGERED not in stored.headers and ",
        "if ",
        (f"{_PAUSED}::test_what_was_put_back_does_not_wait",),
    ),
    Fault(
        "pauses: a look of another pause counts",
        "engine/expiring.py",
        "if held is None or held.pause != pause:",
        "if held is None:",
        (f"{_PAUSED}::test_a_look_of_another_pause_does_nothing",),
    ),
    Fault(
        "pauses: a look is armed over another pause",
        "runs/expiring.py",
        "| (fence or {})",
        "",
        (f"{_PAUSED}::test_a_look_of_another_pause_does_nothing",),
    ),
    Fault(
        "pauses: a bound counts behind its pause, too",
        "runs/expiring.py",
        'if there is None or not there.get("paused"):',
        "if there is None:",
        (f"{_PAUSED}::test_a_bound_ends_with_its_pause",),
    ),
    Fault(
        "pauses: a backlog of before is cancelled at once",
        "engine/expiring.py",
        "return max(stored, self.since) + self.ttl",
        "return stored + self.ttl",
        (f"{_PAUSING}::test_the_time_counts_from_the_pause",),
    ),
    Fault(
        "pauses: a bound stays where a pause is renewed without",
        "runs/query/queues.py",
        "elif (workflow, name) in bounded:",
        "elif False:",
        (f"{_PAUSING}::test_without_a_bound_everything_waits",),
    ),
    Fault(
        "pauses: a bound stays where a queue goes on",
        "runs/query/queues.py",
        "        if (workflow, name) in bounded:",
        "        if False:",
        (f"{_PAUSED}::test_a_pause_that_ends_by_itself_cancels_nothing_more",),
    ),
    Fault(
        "pauses: a look ends after its first page",
        "engine/expiring.py",
        "if len(over) == len(waiting) > 0 and cancelled < AT_ONCE:\n            continue",
        "if over and not waiting[len(over) :]:\n            return",
        (f"{_PAUSED}::test_many_are_cancelled_in_one_look",),
    ),
    Fault(
        "cancelling: a task that was queued for long is not looked at",
        "worker/executor.py",
        "delivery.time < time() - LONG_AGO and await self._ended_long_ago(work)",
        "False",
        (f"{_PAUSED}::test_a_run_that_was_cancelled_long_ago_is_not_begun",),
    ),
)
"""Those of pauses with a bound."""
