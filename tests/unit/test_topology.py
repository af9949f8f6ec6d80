"""``docs/topology.json`` says how streams and consumers are made: here the code is held to it.

``python -m tests.unit.test_topology`` prints the file anew.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any, Final, cast

from jetflow.broker.connection import Connection
from jetflow.broker.optional import OptionalStreams, ensure_event_consumer, ensure_waits_consumer
from jetflow.broker.topology import (
    Retention,
    ensure_due_consumer,
    ensure_inbox_consumer,
    ensure_step_consumer,
    ensure_streams,
)
from jetflow.errors import BrokerRefused
from jetflow.wire.records import DeclaredEvent
from jetflow.wire.subjects import EDITION, EDITION_KEY, LAYOUT, LAYOUT_KEY, Subjects
from jetflow.worker.options import WorkerOptions

FILE: Final = Path(__file__).parents[2] / "docs" / "topology.json"
NAMES: Final = Subjects("NAMESPACE")
ABOUT: Final = (
    "How jetflow makes its streams and consumers; docs/wire.md, section Streams and buckets, says what of it must be. "
    "NAMESPACE, WORKFLOW and STEP stand for names; durations are nanoseconds; max_ack_pending of a step with "
    "max_running is that number. What is optional is made by whoever needs it first."
)


class _Asked:
    """Keeps what the JetStream API is asked for."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, Any]]] = []

    async def api(self, operation: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        if "INFO" in operation:
            raise BrokerRefused(operation, 404, 10014, "consumer not found")
        self.requests.append((operation, body or {}))
        return {"created": "", "config": (body or {}).get("config", body)}


def written_by_the_code() -> dict[str, Any]:
    """Return what the file has to hold."""
    streams, consumers = asyncio.run(_asked_for())
    return {
        "about": ABOUT,
        "streams": [{"name": body["name"], "subjects": body["subjects"], **body} for _, body in streams],
        "consumers": [
            {"stream_name": body["stream_name"], "subject": f"$JS.API.{operation}", "config": body["config"]}
            for operation, body in consumers
        ],
        **asyncio.run(_optional()),
    }


async def _optional() -> dict[str, Any]:
    """Return what is made where it is needed."""
    streams, consumers = _Asked(), _Asked()
    optional = OptionalStreams(cast(Connection, streams), NAMES, Retention())
    for name in optional.names:
        await optional.ensure(name)
    connection, ack_wait = cast(Connection, consumers), WorkerOptions().ack_wait
    await ensure_waits_consumer(connection, NAMES, ack_wait=ack_wait, since=0.0)
    on = [DeclaredEvent(topic="TOPIC"), DeclaredEvent(topic="OTHER.*", key="KEY")]
    await ensure_event_consumer(connection, NAMES, "WORKFLOW", on, ack_wait=ack_wait, since=0.0)
    return {
        "optional_streams": [{"name": body["name"], **body} for _, body in streams.requests],
        "optional_consumers": [
            {"stream_name": body["stream_name"], "subject": f"$JS.API.{operation}", "config": body["config"]}
            for operation, body in consumers.requests
        ],
    }


async def _asked_for() -> tuple[list[tuple[str, dict[str, Any]]], list[tuple[str, dict[str, Any]]]]:
    streams, consumers = _Asked(), _Asked()
    await ensure_streams(cast(Connection, streams), NAMES, Retention())
    ack_wait = WorkerOptions().ack_wait
    connection = cast(Connection, consumers)
    await ensure_step_consumer(connection, NAMES, "WORKFLOW", "STEP", ack_wait=ack_wait, max_running=None)
    await ensure_inbox_consumer(connection, NAMES, ack_wait=ack_wait)
    await ensure_due_consumer(connection, NAMES, ack_wait=ack_wait)
    return streams.requests, consumers.requests


def printed(topology: dict[str, Any]) -> str:
    """Return the file's text: a line for each stream and each consumer."""
    lines = [f"  {json.dumps(stream)}" for stream in topology["streams"]]
    made = [f"  {json.dumps(consumer)}" for consumer in topology["consumers"]]
    optional = [f"  {json.dumps(stream)}" for stream in topology["optional_streams"]]
    consumed = [f"  {json.dumps(consumer)}" for consumer in topology["optional_consumers"]]
    return (
        f'{{\n"about": {json.dumps(topology["about"])},\n"streams": [\n{_joined(lines)}\n],\n'
        f'"consumers": [\n{_joined(made)}\n],\n"optional_streams": [\n{_joined(optional)}\n],\n'
        f'"optional_consumers": [\n{_joined(consumed)}\n]\n}}\n'
    )


def _joined(lines: list[str]) -> str:
    return ",\n".join(lines)


def test_the_file_is_what_the_code_makes() -> None:
    assert json.loads(FILE.read_text()) == written_by_the_code()
    assert FILE.read_text() == printed(written_by_the_code())


def test_every_stream_carries_the_edition_and_none_that_holds_state_takes_schedules() -> None:
    topology = json.loads(FILE.read_text())
    streams: list[dict[str, Any]] = topology["streams"] + topology["optional_streams"]
    assert all(stream["metadata"] == {EDITION_KEY: EDITION, LAYOUT_KEY: LAYOUT} for stream in streams)
    scheduling = [stream["name"] for stream in streams if stream.get("allow_msg_schedules")]
    assert scheduling == [NAMES.timers_stream]
    assert not any(stream.get("allow_rollup_hdrs") for stream in streams)


if __name__ == "__main__":
    sys.stdout.write(printed(written_by_the_code()))
