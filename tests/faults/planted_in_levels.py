"""Faults of levels."""

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
