"""Faults in what is told of runs: by the query layer, and by the workers that are asked."""

from __future__ import annotations

from typing import Final

from tests.faults.playing import Fault
from tests.faults.suites import ASKING, LOOKING_ON, VIEWERS

LOOKING: Final = (
    Fault(
        "a mark counts before its end is stored",
        "runs/query/counting.py",
        "        within.append(min(count, ended - sum(within)))\n",
        "        within.append(count + 1)\n",
        (f"{ASKING}::test_totals_tell_how_children_stand",),
    ),
    Fault(
        "each task of a child counts as a child",
        "runs/query/counting.py",
        "filters.first_tasks(located.root, located.run, workflow=workflow, step=step) for step in steps",
        "filters.first_tasks(located.root, located.run, workflow=workflow) for step in steps",
        (f"{ASKING}::test_children_of_several_steps_and_workflows",),
    ),
    Fault(
        "a mark counts whose end came to nothing",
        "runs/query/counting.py",
        "VERIFIED: Final = 1000\n",
        "VERIFIED: Final = 0\n",
        (f"{ASKING}::test_a_mark_without_its_end_counts_for_nothing",),
    ),
    Fault(
        "what is over is taken for what goes on",
        "runs/query/counting.py",
        "        if is_over:\n            _remember(self._over, located.run, found)\n",
        "        _remember(self._over, located.run, found)\n",
        (f"{ASKING}::test_open_children_are_counted_and_listed",),
    ),
    Fault(
        "a place is remembered one too early",
        "runs/query/child_lists.py",
        "landmarks.add(Place(reading.after, begin + len(rows)))",
        "landmarks.add(Place(reading.after, begin + len(rows) - 1))",
        (f"{ASKING}::test_children_come_in_pages_in_the_order_of_their_spawning",),
    ),
    Fault(
        "a tree rolls up the runs of other parents",
        "runs/query/trees.py",
        "    above = None if task is None else node_of.get(task.parent)\n",
        "    above = None if task is None else next(iter(node_of.values()))\n",
        (f"{ASKING}::test_a_tree_is_rolled_up_by_step_and_workflow",),
    ),
    Fault(
        "a sum of root runs begins with the oldest",
        "runs/query/root_tables.py",
        "            if row.triggered >= since:\n",
        "            if row.triggered < since:\n",
        (f"{ASKING}::test_root_runs_are_sorted_searched_and_summed_up",),
    ),
    Fault(
        "a page goes on one too late",
        "runs/query/child_lists.py",
        "            self.after = messages[-1].sequence\n",
        "            self.after = messages[-1].sequence + 1\n",
        (f"{ASKING}::test_children_come_in_pages_in_the_order_of_their_spawning",),
    ),
    Fault(
        "a far page begins where the search has ended",
        "runs/query/child_lists.py",
        "skip=max(0, cursor.n - place)",
        "skip=0",
        (f"{ASKING}::test_children_come_in_pages_in_the_order_of_their_spawning",),
    ),
    Fault(
        "the newest runs are the oldest",
        "broker/seeking.py",
        "found[::-1][:size]",
        "found[:size]",
        (f"{ASKING}::test_root_runs_come_newest_first",),
    ),
    Fault(
        "a cursor is good for any question",
        "runs/query/cursors.py",
        "    if cursor.question != asked:\n",
        "    if False:\n",
        (f"{ASKING}::test_children_are_sorted_and_searched",),
    ),
    Fault(
        "a table is read once",
        "runs/query/child_tables.py",
        "            if monotonic() - self._read_at < FRESH:\n",
        "            if self._is_whole:\n",
        (f"{ASKING}::test_a_table_follows_what_ends",),
    ),
    Fault(
        "a watch does not see the end",
        "runs/query/watching.py",
        "        self._show(await self._counting.totals(located, shape))\n",
        "",
        (f"{LOOKING_ON}::test_a_fan_out_is_watched_to_its_end",),
    ),
    Fault(
        "a watch is kept when nobody looks",
        "runs/query/watching.py",
        "                self._watches.pop(run, None)\n",
        "",
        (f"{LOOKING_ON}::test_a_fan_out_is_watched_to_its_end",),
    ),
    Fault(
        "failures are alike by their type alone",
        "runs/query/error_groups.py",
        'return _VARIES.sub("…", message.partition("\\n")[0]).strip()',
        'return ""',
        (f"{LOOKING_ON}::test_failures_are_grouped_by_what_they_have_in_common",),
    ),
    Fault(
        "a worker tells what another run does",
        "worker/answering.py",
        "if work.task.run == run]",
        "if work.task.run]",
        (f"{LOOKING_ON}::test_a_step_that_waits_for_children_is_told_as_such",),
    ),
    Fault(
        "a stack begins with the worker's own frames",
        "worker/stacks.py",
        "    begin = max(first, 0)\n",
        "    begin = 0\n",
        (f"{LOOKING_ON}::test_workers_tell_what_they_run",),
    ),
    Fault(
        "who may make no consumer sees nothing",
        "broker/live_counts.py",
        "            return await self._store.count(stream, subject)\n",
        "            return 0\n",
        (f"{VIEWERS}::test_a_viewer_reads_all_and_writes_nothing",),
    ),
    Fault(
        "who only looks makes the namespace",
        "broker/session.py",
        "            if ensure:\n",
        "            if True:\n",
        (f"{VIEWERS}::test_what_only_reads_makes_no_namespace",),
    ),
)
