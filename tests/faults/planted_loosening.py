"""Faults of joins that are loosened while their steps wait."""

from __future__ import annotations

from typing import Final

from tests.faults.playing import Fault

LOOSENED: Final = "tests/fundamentals/test_36_loosening.py"
RULE: Final = "tests/unit/test_loosening.py"

LOOSENING: Final = (
    Fault(
        "nobody looks at a join that was loosened",
        "runs/loosening.py",
        'await session.publisher.store(session.names.inbox_look(join), b"")',
        "pass",
        (f"{LOOSENED}::test_a_parked_join_goes_on_with_fewer",),
    ),
    Fault(
        "a join that was loosened is not counted",
        "runs/loosening.py",
        'await session.publisher.store(session.names.counter("join", join), b"", _added())',
        "pass",
        ("tests/endings/test_loosening.py::test_it_goes_on_when_enough_end_later",),
    ),
    Fault(
        "the code of a step is not told that its join was loosened",
        "worker/waiting.py",
        "self.loosened = await read_loosened(self._session, self._task.join)",
        "self.loosened = ()",
        (f"{LOOSENED}::test_a_parked_join_goes_on_with_fewer",),
    ),
    Fault(
        "a later park forgets that a join was loosened",
        "worker/execution.py",
        "loosened=self.waiting.loosened or (),",
        "",
        (f"{LOOSENED}::test_later_attempts_and_turns_decide_the_same",),
    ),
    Fault(
        "a retry hides that a join was loosened",
        "runs/loosening.py",
        "if not is_of_retry(record):",
        "if True:",
        (f"{LOOSENED}::test_later_attempts_and_turns_decide_the_same",),
    ),
    Fault(
        "a join that has missed its policy is not asked whether it was loosened",
        "worker/waiting.py",
        'if verdict == "missed" and not asked and await ask():',
        "if False:",
        (f"{LOOSENED}::test_later_attempts_and_turns_decide_the_same",),
    ),
    Fault(
        "what is open of a loosened join is let be",
        "worker/execution.py",
        "if decision.open and decision.policy.cancel_rest:",
        "if decision.open and policy.cancel_rest:",
        (f"{LOOSENED}::test_a_parked_join_goes_on_with_fewer",),
    ),
    Fault(
        "a policy is tightened",
        "engine/loosening.py",
        "if new.successes(total) > old.successes(total):",
        "if False:",
        (f"{RULE}::test_what_meets_a_policy_meets_a_looser_one", f"{LOOSENED}::test_it_is_never_tightened"),
    ),
    Fault(
        "a plain join is loosened",
        "engine/loosening.py",
        'if not record.total or (record.kind == "parked" and not record.loosable):',
        "if False:",
        (f"{RULE}::test_what_cannot_be_loosened",),
    ),
)
