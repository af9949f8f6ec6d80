"""What jetflow refuses, and how it says so: names, types, inputs, outputs, depths."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import msgspec
import nats
import pytest
from patience import PATIENCE

import jetflow
from jetflow import (
    Client,
    Context,
    DepthExceeded,
    InvalidDeclaration,
    InvalidInput,
    JetflowError,
    Retry,
    RunFailed,
    UnknownWorkflow,
    Worker,
    WorkerOptions,
    Workflow,
    workflow,
)
from jetflow.errors import InvalidName, PayloadTooLarge
from jetflow.server import NatsServer, ServerOptions


class Line(msgspec.Struct):
    item: str
    count: int = 1


class Order(msgspec.Struct):
    customer: str
    lines: list[Line] = []


@workflow("buy")
async def buy(order: Order) -> int:
    return sum(line.count for line in order.lines)


# --- names ---------------------------------------------------------------------------------------------------


BAD_NAMES = ["", " ", "two words", "dot.ted", "star*", "gt>", "-dash-first", "_own", "naïve", "x" * 65, "a\n", None, 7]


@pytest.mark.parametrize("name", BAD_NAMES, ids=ascii)
def test_a_bad_workflow_name_is_refused_at_declaration(name: Any) -> None:
    """Names stand in subjects: 1 to 64 of A-Z a-z 0-9 _ -, starting with a letter or digit."""
    with pytest.raises(InvalidName, match=r"workflow name .* is not a valid name"):
        Workflow(name)
    with pytest.raises(InvalidName):
        workflow(name)(buy.function)


@pytest.mark.parametrize("name", [name for name in BAD_NAMES if name], ids=ascii)
def test_a_bad_step_name_is_refused_at_declaration(name: Any) -> None:
    """The same rule holds for steps."""
    with pytest.raises(InvalidName, match=r"step name .* is not a valid name"):
        Workflow("flow").step(name=name)(buy.function)


@pytest.mark.parametrize("name", ["a", "7", "Index-Tree_2", "x" * 64])
def test_a_good_name_is_taken_as_it_is(name: str) -> None:
    """Case counts, and nothing is rewritten."""
    assert Workflow(name).name == name


@pytest.mark.parametrize("namespace", ["", "a.b", "*", "with space", "x" * 65])
async def test_a_bad_namespace_is_refused(nats_server: NatsServer, namespace: str) -> None:
    """A namespace is a name, too."""
    with pytest.raises(InvalidName, match="namespace"):
        async with jetflow.connect(nats_server.url, namespace=namespace):
            pass


# --- declarations --------------------------------------------------------------------------------------------


def test_a_type_that_cannot_travel_is_refused_at_declaration() -> None:
    """Decoders are built when a workflow is declared: a bad type fails at import, not at three in the morning."""

    class Opaque:
        pass

    async def step(value: Opaque) -> None: ...

    with pytest.raises(InvalidDeclaration, match=r"input of workflow 'opaque': the type .*Opaque.* cannot travel"):
        workflow("opaque")(step)


def test_a_step_after_an_unknown_step_is_refused() -> None:
    """Steps are declared in order, so a graph cannot have a cycle either."""
    flow = Workflow("flow")
    with pytest.raises(InvalidDeclaration, match="comes after 'nowhere', which is not declared"):
        flow.step(after="nowhere")(buy.function)


def test_a_step_of_another_workflow_cannot_stand_before() -> None:
    """Edges join steps of one workflow."""
    with pytest.raises(InvalidDeclaration, match="cannot stand before a step of workflow 'flow'"):
        Workflow("flow").step(after=buy.steps["run"])(buy.function)


def test_a_step_declared_twice_is_refused() -> None:
    """Step names are unique in their workflow."""
    flow = Workflow("flow")
    flow.step(name="one")(buy.function)
    with pytest.raises(InvalidDeclaration, match="declares step 'one' twice"):
        flow.step(name="one")(buy.function)


def test_a_step_takes_an_input_and_a_context_and_nothing_else() -> None:
    """What should a third parameter be?"""

    async def three(order: Order, ctx: Context, more: int) -> None: ...

    async def many(*orders: Order) -> None: ...

    for function in (three, many):
        with pytest.raises(InvalidDeclaration, match="step 'run' of workflow 'flow'"):
            workflow("flow")(function)  # pyright: ignore


def test_a_workflow_without_steps_is_refused_by_the_worker() -> None:
    """And so is a worker without workflows, or with two of one name."""
    for workflows in ([Workflow("empty")], [], [buy, buy]):
        with pytest.raises(InvalidDeclaration):
            Worker(workflows)


@pytest.mark.parametrize("option", [{"timeout": 0}, {"timeout": -1}, {"max_running": 0}], ids=str)
def test_an_option_out_of_range_is_refused(option: dict[str, Any]) -> None:
    """Numbers are checked where they are written."""
    with pytest.raises(InvalidDeclaration, match="must be above 0"):
        workflow("flow", **option)(buy.function)


# --- inputs --------------------------------------------------------------------------------------------------


BAD_ORDERS = [
    (None, "Expected `object`, got `null`"),
    ("tea", "Expected `object`, got `str`"),
    ({}, "missing required field `customer`"),
    ({"customer": 7}, r"Expected `str`, got `int` - at `\$.customer`"),
    ({"customer": "Zoë", "lines": [{"item": "tea"}, {"item": 7}]}, r"at `\$.lines\[1\].item`"),
    ({"customer": "Zoë", "lines": [{"item": "tea", "count": 1.5}]}, r"at `\$.lines\[0\].count`"),
    (object(), "cannot be written as JSON"),
]


@pytest.mark.parametrize(("order", "complaint"), BAD_ORDERS, ids=[complaint for _, complaint in BAD_ORDERS])
async def test_an_input_that_does_not_fit_is_refused_at_the_trigger(client: Client, order: Any, complaint: str) -> None:
    """InvalidInput names the workflow and the path inside the input; nothing is started. It is a ValueError."""
    with pytest.raises(InvalidInput, match=complaint) as caught:
        await client.trigger(buy, order)
    assert "input of workflow 'buy'" in str(caught.value)
    assert isinstance(caught.value, ValueError)


async def test_a_child_input_that_does_not_fit_is_refused_at_the_spawn(
    client: Client, worker: Callable[..., Worker]
) -> None:
    """The same for children. Another attempt would only repeat it, so the run fails at once."""
    attempts: list[int] = []

    @workflow("shop", retry=Retry(attempts=3, initial=0))
    async def shop(_: None, ctx: Context) -> None:
        attempts.append(ctx.attempt)
        wrong: Any = {"customer": None}
        await ctx.spawn_workflow(buy, wrong)

    async with worker([shop]):
        with pytest.raises(RunFailed, match=r"at `\$.customer`") as caught:
            await (await client.trigger(shop)).result(PATIENCE)
    assert caught.value.error_type == "InvalidInput"
    assert attempts == [1]


async def test_metadata_has_to_be_a_json_object(client: Client) -> None:
    """It is checked at the trigger, like the input."""
    for metadata in (["a list"], {"thing": object()}):
        wrong: Any = metadata
        with pytest.raises(InvalidInput):
            await client.trigger(buy, Order("Zoë"), metadata=wrong)


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (b"not json", "JSON is malformed"),
        (b'{"customer": "Zo', "Input data was truncated"),
        (b"\xff\xfe", "input of workflow 'buy'"),
        (b"", "Expected `object`, got `null`"),
        (b'{"customer": 7}', r"at `\$.customer`"),
    ],
    ids=["text", "cut", "not UTF-8", "empty", "wrong type"],
)
async def test_a_bad_body_from_outside_fails_its_run(
    client: Client, worker: Callable[..., Worker], nats_server: NatsServer, body: bytes, complaint: str
) -> None:
    """Any NATS client may publish a trigger; what it publishes is checked where it is read, and fails one run."""
    run_id = "0123456789abcdef" * 2
    async with worker([buy]), await nats.connect(nats_server.url) as outside:
        trigger = f"jf.{client.namespace}.in.trigger.buy"
        await outside.publish(trigger, body, headers={"Jf-Run": run_id})
        with pytest.raises(RunFailed, match=complaint) as caught:
            await client.run(run_id).result(PATIENCE)
        assert caught.value.error_type == "InvalidInput"
        good = b'{"customer": "Zo\xc3\xab", "lines": [{"count": 3, "item": "tea"}]}'
        await outside.publish(trigger, good, headers={"Jf-Run": run_id[::-1]})
        assert await client.run(run_id[::-1]).result(PATIENCE) == 3


async def test_bad_metadata_from_outside_fails_its_run(
    client: Client, worker: Callable[..., Worker], nats_server: NatsServer
) -> None:
    """Every descendant would stumble over it, and so would whoever looks at the run."""
    run_id = "0123456789abcdef" * 2
    async with worker([buy]), await nats.connect(nats_server.url) as outside:
        headers = {"Jf-Run": run_id, "Jf-Metadata": "not json"}
        await outside.publish(f"jf.{client.namespace}.in.trigger.buy", b'{"customer": "me"}', headers=headers)
        with pytest.raises(RunFailed, match="Jf-Metadata: JSON is malformed"):
            await client.run(run_id).result(PATIENCE)
    assert (await client.describe(run_id)).status == "failed"


async def test_a_message_that_is_no_task_is_rejected(
    client: Client, worker: Callable[..., Worker], nats_server: NatsServer
) -> None:
    """Whoever publishes rubbish on a step's subject stops nothing: it is logged, counted, and never delivered again."""
    async with worker([buy]) as only, await nats.connect(nats_server.url) as outside:
        tasks = f"jf.{client.namespace}.task.buy.run"
        for subject in (f"{tasks}.rubbish", f"{tasks}.root.parent.run.0", f"{tasks}.{'0' * 32}.-.{'0' * 32}.x"):
            await outside.jetstream().publish(subject, b"{}")
        run = await client.trigger(buy, Order("Zoë", [Line("tea", 2)]))
        assert await run.result(PATIENCE) == 2
        assert only.counts.rejected == 3


