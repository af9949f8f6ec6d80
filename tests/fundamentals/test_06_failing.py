"""What happens when a step fails: retries, failed children, poison."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable
from itertools import pairwise
from time import monotonic

import deadly_worker
import pytest
from deadly_worker import careful, deadly
from patience import PATIENCE

from jetflow import (
    ChildFailed,
    ChildrenFailed,
    Client,
    Context,
    JetflowError,
    Retry,
    RunFailed,
    Worker,
    WorkerOptions,
    Workflow,
    workflow,
)
from jetflow.server import NatsServer

ONCE = Retry(attempts=1)


@workflow("divide", retry=ONCE)
async def divide(by: int) -> float:
    return 12 / by


async def test_a_failed_step_is_tried_again(client: Client, worker: Callable[..., Worker]) -> None:
    """``attempts`` counts them all, and ``ctx.attempt`` tells which one this is. Failed ones are kept for the trace."""

    @workflow("third-time-lucky", retry=Retry(attempts=3, initial=0))
    async def lucky(_: None, ctx: Context) -> int:
        if ctx.attempt < 3:
            raise OSError(f"attempt {ctx.attempt}")
        return ctx.attempt

    async with worker([lucky]):
        run = await client.trigger(lucky)
        assert await run.result(PATIENCE) == 3
    [step] = (await client.describe(run.id)).steps
    assert step.attempts == 3
    assert [(failed.attempt, failed.error and failed.error.message) for failed in step.failures] == [
        (1, "attempt 1"),
        (2, "attempt 2"),
    ]


async def test_a_run_fails_when_no_attempt_is_left(client: Client, worker: Callable[..., Worker]) -> None:
    """The last error is the run's."""
    attempts: list[int] = []

    @workflow("hopeless", retry=Retry(attempts=2, initial=0))
    async def hopeless(_: None, ctx: Context) -> None:
        attempts.append(ctx.attempt)
        raise OSError(f"attempt {ctx.attempt}")

    async with worker([hopeless]):
        with pytest.raises(RunFailed, match="attempt 2") as caught:
            await (await client.trigger(hopeless)).result(PATIENCE)
    assert caught.value.error_type == "OSError"
    assert attempts == [1, 2]


async def test_retries_wait_longer_each_time(client: Client, worker: Callable[..., Worker]) -> None:
    """The delays are 0.1 s, then 0.2 s; the broker waits, no worker does."""
    began: list[float] = []

    @workflow("backoff", retry=Retry(attempts=3, initial=0.1, multiplier=2, jitter=0))
    async def backoff(_: None, ctx: Context) -> None:
        began.append(monotonic())
        if ctx.attempt < 3:
            raise OSError

    async with worker([backoff]):
        await (await client.trigger(backoff)).result(PATIENCE)
    first, second = (after - before for before, after in pairwise(began))
    assert first >= 0.1
    assert second >= 0.2


async def test_a_key_for_side_effects_is_the_same_for_every_attempt(
    client: Client, worker: Callable[..., Worker]
) -> None:
    """A step body may run more than once: give ``ctx.idempotency_key`` to whoever must not act twice."""
    keys: list[str] = []

    @workflow("charge", retry=Retry(attempts=2, initial=0))
    async def charge(_: None, ctx: Context) -> None:
        keys.append(ctx.idempotency_key)
        if ctx.attempt == 1:
            raise OSError

    async with worker([charge]):
        for _ in range(2):
            await (await client.trigger(charge)).result(PATIENCE)
    assert keys[0] == keys[1] != keys[2] == keys[3]


async def test_a_step_that_takes_too_long_fails(client: Client, worker: Callable[..., Worker]) -> None:
    """``timeout`` is seconds for one attempt. The step is cancelled where it waits."""
    cancelled = asyncio.Event()

    @workflow("slow", retry=ONCE, timeout=0.1)
    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with worker([slow]):
        with pytest.raises(RunFailed, match=r"ran longer than its timeout of 0\.1 s") as caught:
            await (await client.trigger(slow)).result(PATIENCE)
    assert caught.value.error_type == "StepTimeout"
    assert cancelled.is_set()


async def test_waiting_for_children_does_not_use_up_the_timeout(client: Client, worker: Callable[..., Worker]) -> None:
    """The timeout is for the step's own work: its clock stands while it waits for children."""

    @workflow("quarter-second")
    async def quarter_second() -> None:
        await asyncio.sleep(0.25)

    @workflow("impatient", timeout=0.2, retry=ONCE)
    async def impatient(_: None, ctx: Context) -> str:
        await (await ctx.spawn_workflow(quarter_second)).result()
        return "in time"

    async with worker([impatient, quarter_second]):
        assert await (await client.trigger(impatient)).result(PATIENCE) == "in time"


