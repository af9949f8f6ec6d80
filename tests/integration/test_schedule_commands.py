"""`jetflow schedules`, `delayed` and `reschedule`, each against a live server."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from jetflow import Client, Worker, workflow
from jetflow.server import NatsServer
from tests.integration.commands import Start, run

NIGHTS = ("2026-11-02T03:00Z", "2026-11-04T03:00Z")
PATIENCE = 20.0


@workflow("report")
async def report(number: int) -> int:
    return number


async def listed(start: Start, *command: str) -> list[dict[str, Any]]:
    """Return the rows that a command prints as JSON."""
    rows: list[dict[str, Any]] = json.loads((await run(start, *command, "--json")).output)
    return rows


async def test_schedules_are_shown(start: Start, client: Client) -> None:
    assert (await run(start, "schedules")).output.strip() == "no schedules"
    await client.schedules.create("nightly", report, 7, cron="0 3 * * *", tz="Europe/Berlin")
    await client.schedules.create("often", report, 8, every=3600)
    table = (await run(start, "schedules")).output
    assert "0 3 * * * Europe/Berlin" in table
    assert "every 3600 s" in table
    assert [row["name"] for row in await listed(start, "schedules", "report")] == ["nightly", "often"]
    assert await listed(start, "schedules", "nothing") == []
    [shown] = [json.loads((await run(start, "schedules", "show", "nightly", "--json")).output)]
    assert (shown["workflow"], shown["input"], shown["tz"]) == ("report", 7, "Europe/Berlin")
    assert "nightly" in (await run(start, "schedules", "show", "nightly")).output


async def test_the_next_ticks_are_told(start: Start, client: Client) -> None:
    await client.schedules.create("nightly", report, 7, cron="0 3 * * *", tz="UTC")
    lines = (await run(start, "schedules", "next", "nightly", "--count", "3")).output.splitlines()
    assert len(lines) == 3
    assert all("T03:00:00" in line for line in lines)
    assert json.loads((await run(start, "schedules", "next", "nightly", "--count", "3", "--json")).output) == lines


async def test_they_are_paused_resumed_and_deleted(start: Start, client: Client) -> None:
    await client.schedules.create("nightly", report, 7, cron="0 3 * * *")
    assert "paused" in (await run(start, "schedules", "pause", "nightly")).output
    assert (await client.schedules.get("nightly")).paused
    assert "paused" not in (await run(start, "schedules", "resume", "nightly")).output
    assert json.loads((await run(start, "schedules", "pause", "nightly", "--json")).output)["paused"]
    assert (await run(start, "schedules", "delete", "nightly")).output == "nightly: deleted\n"
    assert await client.schedules.list() == []


async def test_runs_are_started_by_hand_and_made_up_for(
    start: Start, client: Client, nats_server: NatsServer, namespace: str
) -> None:
    """What was started for a tick before is not started again."""
    await client.schedules.create("nightly", report, 7, cron="0 3 * * *", tz="UTC")
    async with Worker([report], server=nats_server.url, namespace=namespace):
        [now] = (await run(start, "schedules", "trigger", "nightly")).output.split()
        made = (await run(start, "schedules", "backfill", "nightly", *NIGHTS)).output.split()
        again = json.loads((await run(start, "schedules", "backfill", "nightly", *NIGHTS, "--json")).output)
        assert len(made) == 3
        assert made == again
        assert [await client.run(one).result(PATIENCE) for one in (now, *made)] == [7] * 4
        nothing = await run(start, "schedules", "backfill", "nightly", "2026-11-02T04:00Z", "2026-11-02T05:00Z")
        assert nothing.output == "no tick in that time\n"


async def test_what_makes_no_sense_is_refused(start: Start, client: Client) -> None:
    assert await client.schedules.list() == []
    for command in ("show", "next", "pause", "resume", "delete", "trigger"):
        refused = await run(start, "schedules", command, "nothing")
        assert (refused.status, refused.output) == (1, ""), command
        assert "'nothing'" in refused.errors, command
    refused = await run(start, "schedules", "backfill", "nightly", "yesterday", NIGHTS[1])
    assert (refused.status, refused.output) == (2, "")
    assert "'yesterday' is no time" in refused.errors


async def test_runs_that_begin_later_are_listed_moved_and_forgotten(start: Start, client: Client) -> None:
    assert (await run(start, "delayed")).output.strip() == "no run begins later"
    kept = await client.trigger(report, 1, key="kept", delay=3600)
    other = await client.trigger(report, 2, key="other", delay=7200)
    table = (await run(start, "delayed")).output
    assert kept.id in table
    assert "other" in table
    assert [row["id"] for row in await listed(start, "delayed", "report")] == [kept.id, other.id]
    assert await listed(start, "delayed", "nothing") == []
    shown = await run(start, "show", kept.id)
    assert "scheduled" in shown.output
    assert "kept" in shown.output

    moved = await run(start, "reschedule", kept.id, "--at", "2027-01-01T08:00+01:00")
    assert moved.output == f"run {kept.id} begins at 2027-01-01T08:00:00+01:00\n"
    [at] = [row.at for row in await client.delayed() if row.id == kept.id]
    assert datetime.fromtimestamp(at, UTC) == datetime(2027, 1, 1, 7, tzinfo=UTC)
    assert (await run(start, "reschedule", other.id, "--delay", "60")).output == f"run {other.id} begins in 60 s\n"
    assert [row["id"] for row in await listed(start, "delayed")] == [other.id, kept.id]

    assert (await run(start, "cancel", kept.id)).output == f"run {kept.id} is cancelled\n"
    assert json.loads((await run(start, "cancel", other.id, "--json")).output)["status"] == "cancelled"
    assert await client.delayed() == []
    assert (await run(start, "cancel", kept.id)).status == 1


async def test_a_time_is_asked_for_in_one_way(start: Start, client: Client) -> None:
    later = await client.trigger(report, 1, delay=3600)
    for arguments in ((), ("--at", "2027-01-01T08:00Z", "--delay", "1"), ("--at", "soon")):
        assert (await run(start, "reschedule", later.id, *arguments)).status == 2, arguments
    assert (await run(start, "reschedule", "0" * 32, "--delay", "1")).status == 1
    await client.cancel(later.id)


async def test_an_input_that_does_not_fit_is_refused_where_it_is_given(start: Start, client: Client) -> None:
    """By the schema that is stored with the workflow: nothing is started, and nobody has to wait for its end."""
    await client.session.registry.declare(report.declaration)
    for value in ('"seven"', "null", "[1]", "1.5"):
        refused = await run(start, "trigger", "report", value)
        assert (refused.status, refused.output) == (1, ""), value
        assert "input of workflow 'report': expected integer" in refused.errors, value
    assert (await client.runs()).items == ()