# --- workflows by name ---------------------------------------------------------------------------------------


async def test_an_unknown_workflow_is_an_error_with_near_names(client: Client, worker: Callable[..., Worker]) -> None:
    """Names are declared by workers; a slip of the pen is told from a missing worker by the names that are near."""
    async with worker([buy]):
        with pytest.raises(UnknownWorkflow, match="did you mean 'buy'") as caught:
            await client.trigger("bui", {})
        assert caught.value.near == ("buy",)
        assert isinstance(caught.value, LookupError)
        for name in ("sell", "", "bu*", ">", "b.y", "buy "):
            with pytest.raises(UnknownWorkflow):
                await client.trigger(name, {})


async def test_spawning_an_unknown_workflow_fails_the_run_by_name(
    client: Client, worker: Callable[..., Worker]
) -> None:
    """The error is the step's, so that it is retried: the worker that declares it may be starting just now."""

    @workflow("shop", retry=Retry(attempts=1))
    async def shop(_: None, ctx: Context) -> None:
        await ctx.spawn_workflow("bui", {})

    async with worker([shop, buy]):
        with pytest.raises(RunFailed, match=r"no workflow named 'bui' .* did you mean 'buy'"):
            await (await client.trigger(shop)).result(PATIENCE)


async def test_a_trigger_from_outside_of_an_unknown_workflow_is_a_failed_run(
    client: Client, worker: Callable[..., Worker], nats_server: NatsServer
) -> None:
    """Whoever published it does not read an error, so it is recorded where runs are looked for."""
    run_id = "0123456789abcdef" * 2
    async with worker([buy]), await nats.connect(nats_server.url) as outside:
        await outside.publish(f"jf.{client.namespace}.in.trigger.bui", b"{}", headers={"Jf-Run": run_id})
        with pytest.raises(RunFailed, match="did you mean 'buy'") as caught:
            await client.run(run_id).result(PATIENCE)
    assert caught.value.error_type == "UnknownWorkflow"
    assert await client.run(run_id).status() == "failed"