async def test_a_failed_child_raises_where_it_is_waited_for(client: Client, worker: Callable[..., Worker]) -> None:
    """ChildFailed tells which child, of which workflow, under which key, and what went wrong."""
    failures: list[tuple[str, ChildFailed]] = []

    @workflow("one")
    async def one(_: None, ctx: Context) -> str:
        child = await ctx.spawn_workflow(divide, 0, key="by nothing")
        try:
            await child.result()
        except ChildFailed as error:
            failures.append((child.id, error))
        return "handled"

    async with worker([one, divide]):
        assert await (await client.trigger(one)).result(PATIENCE) == "handled"
    [(child_id, failed)] = failures
    assert (failed.child_id, failed.workflow, failed.key) == (child_id, "divide", "by nothing")
    assert (failed.error_type, failed.error_message) == ("ZeroDivisionError", "division by zero")
    assert "12 / by" in failed.traceback
    assert str(failed).startswith(f"run {child_id} of 'divide' failed in step 'run': ZeroDivisionError")


async def test_a_join_raises_all_failures_as_one_group(client: Client, worker: Callable[..., Worker]) -> None:
    """``join`` waits for every child, then raises a group with one error for each that failed."""
    caught: list[ChildrenFailed] = []
    ended: list[int] = []

    @workflow("refuse-odd", retry=ONCE)
    async def refuse_odd(number: int) -> None:
        ended.append(number)
        if number % 2:
            raise ValueError(f"{number} is odd")

    @workflow("many")
    async def many(_: None, ctx: Context) -> str:
        children = await ctx.spawn_workflows(refuse_odd, [1, 2, 3, 4], key=str)
        with pytest.raises(ChildrenFailed) as raised:
            await ctx.join(children)
        caught.append(raised.value)
        assert sorted(ended) == [1, 2, 3, 4]
        return "handled"

    async with worker([many, refuse_odd]):
        assert await (await client.trigger(many)).result(PATIENCE) == "handled"
    [group] = caught
    assert isinstance(group, ExceptionGroup)
    assert isinstance(group, JetflowError)
    assert "2 of 4 children failed" in str(group)
    errors = [error for error in group.exceptions if isinstance(error, ChildFailed)]
    assert [(error.key, error.error_type, error.error_message) for error in errors] == [
        ("1", "ValueError", "1 is odd"),
        ("3", "ValueError", "3 is odd"),
    ]


async def test_failures_can_be_taken_as_results(client: Client, worker: Callable[..., Worker]) -> None:
    """With ``return_exceptions`` a failed child stands in the list as its error, and the run goes on well."""

    @workflow("tolerant")
    async def tolerant(_: None, ctx: Context) -> list[str]:
        children = await ctx.spawn_workflows(divide, [3, 0, 4])
        results = await ctx.join(children, return_exceptions=True)
        return [result.error_type if isinstance(result, ChildFailed) else str(result) for result in results]

    async with worker([tolerant, divide]):
        assert await (await client.trigger(tolerant)).result(PATIENCE) == ["4.0", "ZeroDivisionError", "3.0"]


async def test_a_failed_child_fails_a_step_that_did_not_look(client: Client, worker: Callable[..., Worker]) -> None:
    """At the step's boundary nobody can catch it: the step fails, and names the child. It is not tried again."""
    flow = Workflow("boundary", retry=Retry(attempts=3, initial=0))
    attempts: list[int] = []

    @flow.step
    async def scan(_: None, ctx: Context) -> None:
        attempts.append(ctx.attempt)
        await ctx.spawn_workflows(divide, [1, 0, 2])

    @flow.step(after=[scan])
    async def report() -> None:
        raise AssertionError("not reached")

    async with worker([flow, divide]):
        with pytest.raises(RunFailed, match=r"1 of 3 children failed, first run .* division by zero") as caught:
            await (await client.trigger(flow)).result(PATIENCE)
    assert (caught.value.step, caught.value.error_type) == ("scan", "ChildrenFailed")
    assert attempts == [1]


async def test_a_join_that_failed_is_final(client: Client, worker: Callable[..., Worker]) -> None:
    """Children end once: another attempt of their parent would only find them again. Its error names the first."""
    attempts: list[int] = []

    @workflow("parent", retry=Retry(attempts=3, initial=0))
    async def parent(_: None, ctx: Context) -> None:
        attempts.append(ctx.attempt)
        await ctx.join(await ctx.spawn_workflows(divide, [1, 0, 2], key=str))

    async with worker([parent, divide]):
        with pytest.raises(RunFailed, match=r"1 of 3 children failed, first .* division by zero \(key '0'\)"):
            await (await client.trigger(parent)).result(PATIENCE)
    assert attempts == [1]


