"""Faults of what steps ask for themselves, of heavy steps, of what runs behind an end, and of metadata."""

from __future__ import annotations

from typing import Final

from tests.faults.playing import Fault

STEERING: Final = "tests/fundamentals/test_33_steering.py"
AFTERWARDS: Final = "tests/fundamentals/test_34_afterwards.py"
METADATA: Final = "tests/fundamentals/test_35_metadata.py"
AGAIN: Final = "tests/fundamentals/test_30_running_again.py"

WITHIN: Final = (
    Fault(
        "a timeout that is extended stays",
        "worker/clock.py",
        "self.timeout.reschedule(end + seconds)",
        "pass",
        (f"{STEERING}::test_a_step_extends_its_time", f"{STEERING}::test_so_does_one_in_a_thread"),
    ),
    Fault(
        "a slot that was released is taken again",
        "worker/waiting.py",
        "        self._released = True",
        "        self._released = False",
        (f"{STEERING}::test_a_step_goes_on_without_its_slot",),
    ),
    Fault(
        "a heavy step takes one slot",
        "worker/heavy.py",
        "self.used += number\n            view.granted()",
        "self.used += 1\n            view.granted()",
        (f"{STEERING}::test_a_heavy_step_takes_several_slots",),
    ),
    Fault(
        "light steps keep heavy ones out",
        "worker/heavy.py",
        "return 0 if self._turns or self._claims else self.count - self.used",
        "return self.count - self.used",
        (f"{STEERING}::test_a_heavy_step_takes_several_slots",),
    ),
    Fault(
        "a step on success is not given what the last one has returned",
        "worker/inputs.py",
        "if len(graph.sinks) == 1 and graph.sinks[0] not in outputs:",
        "if False:",
        (f"{AFTERWARDS}::test_a_step_runs_when_its_run_has_succeeded",),
    ),
    Fault(
        "what a child inherits goes before what it is given",
        "wire/metadata.py",
        "msgspec.json.encode(_members(inherited) | _read(told))",
        "msgspec.json.encode(_read(told) | _members(inherited))",
        (f"{METADATA}::test_a_child_has_those_of_its_parent_and_its_own",),
    ),
    Fault(
        "what was skipped is decided anew in a rerun",
        "worker/adopting.py",
        'if outcome.status in ("succeeded", "skipped") and outcome.step == step:',
        'if outcome.status == "succeeded" and outcome.step == step:',
        (f"{AGAIN}::test_what_was_skipped_stays_skipped",),
    ),
    Fault(
        "a stream tells its children nothing",
        "worker/streams.py",
        "planned = await self._pages.plan(values, keys, told)",
        "planned = await self._pages.plan(values, keys, None)",
        (f"{METADATA}::test_so_have_those_of_a_stream",),
    ),
)