# --- outputs -------------------------------------------------------------------------------------------------


async def test_an_output_that_cannot_be_json_fails_the_run(client: Client, worker: Callable[..., Worker]) -> None:
    """At once, for another attempt would only repeat it; the error names the step, the workflow and the type."""
    attempts = 0

    @workflow("opaque")
    async def opaque() -> Any:
        nonlocal attempts
        attempts += 1
        return {"key": [object()]}

    async with worker([opaque]):
        with pytest.raises(RunFailed, match=r"output of step 'run' of workflow 'opaque': .* type object") as caught:
            await (await client.trigger(opaque)).result(PATIENCE)
    assert caught.value.error_type == "InvalidOutput"
    assert attempts == 1


@pytest.mark.parametrize(
    ("value", "message"),
    [
        *((value, "Expected `int`, got") for value in ("7", 7.5, None, [7])),
        (math.nan, "nan cannot be written as JSON"),
    ],
    ids=repr,
)
async def test_an_output_is_checked_against_its_type(
    client: Client, worker: Callable[..., Worker], value: Any, message: str
) -> None:
    """A step that promises an int and returns something else is found here, and not by whoever reads it."""

    @workflow("promise")
    async def promise() -> int:
        return value

    async with worker([promise]):
        with pytest.raises(RunFailed, match=f"output of step 'run' of workflow 'promise': {message}") as caught:
            await (await client.trigger(promise)).result(PATIENCE)
    assert caught.value.error_type == "InvalidOutput"