async def test_a_step_may_say_after_which_errors_it_is_tried_again(
    client: Client, worker: Callable[..., Worker]
) -> None:
    """One that goes another way when its children have failed asks for that; what it does not name is final."""
    attempts: list[int] = []

    @workflow("parent", retry=Retry(attempts=3, initial=0, on=(ChildrenFailed,)))
    async def parent(_: None, ctx: Context) -> None:
        attempts.append(ctx.attempt)
        if ctx.attempt == 2:
            raise ValueError("not named")
        await ctx.join(await ctx.spawn_workflows(divide, [0]))

    async with worker([parent, divide]):
        with pytest.raises(RunFailed, match="ValueError: not named"):
            await (await client.trigger(parent)).result(PATIENCE)
    assert attempts == [1, 2]


async def test_a_failure_that_was_seen_is_forgiven(client: Client, worker: Callable[..., Worker]) -> None:
    """A step that has taken a failure and returned has dealt with it, even if it leaves other children to the join."""
    flow = Workflow("dealt-with")

    @flow.step
    async def scan(_: None, ctx: Context) -> None:
        failing = await ctx.spawn_workflow(divide, 0)
        with pytest.raises(ChildFailed):
            await failing.result()
        await ctx.spawn_workflows(divide, [1, 2])

    @flow.step(after=[scan])
    async def report(_: None, ctx: Context) -> dict[str, int]:
        statuses = [result.status async for result in ctx.children(scan)]
        return {"failed": statuses.count("failed"), "succeeded": statuses.count("succeeded")}

    async with worker([flow, divide]):
        assert await (await client.trigger(flow)).result(PATIENCE) == {"failed": 1, "succeeded": 2}


async def test_a_failure_travels_up_from_any_depth(client: Client, worker: Callable[..., Worker]) -> None:
    """Each level reports the one below, so the root's error leads to the leaf."""

    @workflow("level", retry=ONCE)
    async def level(depth: int, ctx: Context) -> None:
        if depth == 3:
            raise LookupError("at the bottom")
        await (await ctx.spawn_workflow(level, depth + 1)).result()

    async with worker([level]):
        with pytest.raises(RunFailed, match="at the bottom") as caught:
            await (await client.trigger(level, 0)).result(PATIENCE)
    assert caught.value.error_type == "ChildFailed"


async def test_a_task_that_a_stopping_worker_hands_back_has_not_failed(
    client: Client, worker: Callable[..., Worker]
) -> None:
    """A step that does not end within the grace time is cancelled and left to another worker. No attempt is lost."""
    attempts: list[int] = []
    began = asyncio.Event()

    @workflow("long", retry=ONCE)
    async def long(_: None, ctx: Context) -> str:
        attempts.append(ctx.attempt)
        if not began.is_set():
            began.set()
            await asyncio.Event().wait()
        return "done"

    async with worker([long], options=WorkerOptions(grace=0)) as first:
        run = await client.trigger(long)
        await asyncio.wait_for(began.wait(), PATIENCE)
    assert first.counts.handed_back == 1
    async with worker([long]):
        assert await run.result(PATIENCE) == "done"
    assert attempts == [1, 1]


async def test_a_task_that_kills_its_workers_is_poison(
    client: Client, worker: Callable[..., Worker], nats_server: NatsServer, namespace: str
) -> None:
    """A step that takes its whole process down leaves no error; but the broker counts the deliveries.

    The worker that is given the task after its last attempt does not run it, and records the failure. So a parent's
    join ends, too.
    """

    async def start() -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(sys.executable, deadly_worker.__file__, nats_server.url, namespace)

    async with worker([careful]), asyncio.timeout(PATIENCE):
        run = await client.trigger(careful)
        for _ in range(deadly.steps["run"].retry.attempts):
            assert await (await start()).wait() == -signal.SIGKILL
        survivor = await start()
        try:
            with pytest.raises(RunFailed, match="more often than its 2 attempts allow") as caught:
                await run.result()
        finally:
            survivor.terminate()
            assert await survivor.wait() == 0
    assert caught.value.error_type == "ChildFailed"
    [child] = (await client.describe(run.id)).children
    assert child.error is not None
    assert child.error.type == "Poisoned"
