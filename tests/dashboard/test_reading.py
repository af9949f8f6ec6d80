"""Every path that reads: what it answers, what it answers where there is nothing, and what it refuses."""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest

from tests.dashboard.world import CHILDREN, LARGE, World

NOBODY = "0" * 32


async def got(api: httpx.AsyncClient, path: str, **parameters: Any) -> Any:
    answer = await api.get(path, params=parameters)
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    return answer.json()


async def refused(api: httpx.AsyncClient, path: str, status: int, kind: str) -> dict[str, Any]:
    answer = await api.get(path)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    told = answer.json()
    assert told["type"] == f"urn:jetflow:{kind}"
    assert (told["status"], bool(told["title"]), bool(told["detail"]), bool(told["hint"])) == (status, True, True, True)
    return told


async def test_what_a_page_has_to_know_first(api: httpx.AsyncClient, world: World) -> None:
    meta = await got(api, "meta")
    assert meta["namespace"] == world.namespace
    assert meta["server"]["connected"]
    assert meta["server"]["version"].startswith("2.")
    assert meta["access"] == {
        "user": "ann",
        "actions": ["bulk", "cancel", "delete", "pause", "rerun", "stack", "trigger"],
        "payloads": True,
    }
    assert abs(meta["now"] - time.time()) < 60


async def test_the_overview(api: httpx.AsyncClient, world: World) -> None:
    told = await got(api, "overview")
    assert told["counts"]["waiting"] == 1
    assert told["counts"]["ended"] >= 6
    assert told["counts"]["failed"] == 1
    assert [row["workflow"] for row in told["queues"]] == ["idle"]
    assert told["errors"]["total"] == 61
    assert {row["id"] for row in told["longest"]} == {world.patient, world.waiting}
    assert told["longest_complete"]
    assert told["workers"] == {"count": 0, "slots": 0, "used": 0, "waiting": 0}
    assert told["newest"][0]["id"] == world.waiting
    assert len(told["series"]) in (60, 61, 62)
    assert sum(bucket["ended"] for bucket in told["series"]) == told["counts"]["ended"]


async def test_root_runs(api: httpx.AsyncClient, world: World) -> None:
    page = await got(api, "runs")
    assert page["items"][0]["id"] == world.waiting
    assert page["searched"]["complete"]
    [fan] = (await got(api, "runs", **{"meta.customer": "acme", "meta.n": "5"}))["items"]
    assert (fan["id"], fan["key"], fan["status"]) == (world.fan, "fan", "succeeded")
    assert [row["id"] for row in (await got(api, "runs", status="cancelled"))["items"]] == [world.cancelled]
    first = await got(api, "runs", limit=2)
    second = await got(api, "runs", limit=2, after=first["next"])
    assert [row["id"] for row in first["items"] + second["items"]] == [row["id"] for row in page["items"][:4]]


async def test_root_runs_are_sorted_and_searched(api: httpx.AsyncClient, world: World) -> None:
    found = await got(api, "runs", q="ACME")
    assert [row["id"] for row in found["items"]] == [world.fan]
    rows = (await got(api, "runs", sort="triggered"))["items"]
    assert [row["triggered"] for row in rows] == sorted(row["triggered"] for row in rows)
    assert (await got(api, "runs", q="nosuch"))["items"] == []
    await refused(api, "runs?sort=colour", 400, "invalid-query")


async def test_no_root_runs(api: httpx.AsyncClient) -> None:
    for none in ({"workflow": "nosuch"}, {"key": "nosuch"}, {"since": time.time() + 60}, {"meta.customer": "nosuch"}):
        page = await got(api, "runs", **none)
        assert (page["items"], page["next"], page["searched"]["complete"]) == ([], None, True)


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("status=bad", "succeeded"),
        ("limit=0", "limit"),
        ("limit=5000", "limit"),
        ("limit=many", "limit"),
        ("since=yesterday", "since"),
        ("after=nonsense", "no cursor"),
        ("workflow=a.b", "not the name of any workflow"),
        ("colour=red", "'colour'"),
        ("limit=1&limit=2", "2 times"),
    ],
)
async def test_a_question_that_makes_no_sense(api: httpx.AsyncClient, query: str, said: str) -> None:
    assert said in (await refused(api, f"runs?{query}", 400, "invalid-query"))["detail"]


