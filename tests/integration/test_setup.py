"""`jetflow setup`: streams and consumers made ahead of time, and an older layout brought up to this one in place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

import jetflow
from jetflow import Client, Retry, Worker, WorkerOptions, workflow
from jetflow.broker.connection import Connection
from jetflow.broker.layout import Wanted, changes_of, set_up
from jetflow.errors import BrokerError
from jetflow.server import NatsServer
from jetflow.wire.subjects import LAYOUT, LAYOUT_KEY, Subjects
from tests.endings.stored import GRACE, PATIENCE
from tests.integration.commands import Start, run

OLDER: Final = Path(__file__).with_name("layout_0.json")
"""What ``docs/topology.json`` was before streams carried a layout."""


@workflow("double", retry=Retry(attempts=1))
async def double(number: int) -> int:
    return 2 * number


async def make_older(connection: Connection, namespace: str) -> None:
    """Make a namespace as jetflow did before streams carried a layout."""
    streams: list[dict[str, Any]] = json.loads(OLDER.read_text().replace("NAMESPACE", namespace))["streams"]
    for stream in streams:
        await connection.api(f"STREAM.CREATE.{stream['name']}", stream)


def worker_of(server: NatsServer, namespace: str) -> Worker:
    return Worker([double], server=server.url, namespace=namespace, options=WorkerOptions(grace=GRACE))


async def result_of(client: Client, number: int) -> int:
    return await (await client.trigger(double, number)).result(PATIENCE)


async def test_a_namespace_of_an_older_layout_is_used_and_brought_up_in_place(
    nats_server: NatsServer, namespace: str
) -> None:
    """With the runs that it holds, and beside a worker that goes on meanwhile."""
    names = Subjects(namespace)
    async with await Connection.open(nats_server.url) as connection:
        await make_older(connection, namespace)
        async with (
            jetflow.connect(nats_server.url, namespace=namespace) as client,
            worker_of(nats_server, namespace),
        ):
            before = await client.trigger(double, 4, key="before")
            assert await before.result(PATIENCE) == 8
            changes = await changes_of(connection, names)
            assert {(change.setting, change.has, change.needs) for change in changes} == {("layout", 0, int(LAYOUT))}
            assert len(changes) == 7
            assert [change.refused for change in await set_up(connection, names)] == [""] * 12
            assert await changes_of(connection, names) == []
            assert await result_of(client, 5) == 10
            assert (await client.trigger(double, 4, key="before")).id == before.id
        async with jetflow.connect(nats_server.url, namespace=namespace) as client, worker_of(nats_server, namespace):
            assert await client.run(before.id).result(PATIENCE) == 8
            assert await result_of(client, 6) == 12


async def test_a_setting_that_somebody_has_changed_is_named_and_mended(nats_server: NatsServer, namespace: str) -> None:
    names = Subjects(namespace)
    async with (
        await Connection.open(nats_server.url) as connection,
        jetflow.connect(nats_server.url, namespace=namespace) as client,
    ):
        stream = names.records_stream
        there = (await connection.api(f"STREAM.INFO.{stream}"))["config"]
        await connection.api(f"STREAM.UPDATE.{stream}", there | {"allow_rollup_hdrs": True, "republish": None})
        changes = await changes_of(connection, names)
        assert {(change.stream, change.setting) for change in changes} == {
            (stream, "republish"),
            (stream, "allow_rollup_hdrs"),
        }
        assert [change.told for change in await client.drift()] == [change.told for change in changes]
        with pytest.raises(BrokerError, match=r"its republish is None.*`jetflow setup` mends it"):
            async with jetflow.connect(nats_server.url, namespace=namespace):
                pass
        await set_up(connection, names)
        assert await client.drift() == []
        async with jetflow.connect(nats_server.url, namespace=namespace):
            pass


async def test_what_an_operator_has_chosen_is_no_drift(nats_server: NatsServer, namespace: str) -> None:
    names = Subjects(namespace)
    async with await Connection.open(nats_server.url) as connection:
        await set_up(connection, names, Wanted(max_bytes=10_000_000))
        there = (await connection.api(f"STREAM.INFO.{names.tasks_stream}"))["config"]
        assert there["max_bytes"] == 10_000_000
        await connection.api(f"STREAM.UPDATE.{names.tasks_stream}", there | {"max_age": 10**15, "description": "ours"})
        assert await changes_of(connection, names) == []
        [change] = [
            one
            for one in await changes_of(connection, names, Wanted(max_bytes=20_000_000))
            if one.stream == names.tasks_stream
        ]
        assert (change.setting, change.has, change.needs) == ("max_bytes", 10_000_000, 20_000_000)


async def test_an_older_edition_is_refused_with_what_to_do(nats_server: NatsServer, namespace: str) -> None:
    names = Subjects(namespace)
    async with await Connection.open(nats_server.url) as connection:
        await connection.api(
            f"STREAM.CREATE.{names.tasks_stream}",
            {"name": names.tasks_stream, "subjects": list(names.all_tasks), "metadata": {"jetflow_edition": "1"}},
        )
        with pytest.raises(BrokerError, match=r"edition 1 .*cannot be changed in place: .*use another namespace"):
            await set_up(connection, names)


async def test_what_the_server_never_changes_is_said(nats_server: NatsServer, namespace: str) -> None:
    names = Subjects(namespace)
    async with await Connection.open(nats_server.url) as connection:
        await set_up(connection, names)
        there = (await connection.api(f"STREAM.INFO.{names.inbox_stream}"))["config"]
        await connection.api(f"STREAM.DELETE.{names.inbox_stream}")
        await connection.api(f"STREAM.CREATE.{names.inbox_stream}", there | {"retention": "limits"})
        [change] = await set_up(connection, names)
        assert (change.setting, change.has, change.needs) == ("retention", "limits", "workqueue")
        assert change.refused.startswith("the server refuses it: ")


async def test_streams_of_a_newer_layout_are_used_and_left_alone(nats_server: NatsServer, namespace: str) -> None:
    names = Subjects(namespace)
    async with await Connection.open(nats_server.url) as connection:
        await set_up(connection, names)
        there = (await connection.api(f"STREAM.INFO.{names.records_stream}"))["config"]
        newer = {
            "subjects": [*there["subjects"], f"jf.{namespace}.newer.>"],
            "metadata": there["metadata"] | {LAYOUT_KEY: str(int(LAYOUT) + 1)},
        }
        await connection.api(f"STREAM.UPDATE.{names.records_stream}", there | newer)
        assert await set_up(connection, names) == []
        async with jetflow.connect(nats_server.url, namespace=namespace) as client, worker_of(nats_server, namespace):
            assert await result_of(client, 3) == 6


# --- the command


async def test_the_command_makes_what_workers_need_and_says_what_it_did(start: Start) -> None:
    checked = await run(start, "setup", "flows", "--check")
    assert checked.status == 1
    assert checked.output.count("does not exist") == 12  # five of them are for what is used by some only
    made = await run(start, "setup", "flows")
    assert (made.status, made.errors) == (0, "")
    assert "the consumer total-squares=report" in made.output
    again = await run(start, "setup", "flows", "--check")
    assert (again.status, again.output) == (0, "all is as it has to be\n")
    told = await run(start, "setup", "flows", "--check", "--replicas", "3", "--json")
    assert told.status == 1
    changes = msgspec.json.decode(told.output, type=list[dict[str, Any]])
    assert {(change["setting"], change["has"], change["needs"]) for change in changes} == {("num_replicas", 1, 3)}
    refused = await run(start, "setup", "--replicas", "3")
    assert refused.status == 1
    assert "not done: the stream " in refused.errors


async def test_doctor_names_drift(start: Start, nats_server: NatsServer, namespace: str) -> None:
    names = Subjects(namespace)
    async with await Connection.open(nats_server.url) as connection:
        await set_up(connection, names)
        assert "as it has to be" in " ".join((await run(start, "doctor")).output.split())
        there = (await connection.api(f"STREAM.INFO.{names.tasks_stream}"))["config"]
        await connection.api(
            f"STREAM.UPDATE.{names.tasks_stream}", there | {"deny_delete": False, "allow_direct": False}
        )
        seen = await run(start, "doctor")
    said = " ".join(seen.output.split())
    assert seen.status == 1
    assert f"the stream {names.tasks_stream}: allow_direct is False, and has to be True" in said
    assert "jetflow setup" in said
