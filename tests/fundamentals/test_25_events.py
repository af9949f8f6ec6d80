"""Events: facts from outside, stored once, that start a run of each workflow that asks for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from patience import PATIENCE, until

from jetflow import Client, Context, InvalidDeclaration, InvalidInput, Retry, RunFailed, Worker, Workflow, workflow
from jetflow.wire.events import STARTED_BY, EventNames

MakeWorker = Callable[..., Worker]


class Order(msgspec.Struct):
    id: str
    amount: float


def ships(name: str = "ship") -> Workflow[Order, str]:
    @workflow(name, retry=Retry(attempts=1))
    async def ship(order: Order) -> str:
        return f"shipped {order.id}"

    return ship


async def result_of(client: Client, run: str) -> Any:
    return await client.run(run).result(timeout=PATIENCE)


async def started(client: Client, event: Any, count: int = 1) -> dict[str, str]:
    async def are_there() -> bool:
        return len(await client.runs_of_event(event)) == count

    await until(are_there)
    return await client.runs_of_event(event)


async def test_an_event_starts_a_run_of_each_workflow_that_asks_for_it(client: Client, worker: MakeWorker) -> None:
    ship, tell = ships(), ships("tell")
    ship.on("order.paid")
    tell.on("order.*")
    async with worker([ship, tell]):
        event = await client.publish("order.paid", {"id": "a1", "amount": 12.5})
        runs = await started(client, event, 2)
        assert sorted(runs) == ["ship", "tell"]
        assert [await result_of(client, run) for run in runs.values()] == ["shipped a1", "shipped a1"]


async def test_the_payload_is_the_input_and_the_run_knows_its_event(client: Client, worker: MakeWorker) -> None:
    @workflow("looks")
    async def looks(order: dict[str, Any], ctx: Context) -> list[Any]:
        return [order, dict(ctx.metadata)]

    looks.on("order.paid")
    async with worker([looks]):
        event = await client.publish("order.paid", {"id": "a1"}, key="customer 7", metadata={"from": "shop"})
        [run] = (await started(client, event)).values()
        order, metadata = await result_of(client, run)
    told = {"id": event.id, "topic": "order.paid", "key": "customer 7", "sequence": event.sequence}
    assert (order, metadata) == ({"id": "a1"}, {"from": "shop", STARTED_BY: told})


async def test_conditions_decide_which_events_start_one(client: Client, worker: MakeWorker) -> None:
    ship = ships()
    ship.on("order.paid", if_=[["amount", ">", 10], ["country", "in", ["de", "fr"]]])
    async with worker([ship]):
        await client.publish("order.paid", {"id": "small", "amount": 1, "country": "de"})
        await client.publish("order.paid", {"id": "far", "amount": 11, "country": "nz"})
        await client.publish("order.paid", {"id": "without", "amount": 11})
        fits = await client.publish("order.paid", {"id": "fits", "amount": 11, "country": "fr"})
        [run] = (await started(client, fits)).values()
        assert await result_of(client, run) == "shipped fits"
        assert [row.id for row in (await client.runs(workflow="ship")).items] == [run]


async def test_a_function_may_decide_and_its_error_is_recorded_once(client: Client, worker: MakeWorker) -> None:
    ship = ships()

    @ship.on("order.paid")
    def is_urgent(order: dict[str, Any]) -> bool:
        return order["urgent"]

    async with worker([ship]):
        await client.publish("order.paid", {"id": "a1", "amount": 1, "urgent": False})
        broken = await client.publish("order.paid", {"id": "a2", "amount": 1})
        urgent = await client.publish("order.paid", {"id": "a3", "amount": 1, "urgent": True})
        assert await result_of(client, (await started(client, urgent))["ship"]) == "shipped a3"
        with pytest.raises(RunFailed, match="KeyError: 'urgent'") as caught:
            await result_of(client, (await started(client, broken))["ship"])
    assert caught.value.error_type == "PredicateFailed"


async def test_a_key_chooses_among_events_of_one_topic(client: Client, worker: MakeWorker) -> None:
    ship = ships()
    ship.on("order.paid", key="customer 7")
    async with worker([ship]):
        await client.publish("order.paid", {"id": "of 8", "amount": 1}, key="customer 8")
        await client.publish("order.paid", {"id": "of nobody", "amount": 1})
        event = await client.publish("order.paid", {"id": "of 7", "amount": 1}, key="customer 7")
        [run] = (await started(client, event)).values()
        assert await result_of(client, run) == "shipped of 7"
        assert len((await client.runs()).items) == 1


async def test_an_id_makes_an_event_one(client: Client, worker: MakeWorker) -> None:
    ship = ships()
    ship.on("order.paid")
    async with worker([ship]):
        first = await client.publish("order.paid", {"id": "a1", "amount": 1}, id="payment-77")
        again = await client.publish("order.paid", {"id": "a1", "amount": 1}, id="payment-77")
        elsewhere = await client.publish("order.sent", {"id": "a1"}, id="payment-77")
        await result_of(client, (await started(client, first))["ship"])
        assert len((await client.runs()).items) == 1
    assert (first.created, again.created, elsewhere.created) == (True, False, True)
    assert (again.id, again.sequence) == (first.id, first.sequence)


async def test_many_are_published_at_once_and_each_starts_one_run(client: Client, worker: MakeWorker) -> None:
    ship = ships()
    ship.on("order.paid")
    orders = [{"id": f"a{n}", "amount": n} for n in range(300)]
    async with worker([ship]), worker([ship]):
        events = await client.publish_many("order.paid", orders, id=lambda order: order["id"])
        assert [event.payload for event in events] == orders

        async def ended() -> int:
            return len((await client.runs(status="succeeded", limit=1000)).items)

        async def have_ended() -> bool:
            return await ended() == 300

        await until(have_ended)
        assert len((await client.runs(limit=1000)).items) == 300


async def test_any_nats_client_publishes_an_event_by_one_publish(client: Client, worker: MakeWorker) -> None:
    ship = ships()
    ship.on("order.paid")
    async with worker([ship]):
        nats = client.session.connection.client
        await nats.publish(f"jf.{client.namespace}.event._.order.paid", b'{"id": "plain", "amount": 1}')

        async def is_stored() -> bool:
            return len(await client.events("order.paid")) == 1

        await until(is_stored)
        [event] = await client.events("order.paid")
        [run] = (await started(client, event)).values()
        assert await result_of(client, run) == "shipped plain"


async def test_a_payload_that_does_not_fit_fails_the_run_and_not_the_publisher(
    client: Client, worker: MakeWorker
) -> None:
    ship = ships()
    ship.on("order.paid")
    async with worker([ship]):
        event = await client.publish("order.paid", {"id": 7})
        with pytest.raises(RunFailed, match="InvalidInput"):
            await result_of(client, (await started(client, event))["ship"])


async def test_an_event_that_was_there_before_starts_nothing_and_is_kept(client: Client, worker: MakeWorker) -> None:
    ship = ships()
    ship.on("order.paid")
    before = await client.publish("order.paid", {"id": "before", "amount": 1}, key="k")
    async with worker([ship]):
        after = await client.publish("order.paid", {"id": "after", "amount": 1})
        await result_of(client, (await started(client, after))["ship"])
        assert await client.runs_of_event(before) == {}
    kept = await client.events()
    assert [(event.topic, event.key, event.payload["id"]) for event in kept] == [
        ("order.paid", "k", "before"),
        ("order.paid", None, "after"),
    ]


async def test_what_happens_while_no_worker_runs_is_waiting_for_one(client: Client, worker: MakeWorker) -> None:
    ship = ships()
    ship.on("order.paid")
    async with worker([ship]):
        pass
    event = await client.publish("order.paid", {"id": "a1", "amount": 1})
    async with worker([ship]):
        assert await result_of(client, (await started(client, event))["ship"]) == "shipped a1"


async def test_a_version_that_takes_no_events_any_more_starts_no_runs_for_them(
    client: Client, worker: MakeWorker
) -> None:
    ship = ships()
    ship.on("order.paid")
    async with worker([ship]):
        pass
    async with worker([ships()]):
        pass
    names = EventNames(client.session.names)
    info = await client.session.connection.api(f"STREAM.INFO.{names.stream}")
    assert info["state"]["consumer_count"] == 0


@pytest.mark.parametrize("topic", ["", "order paid", "a..b", "order.*", "x" * 65, "a.b.c.d.e.f.g.h.i"])
async def test_what_is_no_topic_is_refused(client: Client, topic: str) -> None:
    with pytest.raises(InvalidInput, match="topic"):
        await client.publish(topic, 1)


@pytest.mark.parametrize(
    "if_", [[["amount", "~", 1]], ["amount"], [["amount", ">"]], [[1, ">", 1]], [["a..b", "==", 1]], [["a", "==", {1}]]]
)
def test_what_is_no_condition_is_refused_where_it_is_declared(if_: Any) -> None:
    with pytest.raises(InvalidDeclaration, match="condition 1 of if_"):
        ships().on("order.paid", if_=if_)


async def test_a_namespace_without_events_has_nothing_of_them(client: Client, worker: MakeWorker) -> None:
    async with worker([ships()]):
        run = await client.trigger("ship", {"id": "a1", "amount": 1})
        assert await run.result(timeout=PATIENCE) == "shipped a1"
    assert not any(stream.name.endswith("_events") for stream in (await client.storage()).streams)
    assert await client.events() == []


async def test_a_workflow_of_topics_that_overlap_starts_one_run_for_each_event(
    client: Client, worker: MakeWorker
) -> None:
    ship = ships()
    ship.on("order.*")
    ship.on("*.paid")
    ship.on("order.paid", if_=[["amount", ">", 0]])
    async with worker([ship]):
        other = await client.publish("bill.sent", {"id": "other", "amount": 1})
        events = [await client.publish(topic, {"id": topic, "amount": 1}) for topic in ("order.paid", "bill.paid")]
        for event in events:
            assert await result_of(client, (await started(client, event))["ship"]) == f"shipped {event.topic}"
        assert len((await client.runs()).items) == 2
        assert await client.runs_of_event(other) == {}
        await asyncio.sleep(0)