async def test_one_run(api: httpx.AsyncClient, world: World) -> None:
    told = await got(api, f"runs/{world.diamond}")
    run, graph = told["run"], told["graph"]
    assert (run["status"], run["workflow"]) == ("succeeded", "diamond")
    steps = {step["name"]: step for step in run["steps"]}
    assert [steps[name]["status"] for name in ("begin", "left", "right", "middle", "end")] == ["succeeded"] * 5
    assert steps["left"]["attempts"] == 2
    assert steps["left"]["failures"][0]["error"]["type"] == "OSError"
    assert (run["input"], run["output"], {step["output"] for step in run["steps"]}) == (None, None, {None})
    layers = {node["name"]: node["layer"] for node in graph["nodes"]}
    assert layers == {"begin": 0, "left": 1, "right": 1, "middle": 2, "end": 3}
    assert {(edge["from"], edge["to"]) for edge in graph["edges"]} >= {("begin", "left"), ("middle", "end")}
    assert [one["id"] for one in told["lineage"]["path"]] == [world.diamond]
    assert told["totals"]["totals"]["spawned"] == 0


async def test_a_run_that_waits_for_its_next_attempt(api: httpx.AsyncClient, world: World) -> None:
    [step] = (await got(api, f"runs/{world.patient}"))["run"]["steps"]
    assert step["status"] == "retrying"
    assert step["again"] > time.time() + 600
    spans = (await got(api, f"runs/{world.patient}/timeline"))["spans"]
    assert [span["kind"] for span in spans] == ["queued", "run", "backoff"]
    assert spans[-1]["to"] == step["again"]


async def test_a_run_that_was_cancelled(api: httpx.AsyncClient, world: World) -> None:
    assert (await got(api, f"runs/{world.cancelled}"))["run"]["status"] == "cancelled"


async def test_the_runs_above_one(api: httpx.AsyncClient, world: World) -> None:
    run_id = world.deep
    for _ in range(4):
        [child] = (await got(api, f"runs/{run_id}/children"))["items"]
        run_id = child["id"]
    lineage = (await got(api, f"runs/{run_id}"))["lineage"]
    assert len(lineage["path"]) == 5
    assert (lineage["path"][0]["id"], lineage["path"][-1]["id"]) == (world.deep, run_id)
    assert [one["step"] for one in lineage["path"]] == [None, "run", "run", "run", "run"]
    assert (lineage["n"], lineage["skipped"]) == (0, 0)
    [last] = (await got(api, f"runs/{world.fan}/children", offset=CHILDREN - 1))["items"]
    assert (await got(api, f"runs/{last['id']}"))["lineage"]["n"] == CHILDREN - 1


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/totals",
        "/children",
        "/children/0",
        "/errors",
        "/timeline",
        "/tree",
        "/input",
        "/output",
        "/messages",
    ],
)
async def test_a_run_that_is_not_stored(api: httpx.AsyncClient, path: str) -> None:
    await refused(api, f"runs/{NOBODY}{path}", 404, "unknown-run")
    await refused(api, f"runs/nonsense{path}", 404, "unknown-run")


async def test_totals(api: httpx.AsyncClient, world: World) -> None:
    told = await got(api, f"runs/{world.fan}/totals")
    assert told["totals"] | {"removed": 0} == {
        "spawned": CHILDREN,
        "open": 0,
        "succeeded": CHILDREN - 60,
        "failed": 60,
        "cancelled": 0,
        "timed_out": 0,
        "removed": 0,
    }
    assert [one["workflow"] for one in told["workflows"]] == ["leaf"]
    many = await got(api, "totals", run=[world.fan, NOBODY])
    assert many[NOBODY] is None
    assert many[world.fan]["totals"] == told["totals"]
    await refused(api, "totals", 400, "invalid-query")


async def test_children(api: httpx.AsyncClient, world: World) -> None:
    base = f"runs/{world.fan}/children"
    page = await got(api, base, offset=1000, limit=5)
    assert [row["n"] for row in page["items"]] == [1000, 1001, 1002, 1003, 1004]
    assert (page["total"], page["items"][0]["key"]) == (CHILDREN, "/p/1000")
    following = await got(api, base, after=page["next"], limit=5)
    assert following["items"][0]["n"] == 1005
    failed = await got(api, base, status="failed", limit=100)
    assert (len(failed["items"]), failed["total"]) == (60, 60)
    assert {row["error"]["type"] for row in failed["items"]} == {"ValueError", "KeyError", "TimeoutError"}
    found = await got(api, base, q="/p/1234")
    assert [row["n"] for row in found["items"]] == [1234]
    assert (await got(api, base, sort="-n", limit=1))["items"][0]["n"] == CHILDREN - 1
    assert (await got(api, f"{base}/1234"))["key"] == "/p/1234"