@pytest.mark.parametrize("size", [300_000, 3_000_000])
async def test_large_values_travel_in_both_directions(client: Client, worker: Callable[..., Worker], size: int) -> None:
    """What does not fit well into one message is kept apart and passed by reference; nobody notices."""

    @workflow("echo")
    async def echo(text: str) -> str:
        return text

    @workflow("wrap")
    async def wrap(text: str, ctx: Context) -> list[str]:
        one = await ctx.spawn_workflow(echo, text)
        return [await one.result(), *await ctx.join(await ctx.spawn_workflows(echo, [text, "short"]))]

    async with worker([echo, wrap]):
        text = "x" * size
        assert await (await client.trigger(wrap, text)).result(PATIENCE) == [text, text, "short"]


async def test_several_last_steps_may_be_large_together(client: Client, worker: Callable[..., Worker]) -> None:
    """Each output fits into a message, and the dict of them all does not."""
    flow = Workflow("wide")
    for number in range(6):

        def part(text: str) -> str:
            return text

        flow.step(name=f"part-{number}")(part)

    async with worker([flow]):
        text = "x" * 250_000
        output = await (await client.trigger(flow, text)).result(PATIENCE)
    assert output == {f"part-{number}": text for number in range(6)}


async def test_a_small_max_payload_is_respected() -> None:
    """A server may take less in one message than it does by default: what is larger is split. It is never stuck."""
    options = ServerOptions(max_payload=65_536)

    @workflow("grow", retry=Retry(attempts=1))
    async def grow(size: int) -> str:
        return "x" * size

    async with (
        NatsServer(options=options) as server,
        jetflow.connect(server.url) as client,
        Worker([grow], server=server.url),
    ):
        for size in (60_000, 65_000, 70_000, 200_000, 400_000):
            run = await client.trigger(grow, size)
            assert await run.result(PATIENCE) == "x" * size


async def test_a_value_that_is_too_large_in_any_form_is_refused(client: Client) -> None:
    """PayloadTooLarge tells its size and the limit, before anything is sent."""
    with pytest.raises(PayloadTooLarge, match="the input of a run of 'buy' takes") as caught:
        await client.trigger(buy, Order("x" * 65 * 1024 * 1024))
    assert caught.value.size > caught.value.limit
    assert isinstance(caught.value, JetflowError)


# --- depth ---------------------------------------------------------------------------------------------------


async def test_a_recursion_without_end_is_stopped(client: Client, worker: Callable[..., Worker]) -> None:
    """``max_depth`` bounds how deep runs are nested; the run that would go deeper fails, and so do those above."""
    deepest = 0

    @workflow("endless", retry=Retry(attempts=3, initial=0))
    async def endless(depth: int, ctx: Context) -> None:
        nonlocal deepest
        deepest = max(deepest, depth)
        if depth == 5:
            with pytest.raises(DepthExceeded) as caught:
                await ctx.spawn_workflow(endless, depth + 1)
            assert isinstance(caught.value, RecursionError)
            assert (caught.value.depth, caught.value.limit) == (6, 5)
        await (await ctx.spawn_workflow(endless, depth + 1)).result()

    async with worker([endless], options=WorkerOptions(max_depth=5)):
        run = await client.trigger(endless, 0)
        with pytest.raises(RunFailed, match="would nest runs 6 deep, past the limit of 5"):
            await run.result(PATIENCE)
    assert deepest == 5
