"""Faults in the dashboard: who may do what, what is told of it, and where things are drawn."""

from __future__ import annotations

from typing import Final

from tests.faults.playing import Fault
from tests.faults.suites import DASHBOARD, LAYOUT

_ACTING: Final = f"{DASHBOARD}/test_acting.py"
_LIVE: Final = f"{DASHBOARD}/test_live.py"
_MOUNTING: Final = f"{DASHBOARD}/test_mounting.py"
_READING: Final = f"{DASHBOARD}/test_reading.py"
_TIME: Final = f"{DASHBOARD}/test_time_and_events.py"
_TROUBLE: Final = f"{DASHBOARD}/test_trouble.py"

DASHED: Final = (
    Fault(
        "everybody may do everything",
        "dashboard/app.py",
        "    if endpoint.right is not None and not access.may(endpoint.right):\n",
        "    if False:\n",
        (f"{_ACTING}::test_nobody_may_do_what_was_not_granted",),
    ),
    Fault(
        "a dashboard may act without a word",
        "dashboard/app.py",
        "Access() if access is None else access",
        "Access.full() if access is None else access",
        (f"{_ACTING}::test_nobody_may_do_what_was_not_granted",),
    ),
    Fault(
        "a page of another site may act",
        "dashboard/guarding.py",
        '    if urlsplit(origin).netloc.lower() != request.headers.get("host", "").lower():\n',
        "    if False:\n",
        (f"{_ACTING}::test_what_another_sites_page_could_send_is_refused",),
    ),
    Fault(
        "a host that begins like an allowed one is allowed",
        "dashboard/guarding.py",
        "    if host not in hosts:\n",
        "    if not any(host.startswith(one) for one in hosts):\n",
        (f"{_ACTING}::test_other_hosts_are_refused",),
    ),
    Fault(
        "who may act in bulk may do anything in bulk",
        "dashboard/api/bulk.py",
        "    if not ask.access.may(action):\n",
        "    if False:\n",
        (f"{_ACTING}::test_bulk_needs_the_right_to_the_action_too",),
    ),
    Fault(
        "a job is started again",
        "dashboard/bulk.py",
        '        if job.state != "ready":\n',
        "        if False:\n",
        (f"{_ACTING}::test_many_runs_are_counted_and_then_cancelled_without_those_that_come_later",),
    ),
    Fault(
        "a value is shown before it is redacted",
        "dashboard/api/payloads.py",
        "        content = _whole(shown)\n",
        "        pass\n",
        (f"{_ACTING}::test_values_may_be_kept_back_or_redacted",),
    ),
    Fault(
        "an input is not checked against its schema",
        "dashboard/inputs.py",
        "    if found:\n",
        "    if False:\n",
        (f"{_ACTING}::test_a_run_is_triggered",),
    ),
    Fault(
        "a problem of one topic takes the place of another's",
        "dashboard/live.py",
        "self._waiting[event.name, event.topic]",
        'self._waiting[event.name, ""]',
        (f"{_LIVE}::test_what_cannot_be_told_is_a_problem_of_its_topic",),
    ),
    Fault(
        "topics go on when nobody listens",
        "dashboard/live.py",
        "            if not topic.listeners and monotonic() - topic.left_at > LINGERS:\n",
        "            if False:\n",
        (f"{_LIVE}::test_a_run_is_told_from_its_begin_to_its_end",),
    ),
    Fault(
        "links do not know where the dashboard is mounted",
        "dashboard/pages.py",
        "text.replace(BASE, f'<base href=\"{prefix}/\">')",
        "text",
        (f"{_MOUNTING}::test_below_a_prefix",),
    ),
    Fault(
        "a host that takes its path off is not understood",
        "dashboard/mounting.py",
        '    if full == path or not full.rstrip("/").endswith(rest):\n',
        "    if True:\n",
        (f"{_MOUNTING}::test_below_a_prefix",),
    ),
    Fault(
        "a large output is read with its run",
        "dashboard/detail.py",
        "values=False",
        "values=True",
        (f"{_ACTING}::test_a_value_that_is_lost_is_told_and_its_run_is_shown",),
    ),
    Fault(
        "the head of a value is all of it",
        "dashboard/api/payloads.py",
        "            yield chunk[:size]\n",
        "            yield chunk\n",
        (f"{_READING}::test_a_large_value_is_read_in_part_and_loaded_whole",),
    ),
    Fault(
        "a broker that is away is not noticed",
        "dashboard/problems.py",
        '    (BrokerError, 503, "broker-away"',
        '    (BrokerError, 500, "broker-away"',
        (f"{_TROUBLE}::test_a_broker_that_is_away_is_an_error_everywhere_and_comes_back",),
    ),
    Fault(
        "files beside the pages are served",
        "dashboard/pages.py",
        "        if path.suffix not in KINDS or not path.is_relative_to(self._directory) or not path.is_file():\n",
        "        if not path.is_file():\n",
        (f"{_TROUBLE}::test_who_looks_like_a_page_gets_one_and_nothing_leaves_the_directory",),
    ),
    Fault(
        "edges pass through steps",
        "drawing/layout.py",
        "    return HEIGHT if place[1] < 0 else 0.0\n",
        "    return HEIGHT if place[1] < 0 else -2 * HEIGHT\n",
        (f"{LAYOUT}::test_no_edge_passes_through_a_step",),
    ),
    Fault(
        "layers are not ordered",
        "drawing/layout.py",
        "            if not fewest:\n",
        "            if True:\n",
        (f"{LAYOUT}::test_edges_that_need_not_cross_do_not",),
    ),
    Fault(
        "the inputs of schedules are told to everybody",
        "dashboard/api/schedules.py",
        "    if not ask.access.payloads:\n",
        "    if False:\n",
        (f"{_TIME}::test_inputs_and_payloads_are_withheld_or_redacted",),
    ),
    Fault(
        "the payloads of events are told to everybody",
        "dashboard/api/events.py",
        "    if not ask.access.payloads:\n",
        "    if False:\n",
        (f"{_TIME}::test_inputs_and_payloads_are_withheld_or_redacted",),
    ),
    Fault(
        "a tick that came while its schedule was paused is told as missed",
        "runs/query/schedule_ticks.py",
        "(tick >= changed and not schedule.paused)",
        "True",
        (f"{_TIME}::test_a_schedule_is_paused_run_and_made_up_for",),
    ),
    Fault(
        "a signal is told as an event of its run",
        "runs/query/event_lists.py",
        "        run=event.key if is_signal else None,\n",
        "        run=None,\n",
        (f"{_TIME}::test_events_tell_what_they_have_started",),
    ),
    Fault(
        "what lies between two places is taken to be of the list",
        "broker/seeking.py",
        "    if high is not None and high.behind - low.behind == high.n - low.n:\n",
        "    if high is not None:\n",
        ("tests/integration/test_seeking.py::test_the_nth_message_is_found",),
    ),
)
