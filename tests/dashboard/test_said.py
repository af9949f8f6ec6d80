"""What steps say, as the API tells it: the newest, live, and withheld from whoever may not see payloads."""

from __future__ import annotations

import asyncio
from typing import Any

import jetflow
from jetflow import Context, Retry, Worker, workflow
from jetflow.dashboard import Access, Dashboard
from jetflow.server import NatsServer
from tests.dashboard.serving import serve

PATIENCE = 30.0


@workflow("speaks", retry=Retry(attempts=1))
async def speaks(upto: int, ctx: Context) -> int:
    for number in range(upto):
        await ctx.stream({"secret": number})
        ctx.log(f"line {number}")
    ctx.progress(0.5, "half")
    await asyncio.sleep(0.6)
    ctx.progress(1.0, "done")
    return upto


def _hidden(workflow: str, kind: str, value: Any) -> Any:
    return {"workflow": workflow, "kind": kind}


async def test_what_steps_say_is_told_and_told_live(nats_server: NatsServer, namespace: str) -> None:
    url = nats_server.url
    async with (
        jetflow.connect(url, namespace=namespace) as client,
        Worker([speaks], server=url, namespace=namespace),
        Dashboard(url, namespace=namespace, access=Access.full("ann")) as dashboard,
        serve(dashboard) as api,
    ):
        run = await client.trigger(speaks, 5)
        news: list[str] = []
        async with asyncio.timeout(PATIENCE), api.stream("GET", f"/api/v1/live?topic=said:{run.id}") as events:
            async for line in events.aiter_lines():
                if line.startswith("data:") and "fraction" in line:
                    news.append(line)
                    if '"text":"done"' in line:
                        break
        assert '"chunks":5' in news[-1]
        told = (await api.get(f"/api/v1/runs/{run.id}/said?limit=2")).json()
    assert [line["message"] for line in told["lines"]] == ["line 3", "line 4"]
    assert [chunk["text"] for chunk in told["chunks"]] == ['{"secret":3}', '{"secret":4}']
    assert (told["more_lines"], told["more_chunks"], told["withheld"]) == (3, 3, False)
    assert told["progress"]["run"]["text"] == "done"


async def test_lines_and_chunks_are_withheld_or_redacted(nats_server: NatsServer, namespace: str) -> None:
    url = nats_server.url
    async with (
        jetflow.connect(url, namespace=namespace) as client,
        Worker([speaks], server=url, namespace=namespace),
        Dashboard(url, namespace=namespace, access=Access.full("ann", payloads=False)) as blind,
        Dashboard(url, namespace=namespace, access=Access.full("ann"), redact=_hidden) as redacted,
        serve(blind) as api,
        serve(redacted) as other,
    ):
        run = await client.trigger(speaks, 1)
        await run.result(PATIENCE)
        told = (await api.get(f"/api/v1/runs/{run.id}/said")).json()
        assert (told["withheld"], told["lines"], told["chunks"]) == (True, [], [])
        assert told["progress"]["run"]["fraction"] == 1.0
        [chunk] = (await other.get(f"/api/v1/runs/{run.id}/said")).json()["chunks"]
        assert chunk["text"] == '{"workflow":"speaks","kind":"chunk"}'
        assert (await api.get(f"/api/v1/runs/{'0' * 32}/said")).status_code == 404
