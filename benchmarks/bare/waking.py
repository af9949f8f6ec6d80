"""The floor of waking: the bare mechanism in plain nats-py, with messages of the form and size of jetflow's.

A parked step is a task and a timer (or a wait) that names it. What wakes it does what anything right must: be given the
timer's due message (or the event, and list who waits for it), read the task, store the next turn, write-once, and then
acknowledge. It does nothing else: it does not ask whether the run has ended, and knows no step that waits otherwise.
"""

from __future__ import annotations

import json
import secrets
from datetime import UTC, datetime
from typing import Any, Final

from nats.aio.client import Client

from benchmarks.bare.publisher import BarePublisher
from benchmarks.bare.wire import ask, encode

TASKS: Final = "BARE_waking_tasks"
TIMERS: Final = "BARE_waking_timers"
EVENTS: Final = "BARE_waking_events"
WAITS: Final = "BARE_waking_waits"
DUE: Final = "due"
"""The consumer of due messages."""

WAITING: Final = "waits"
"""The consumer of events."""

EVENT: Final = "bf.default.event._.bench.all"
WAITS_OF_EVENT: Final = "bf.default.wait.bench=all.=.>"
_AT_ONCE: Final = 100
_STREAM: Final[dict[str, Any]] = {
    "retention": "limits",
    "storage": "file",
    "max_msgs_per_subject": 1,
    "allow_direct": True,
}
_NO_WAIT: Final = {"ack_policy": "explicit", "max_ack_pending": -1, "max_waiting": 512}


async def make_streams(client: Client) -> None:
    """Make the streams and consumers, set as jetflow's."""
    write_once = {"discard": "new", "discard_new_per_subject": True, "allow_batched": True, "allow_atomic": True}
    await _make(client, TASKS, ["bf.default.task.>"], **write_once, duplicate_window=120_000_000_000)
    scheduled = {"allow_msg_schedules": True, "allow_msg_ttl": True, "allow_rollup_hdrs": True}
    await _make(client, TIMERS, ["bf.default.timer.>", "bf.default.due.>"], **scheduled, retention="workqueue")
    await _make(client, EVENTS, ["bf.default.event.>"], discard="new", max_msgs_per_subject=-1)
    await _make(client, WAITS, ["bf.default.wait.>"])
    for stream, name, subject in ((TIMERS, DUE, "bf.default.due.>"), (EVENTS, WAITING, "bf.default.event.>")):
        config = _NO_WAIT | {"durable_name": name, "name": name, "filter_subject": subject}
        await ask(client, f"CONSUMER.CREATE.{stream}.{name}.{subject}", {"stream_name": stream, "config": config})


async def _make(client: Client, name: str, subjects: list[str], **settings: Any) -> None:
    await ask(client, f"STREAM.CREATE.{name}", _STREAM | {"name": name, "subjects": subjects} | settings)


async def park(client: Client, count: int, until: float | None) -> None:
    """Have so many steps parked: until a time, in seconds since the epoch, or for the event."""
    publisher = BarePublisher(client)
    await publisher.start()
    at = "" if until is None else datetime.fromtimestamp(until, UTC).isoformat(timespec="milliseconds")
    for number in range(count):
        run = secrets.token_hex(16)
        address = f"bench-waiting.run.{run}.-.{run}.0"
        body = encode({"index": number} if until is None else {"index": number, "at": until})
        await publisher.publish(f"bf.default.task.{address}", body, None, None, task_headers(run, 0))
        if until is None:
            wait = json.dumps({"topic": "bench.all", "since": 1764280000.123456}, separators=(",", ":")).encode()
            await publisher.publish(f"{WAITS_OF_EVENT[:-1]}{address}.all-0", wait, None, None)
        else:
            timed = {"Nats-Schedule": f"@at {at}", "Nats-Schedule-Target": f"bf.default.due.wake.{address}"}
            await publisher.publish(f"bf.default.timer.wake.{address}", b"", None, None, timed)
        if number % _AT_ONCE == 0:
            await publisher.room()
    await publisher.room(0)


def task_headers(run: str, turn: int) -> dict[str, str]:
    """Return the headers of a turn of a step."""
    return {
        "Nats-Msg-Id": f"{run}.run.{turn}",
        "Jf-Parent-Step": "-",
        "Jf-Version": "0123456789abcdef",
        "Jf-Depth": "0",
        "Jf-Digest": f"2-{run}",
    }