async def test_no_children(api: httpx.AsyncClient, world: World) -> None:
    assert (await got(api, f"runs/{world.diamond}/children"))["items"] == []
    assert (await got(api, f"runs/{world.fan}/children", q="nosuch"))["items"] == []
    assert (await got(api, f"runs/{world.fan}/children", offset=CHILDREN))["items"] == []
    await refused(api, f"runs/{world.fan}/children/{CHILDREN}", 404, "unknown-child")
    other = (await got(api, f"runs/{world.fan}/children", limit=1))["next"]
    await refused(api, f"runs/{world.fan}/children?status=failed&after={other}", 400, "invalid-query")
    await refused(api, f"runs/{world.fan}/children?sort=colour", 400, "invalid-query")
    await refused(api, f"runs/{world.fan}/children?offset=-1", 400, "invalid-query")


async def test_failures(api: httpx.AsyncClient, world: World) -> None:
    told = await got(api, f"runs/{world.fan}/errors")
    assert told["total"] == 60
    groups = {group["type"]: group for group in told["items"]}
    assert {kind: group["count"] for kind, group in groups.items()} == {
        "ValueError": 20,
        "KeyError": 20,
        "TimeoutError": 20,
    }
    assert groups["ValueError"]["message"] == "bad number …"
    assert groups["TimeoutError"]["sample"] == "<b>slow</b>"
    assert (await got(api, "errors"))["total"] == 61
    assert (await got(api, "errors", workflow="fan"))["items"] == []
    assert (await got(api, f"runs/{world.diamond}/errors"))["total"] == 0


async def test_a_run_over_time(api: httpx.AsyncClient, world: World) -> None:
    told = await got(api, f"runs/{world.diamond}/timeline")
    kinds = [span["kind"] for span in told["spans"] if span["step"] == "left"]
    assert [kind for kind in kinds if kind != "queued"] == ["run", "backoff", "run"]
    assert all(told["from"] <= span["from"] <= (span["to"] or told["to"]) for span in told["spans"])
    assert told["children"] == []
    ribbon = (await got(api, f"runs/{world.fan}/timeline"))["children"]
    assert sum(bucket["ended"] for bucket in ribbon) == CHILDREN
    assert sum(bucket["failed"] for bucket in ribbon) == 60


async def test_the_runs_below_one(api: httpx.AsyncClient, world: World) -> None:
    tree = await got(api, f"runs/{world.deep}/tree", depth=2)
    [child] = tree["children"]
    [grandchild] = child["children"]
    assert (grandchild["workflow"], grandchild["children"], grandchild["deeper"]) == ("deep", [], True)
    assert (len(child["runs"]), len(child["keys"])) == (1, 1)
    await refused(api, f"runs/{world.deep}/tree?depth=99", 400, "invalid-query")
    [rolled] = (await got(api, f"runs/{world.fan}/tree"))["children"]
    assert (rolled["step"], rolled["workflow"], rolled["totals"]["failed"]) == ("run", "leaf", 60)
    assert (rolled["totals"]["spawned"], rolled["runs"]) == (CHILDREN, [])
    assert rolled["took"]["p50"] <= rolled["took"]["p95"]


async def test_values(api: httpx.AsyncClient, world: World) -> None:
    assert await got(api, f"runs/{world.diamond}/input") == 5
    assert await got(api, f"runs/{world.diamond}/output") == {"<script>alert(1)</script>": 5}
    assert await got(api, f"runs/{world.diamond}/steps/right/output") == "right"
    assert await got(api, f"runs/{world.diamond}/steps/end/output") == {"<script>alert(1)</script>": 5}
    assert await got(api, f"runs/{world.diamond}/steps/left/once/price") == 7
    await refused(api, f"runs/{world.diamond}/steps/left/once/nosuch", 404, "no-value")
    await refused(api, f"runs/{world.diamond}/steps/nosuch/output", 404, "no-value")
    await refused(api, f"runs/{world.patient}/output", 404, "no-value")


