"""`jetflow logs`, `publish` and `signal`, each against a live server and a worker process."""

from __future__ import annotations

import json

import jetflow
from jetflow import Client, Context, Event, Signal, Worker, workflow
from jetflow.server import NatsServer
from tests.endings.stored import until
from tests.integration.commands import Start, run

PATIENCE = 20.0


@workflow("talks")
async def talks(payload: dict[str, str], ctx: Context) -> str:
    await ctx.stream(payload["name"])
    ctx.log("hello", name=payload["name"])
    ctx.progress(0.5, "waits")
    signal = await ctx.wait_for(Signal("approval"))
    await ctx.wait_for(Event("door.closed", key="front door"))
    return signal.payload["by"]


talks.on("person.came")


async def test_a_run_is_started_spoken_to_and_heard_by_commands(
    start: Start, nats_server: NatsServer, namespace: str
) -> None:
    async with (
        jetflow.connect(nats_server.url, namespace=namespace) as client,
        Worker([talks], server=nats_server.url, namespace=namespace),
    ):
        published = await run(start, "publish", "person.came", '{"name": "ann"}', "--id", "1", "--json")
        [event] = json.loads(published.output)
        again = await run(start, "publish", "person.came", '{"name": "ann"}', "--id", "1")
        assert again.output == f"there was an event {event['id']} already\n"
        run_id = (await started(client, event["id"]))["talks"]
        async with start("logs", run_id, "-f") as logs:
            assert (await logs.line("hello")).rstrip().endswith("info    run: hello name=ann")
            shown = await run(start, "show", run_id)
            assert "run: 50% waits" in shown.output
            sent = await run(start, "signal", run_id, "approval", '{"by": "bob"}')
            assert sent.output.startswith("sent ")
            await run(start, "publish", "door.closed", "--key", "front door")
            assert await client.run(run_id).result(timeout=PATIENCE) == "bob"
            assert (await logs.ended()).status == 0  # it ends with the run
        told = [json.loads(line) for line in (await run(start, "logs", run_id, "--json")).output.splitlines()]
        assert (told[0]["message"], told[0]["fields"], told[0]["turn"]) == ("hello", {"name": "ann"}, 0)
        assert {line["message"] for line in told} == {"hello"}  # once in each turn: the body begins anew
        assert set((await run(start, "logs", run_id, "--output")).output.split()) == {"ann"}


async def started(client: jetflow.Client, event: str) -> dict[str, str]:
    async def there() -> dict[str, str]:
        return await client.runs_of_event(event)

    return await until(there)


async def test_what_makes_no_sense_is_refused(start: Start) -> None:
    for arguments in (
        ("publish", "person.came", "{"),
        ("publish", "person.came", "--metadata", "[]"),
        ("publish", "person.came", "1", "--lines"),
        ("signal", "0" * 32, "approval", "{"),
    ):
        refused = await run(start, *arguments)
        assert (refused.status, refused.output) == (2, ""), arguments
    assert (await run(start, "publish", "no topic", "1")).status == 1
    assert "UnknownRun" not in (await run(start, "logs", "0" * 32)).output


async def test_a_signal_to_a_run_that_nobody_knows_is_not_sent(start: Start, client: Client) -> None:
    refused = await run(start, "signal", "0" * 32, "approval", "1")
    assert (refused.status, refused.output) == (1, "")
    assert "0" * 32 in refused.errors
    assert await client.events(">") == []
    await client.trigger(talks, {"name": "ann"}, key="later", delay=600)
    [waiting] = await client.delayed()
    assert (await run(start, "signal", waiting.id, "approval", "1")).output.startswith("sent ")
    await client.cancel(waiting.id)
