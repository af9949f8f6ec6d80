"""Faults in what steps say, in events, webhooks and waits."""

from __future__ import annotations

from typing import Final

from tests.faults.playing import Fault

SAYING: Final = "tests/fundamentals/test_24_saying.py"
SAID: Final = "tests/endings/test_saying.py"
EVENTS: Final = "tests/fundamentals/test_25_events.py"
WEBHOOKS: Final = "tests/fundamentals/test_26_webhooks.py"
EXPECTING: Final = "tests/fundamentals/test_27_waiting_for_events.py"
CONDITIONS: Final = "tests/fundamentals/test_28_conditions.py"

IN_EVENTS: Final = (
    Fault(
        "what a step says last is not waited for",
        "worker/voice.py",
        "if self._lines or self._dropped or self._newest is not None:",
        "if False:",
        (f"{SAYING}::test_a_step_keeps_a_log_with_its_run",),
    ),
    Fault(
        "progress is not throttled",
        "worker/voice.py",
        "if wait:",
        "if False:",
        (f"{SAYING}::test_progress_is_throttled_and_ends_with_the_last_value",),
    ),
    Fault(
        "a live copy that was missed is not noticed",
        "runs/listening.py",
        "> max(self._after, self._last.get(one.subject, 0)):",
        "> 2**60:",
        (f"{SAID}::test_live_copies_that_were_lost_are_read_from_the_stream",),
    ),
    Fault(
        "what a lost worker writes is taken",
        "engine/output.py",
        "        if writing < newest:\n",
        "        if False:\n",
        (f"{SAID}::test_what_a_lost_worker_still_writes_is_not_taken_for_the_newer_attempt",),
    ),
    Fault(
        "a step whose words cannot be stored fails",
        "worker/voice.py",
        "        except (BrokerError, TimeoutError) as error:\n            self._fall_silent(error)\n\n    def",
        "        except TimeoutError as error:\n            self._fall_silent(error)\n\n    def",
        (f"{SAID}::test_where_the_stream_cannot_be_made_a_step_goes_on_and_says_nothing",),
    ),
    Fault(
        "what was said of a tree stays when it is deleted",
        "runs/deleting.py",
        "return used + optional",
        "return used",
        (f"{SAYING}::test_deleting_a_run_deletes_what_it_has_said",),
    ),
    Fault(
        "each delivery of an event starts a run of its own",
        "worker/event_runs.py",
        "run = run_of_event(self._workflow.name, event.id)\n            task",
        "run = run_of_event(self._workflow.name, f'{event.id}{time()}')\n            task",
        (f"{EVENTS}::test_an_event_starts_a_run_of_each_workflow_that_asks_for_it",),
    ),
    Fault(
        "conditions are not looked at",
        "subscriptions.py",
        "return self.matching.fits(payload) and",
        "return",
        (f"{EVENTS}::test_conditions_decide_which_events_start_one",),
    ),
    Fault(
        "a workflow that takes no events any more leaves its consumer",
        "worker/services.py",
        "            if none_now:\n",
        "            if False:\n",
        (f"{EVENTS}::test_a_version_that_takes_no_events_any_more_starts_no_runs_for_them",),
    ),
    Fault(
        "an id of one topic is one of another",
        "engine/events.py",
        'return f"{topic}/{id}"',
        "return id",
        (f"{EVENTS}::test_an_id_makes_an_event_one",),
    ),
    Fault(
        "a signature may be of any body",
        "webhooks/authentication.py",
        "hmac.new(secret, body, getattr",
        "hmac.new(secret, b'', getattr",
        (f"{WEBHOOKS}::test_the_signature_of_github", f"{WEBHOOKS}::test_the_example_that_github_gives"),
    ),
    Fault(
        "a signed time does not matter",
        "webhooks/authentication.py",
        "abs(time() - int(at)) <= tolerance",
        "True",
        (f"{WEBHOOKS}::test_the_signature_of_slack_and_its_challenge",),
    ),
    Fault(
        "a body is read whole, however large it is",
        "webhooks/application.py",
        "        if size > largest:\n            return None\n        pieces",
        "        pieces",
        (f"{WEBHOOKS}::test_a_body_that_is_too_large_is_refused_before_it_is_read",),
    ),
    Fault(
        "a step with conditions runs without being asked",
        "worker/executor.py",
        "if (task.step in graph.conditional and",
        "if (task.step == graph.workflow and",
        (f"{CONDITIONS}::test_an_output_chooses_a_branch",),
    ),
    Fault(
        "what was decided of a step is decided anew in each attempt",
        "worker/deciding.py",
        "        if decided is not None:\n            return _read_decided(decided)\n",
        "",
        (f"{CONDITIONS}::test_the_first_decision_stays_through_attempts",),
    ),
    Fault(
        "a last step that is skipped ends its run as skipped",
        "worker/recorder.py",
        "self.drive(work, leave_out, task, work.known_graph, outcome)",
        "self.drive(work, finish, task, work.known_graph, outcome)",
        (f"{CONDITIONS}::test_a_run_whose_last_step_was_skipped_has_no_output",),
    ),
    Fault(
        "events from before the steps before have ended decide",
        "worker/deciding.py",
        "return max(ended), max(ended) - MILLISECOND",
        "return max(ended), max(ended) - 60",
        (f"{CONDITIONS}::test_events_count_from_when_the_steps_before_have_ended",),
    ),
    Fault(
        "a step that waits for an event alone outlasts its run",
        "worker/deciding.py",
        "        if task.deadline is not None:",
        "        if task.deadline is not None and until is not None:",
        (f"{CONDITIONS}::test_a_run_is_cancelled_and_ends_in_time_while_a_step_waits",),
    ),
    Fault(
        "the output of a skipped step is null",
        "worker/execution.py",
        "        if self.was_skipped(step):\n            raise StepSkipped(step)\n",
        "",
        (f"{CONDITIONS}::test_the_output_of_a_skipped_step_is_none_that_could_be_read",),
    ),
    Fault(
        "nobody tells workers that somebody waits",
        "runs/awaiting.py",
        "session.connection.send(names.notice)",
        "pass",
        (f"{EXPECTING}::test_a_worker_that_started_before_anybody_waited_wakes_steps_as_well",),
    ),
    Fault(
        "waits stay when their steps are woken",
        "worker/expecting.py",
        "        if len(ended) == len(waits) and len(waits) > REMOVED_ONE_BY_ONE:",
        "        if True:\n            pass\n        elif len(ended) == len(waits):",
        (f"{EXPECTING}::test_an_event_wakes_all_that_wait_for_it",),
    ),
    Fault(
        "the second wait takes what the first has taken",
        "worker/expectations.py",
        "        self._names.took(group, taken[number])\n",
        "",
        (f"{EXPECTING}::test_signals_are_taken_once_and_in_order",),
    ),
    Fault(
        "events from before a wait are not looked for",
        "worker/expectations.py",
        "since = await self._run_began() - max(AFORE, lookback or 0.0)",
        "since = time()",
        (f"{EXPECTING}::test_an_event_that_comes_before_it_is_waited_for_is_found",),
    ),
)