async def test_a_large_value_is_read_in_part_and_loaded_whole(api: httpx.AsyncClient, world: World) -> None:
    head = await api.get(f"runs/{world.large}/output", params={"head": 65536})
    assert (len(head.content), head.headers["x-size"]) == (65536, str(LARGE + 2))
    assert head.headers["content-type"] == "application/json; charset=utf-8"
    whole = await api.get(f"runs/{world.large}/output", params={"download": "true"})
    assert whole.content == b'"' + b"x" * LARGE + b'"'
    assert whole.headers["content-disposition"] == f'attachment; filename="{world.large}-output.json"'
    assert len((await api.get(f"runs/{world.large}")).content) < 10_000


async def test_messages(api: httpx.AsyncClient, world: World) -> None:
    told = await got(api, f"runs/{world.diamond}/messages")
    assert told["complete"]
    kinds = [row["kind"] for row in told["items"]]
    assert {kind: kinds.count(kind) for kind in ("run", "once")} == {"run": 1, "once": 1}
    assert kinds.count("task") >= 5
    assert all(row["command"].startswith("nats stream get ") for row in told["items"])


async def test_workflows(api: httpx.AsyncClient) -> None:
    rows = {row["name"]: row for row in await got(api, "workflows")}
    assert set(rows) == {"leaf", "fan", "diamond", "deep", "large", "patient", "idle"}
    assert (rows["leaf"]["triggered"], rows["leaf"]["failed"]) == (1, 1)
    assert rows["diamond"]["summary"]["took"]["most"] > 0
    assert (rows["deep"]["summary"]["runs"], rows["deep"]["summary"]["succeeded"]) == (1, 1)
    assert rows["idle"]["waiting"] == 1
    told = await got(api, "workflows/diamond")
    assert len(told["graph"]["nodes"]) == 5
    assert told["steps"]["left"]["attempts"] == 2
    assert told["input"]["type"] == "integer"
    await refused(api, "workflows/nosuch", 404, "unknown-workflow")


async def test_queues_workers_and_the_doctor(api: httpx.AsyncClient, world: World) -> None:
    queues = {(row["workflow"], row["step"]): row for row in await got(api, "queues")}
    assert queues["idle", "run"]["waiting"] == 1
    assert await got(api, "workers") == []
    await refused(api, "workers/nobody", 404, "unknown-worker")
    told = await got(api, "doctor")
    assert f"JF_{world.namespace}_tasks" in {stream["name"] for stream in told["storage"]["streams"]}
    states = {check["name"]: check["state"] for check in told["checks"]}
    assert states["workers"] == "look"
    assert set(states.values()) <= {"ok", "look", "unknown"}
    assert await got(api, f"runs/{world.diamond}/running") == []
    assert await got(api, f"runs/{world.diamond}/stack") == []


async def test_the_description_of_the_api(api: httpx.AsyncClient) -> None:
    told = await got(api, "openapi.json")
    parameters = {one["name"] for one in told["paths"]["/runs"]["get"]["parameters"]}
    assert parameters >= {"workflow", "status", "since", "meta.{name}", "after", "limit"}
    assert "RunTrace" in told["components"]["schemas"]
    assert told["paths"]["/runs/{id}/children/{n}"]["get"]["parameters"][0]["in"] == "path"
    for path, operations in told["paths"].items():
        for method, operation in operations.items():
            assert operation["summary"].endswith("."), (method, path)


async def test_what_is_not_there(api: httpx.AsyncClient) -> None:
    await refused(api, "nosuch", 404, "unknown-path")
    answer = await api.put("runs")
    assert (answer.status_code, answer.json()["type"]) == (405, "urn:jetflow:wrong-method")


async def test_runs_that_wait_for_another_attempt_are_found(api: httpx.AsyncClient, world: World) -> None:
    page = await got(api, "runs", status="retrying")
    [row] = page["items"]
    assert (row["id"], row["status"], row["error"]["type"]) == (world.patient, "running", "OSError")
    assert row["again"] > time.time() + 600
    assert page["searched"]["complete"]
    assert page["searched"]["runs"] >= 2
    assert (await got(api, "runs", status="retrying", workflow="idle"))["items"] == []
    assert all(row["again"] is None for row in (await got(api, "runs"))["items"])
    await refused(api, "runs?status=retrying&sort=took", 400, "invalid-query")
    await refused(api, "runs?status=retrying,failed", 400, "invalid-query")
    await refused(api, f"runs/{world.fan}/children?status=retrying", 400, "invalid-query")
