"""Batches in trouble: whatever happens to one run of a call, or to the call, each run ends as it has to."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncGenerator, Callable
from typing import Annotated, Any

import pytest
import pytest_asyncio

from jetflow import Batch, Client, Context, Depends, InvalidInput, Retry, RunFailed, Worker, Workflow, workflow
from jetflow.server import NatsServer
from jetflow.worker import batches
from tests.endings import batching_worker
from tests.endings.batching_worker import deadly_batch
from tests.endings.stored import PATIENCE, Stored, until

MakeWorker = Callable[..., Worker]

ONCE = Retry(attempts=1)
NEVER = 600.0
"""Seconds after which batches would be called that are not full."""


async def failure_of(run: Any) -> RunFailed:
    with pytest.raises(RunFailed) as failed:
        await run.result(PATIENCE)
    return failed.value


async def triggered(client: Client, flow: Workflow[Any, Any], *inputs: Any) -> list[Any]:
    return [await client.trigger(flow, one) for one in inputs]


@pytest.mark.parametrize("returned", [None, [1], [1, 2, 3], {"a": 1}, "ab"])
async def test_what_is_not_one_output_for_each_fails_all_by_name(
    client: Client, worker: MakeWorker, returned: Any
) -> None:
    """Nobody could tell whose is whose. No other attempt is made: it would be so again."""
    calls = 0

    @workflow("miscounting", batch=Batch(size=2, wait=NEVER))
    async def miscounting(numbers: list[int]) -> Any:
        nonlocal calls
        calls += 1
        return returned

    async with worker([miscounting]):
        for run in await triggered(client, miscounting, 1, 2):
            error = await failure_of(run)
            assert error.error_type == "InvalidOutput"
            assert "called with 2 inputs and returned" in error.error_message
    assert calls == 1


async def test_one_output_that_does_not_fit_is_that_runs(client: Client, worker: MakeWorker) -> None:
    @workflow("misfit", batch=Batch(size=2, wait=NEVER))
    async def misfit(numbers: list[int]) -> list[int]:
        return [number if number == 1 else object() for number in numbers]  # pyright: ignore[reportReturnType]

    async with worker([misfit]):
        good, bad = await triggered(client, misfit, 1, 2)
        assert await good.result(PATIENCE) == 1
        assert (await failure_of(bad)).error_type == "InvalidOutput"


async def test_an_input_that_cannot_be_read_is_in_no_call(client: Client, worker: MakeWorker) -> None:
    calls: list[list[int]] = []

    @workflow("reading", batch=Batch(size=3, wait=0.3))
    async def reading(numbers: list[int]) -> list[int]:
        calls.append(numbers)
        return numbers

    async with worker([reading]):
        names, publisher = client.session.names, client.session.publisher
        bad = "ab" * 16
        await publisher.store(names.task("reading", "run", bad, "-", bad), b'"seven"')
        good = await triggered(client, reading, 1, 2)
        assert [await run.result(PATIENCE) for run in good] == [1, 2]
        assert (await failure_of(client.run(bad))).error_type == "InvalidInput"
    assert sorted(number for call in calls for number in call) == [1, 2]


@pytest.mark.parametrize(
    ("key", "told"), [(lambda n: 1 // n, "raised ZeroDivisionError"), (lambda n: n or None, "returned None")]
)
async def test_a_key_that_is_none_fails_that_run_by_name(
    client: Client, worker: MakeWorker, key: Callable[[int], Any], told: str
) -> None:
    """And no other: its batch goes on without it."""

    @workflow("keyed", batch=Batch(size=2, wait=0.3, key=lambda n: str(key(n)) if n else key(n)))
    async def keyed(numbers: list[int]) -> list[int]:
        return numbers

    async with worker([keyed]):
        good, bad = await triggered(client, keyed, 1, 0)
        assert await good.result(PATIENCE) == 1
        error = await failure_of(bad)
        assert error.error_type == "BatchKeyFailed"
        assert told in error.error_message


async def test_a_returned_error_is_tried_again_alone(client: Client, worker: MakeWorker) -> None:
    calls: list[list[int]] = []

    @workflow("halting", batch=Batch(size=2, wait=0.1), retry=Retry(attempts=2, initial=0.01))
    async def halting(numbers: list[int], ctxs: list[Context]) -> list[int | Exception]:
        calls.append(numbers)
        return [
            OSError("not yet") if number == 2 and ctx.attempt == 1 else number
            for number, ctx in zip(numbers, ctxs, strict=True)
        ]

    async with worker([halting]):
        runs = await triggered(client, halting, 1, 2)
        assert [await run.result(PATIENCE) for run in runs] == [1, 2]
    assert calls[1:] == [[2]]


@pytest.mark.parametrize("plain", [False, True])
async def test_a_call_that_takes_too_long_has_timed_out_for_each(
    client: Client, worker: MakeWorker, plain: bool
) -> None:
    """Its time begins with the call, and not with the gathering."""
    stopped, let_go = asyncio.Event(), threading.Event()
    flow = Workflow("tardy", input=int, retry=ONCE, timeout=0.6)

    async def tardy(numbers: list[int]) -> list[int]:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            stopped.set()
            raise
        return numbers

    def tardy_thread(numbers: list[int]) -> list[int]:
        let_go.wait(60)
        return numbers

    flow.step(batch=Batch(size=3, wait=0.8))(tardy_thread if plain else tardy)
    async with worker([flow]):
        for run in await triggered(client, flow, 1, 2):
            error = await failure_of(run)
            assert (error.status, error.error_type) == ("timed_out", "StepTimeout")
        let_go.set()
        if not plain:
            await asyncio.wait_for(stopped.wait(), PATIENCE)


async def test_gathering_is_no_part_of_the_time_that_a_step_has(client: Client, worker: MakeWorker) -> None:
    @workflow("swift", batch=Batch(size=3, wait=0.6), timeout=0.3, retry=ONCE)
    async def swift(numbers: list[int]) -> list[int]:
        await asyncio.sleep(0.1)
        return numbers

    async with worker([swift]):
        assert [await run.result(PATIENCE) for run in await triggered(client, swift, 1, 2)] == [1, 2]


async def test_a_deadline_passes_while_others_are_waited_for(client: Client, worker: MakeWorker) -> None:
    @workflow("hurried", batch=Batch(size=2, wait=NEVER), deadline=0.5)
    async def hurried(numbers: list[int]) -> list[int]:
        return numbers

    async with worker([hurried]):
        [run] = await triggered(client, hurried, 1)
        error = await failure_of(run)
        assert (error.status, error.error_type) == ("timed_out", "RunTimeout")


async def test_one_that_is_cancelled_while_it_is_gathered_is_in_no_call(
    client: Client, worker: MakeWorker, stored: Stored
) -> None:
    calls: list[list[int]] = []

    @workflow("gathered", batch=Batch(size=2, wait=NEVER))
    async def gathered(numbers: list[int]) -> list[int]:
        calls.append(numbers)
        return numbers

    async with worker([gathered]):
        [gone] = await triggered(client, gathered, 1)
        await until(lambda: _is_held(stored))
        await client.cancel(gone.id)
        assert (await failure_of(gone)).status == "cancelled"
        assert [await run.result(PATIENCE) for run in await triggered(client, gathered, 2, 3)] == [2, 3]
    assert [sorted(call) for call in calls] == [[2, 3]]


async def _is_held(stored: Stored) -> bool:
    return not await stored.all_acknowledged()


async def test_one_that_is_cancelled_in_a_call_leaves_it_to_the_others(client: Client, worker: MakeWorker) -> None:
    begun, let_go = asyncio.Event(), asyncio.Event()

    @workflow("called", batch=Batch(size=2, wait=NEVER))
    async def called(numbers: list[int]) -> list[int]:
        begun.set()
        await let_go.wait()
        return numbers

    async with worker([called]):
        stays, gone = await triggered(client, called, 1, 2)
        await begun.wait()
        await client.cancel(gone.id)
        assert (await failure_of(gone)).status == "cancelled"
        let_go.set()
        assert await stays.result(PATIENCE) == 1


async def test_a_call_of_which_all_are_cancelled_ends(client: Client, worker: MakeWorker) -> None:
    """Its function is told as a step's is, and its slot is free behind it."""
    begun, ended = asyncio.Event(), asyncio.Event()

    @workflow("in-vain", batch=Batch(size=2, wait=0.1))
    async def in_vain(numbers: list[int]) -> list[int]:
        if 3 in numbers:
            return numbers
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.05)
            ended.set()
        return numbers

    async with worker([in_vain], slots=1):
        runs = await triggered(client, in_vain, 1, 2)
        await begun.wait()
        for run in runs:
            await client.cancel(run.id)
        for run in runs:
            assert (await failure_of(run)).status == "cancelled"
        await asyncio.wait_for(ended.wait(), PATIENCE)
        [last] = await triggered(client, in_vain, 3)
        assert await last.result(PATIENCE) == 3


async def test_what_is_gathered_is_handed_back_when_the_worker_stops(client: Client, worker: MakeWorker) -> None:
    """It had not begun: the next worker has it at once, and it is no attempt."""

    @workflow("moving", batch=Batch(size=2, wait=NEVER), retry=ONCE)
    async def moving(numbers: list[int], ctxs: list[Context]) -> list[int]:
        return [ctx.attempt for ctx in ctxs]

    first = worker([moving])
    async with first:
        [one] = await triggered(client, moving, 1)
        await until(lambda: _is_held(Stored(client)))
    assert first.counts.handed_back == 1
    async with worker([moving]):
        [other] = await triggered(client, moving, 2)
        assert (await one.result(PATIENCE), await other.result(PATIENCE)) == (1, 1)


async def test_a_call_that_runs_is_ended_when_the_worker_has_to_end(client: Client, worker: MakeWorker) -> None:
    begun = asyncio.Event()
    calls = 0

    @workflow("lasting", batch=Batch(size=2, wait=NEVER), retry=ONCE)
    async def lasting(numbers: list[int]) -> list[int]:
        nonlocal calls
        calls += 1
        begun.set()
        await asyncio.sleep(60 if calls == 1 else 0)
        return numbers

    async with worker([lasting]):
        runs = await triggered(client, lasting, 1, 2)
        await begun.wait()
    async with worker([lasting]):
        assert [await run.result(PATIENCE) for run in runs] == [1, 2]


async def test_a_batch_is_full_by_its_bytes(client: Client, worker: MakeWorker) -> None:
    calls: list[int] = []

    @workflow("heavy", batch=Batch(size=100, wait=2.0, max_bytes=4_000_000))
    async def heavy(texts: list[str]) -> list[int]:
        calls.append(len(texts))
        return [len(text) for text in texts]

    async with worker([heavy]):
        runs = await asyncio.gather(*(client.trigger(heavy, f"{n:0100000}") for n in range(100)))
        assert {await run.result(PATIENCE) for run in runs} == {100_000}
    assert sorted(calls, reverse=True) == [39, 39, 22]


async def test_a_large_input_counts_whole(client: Client, worker: MakeWorker) -> None:
    """Also one that does not stand in its task; with a key, it is read for that."""
    calls: list[int] = []

    @workflow("huge", batch=Batch(size=100, wait=NEVER, max_bytes=2_000_000, key=lambda text: text[0]))
    async def huge(texts: list[str]) -> list[int]:
        calls.append(len(texts))
        return [len(text) for text in texts]

    async with worker([huge]):
        runs = await triggered(client, huge, "a" * 1_100_000, "a" * 1_100_000, "b" * 2_100_000)
        assert await runs[0].result(PATIENCE) == 1_100_000
        assert await runs[2].result(PATIENCE) == 2_100_000
        await client.cancel(runs[1].id)
        assert (await failure_of(runs[1])).status == "cancelled"
    assert calls == [1, 1]


async def test_keys_that_fill_no_batch_do_not_stand_in_each_others_way(client: Client, worker: MakeWorker) -> None:
    """Where no more tasks may be gathered, and no call is under way, the oldest batch is called as it is."""

    @workflow("many-keys", batch=Batch(size=2, wait=NEVER, key=str))
    async def many_keys(numbers: list[int]) -> list[int]:
        return [len(numbers)] * len(numbers)

    async with worker([many_keys], slots=1):
        runs = await triggered(client, many_keys, *range(6))
        for run in runs[:4]:
            assert await run.result(PATIENCE) == 1
        for run in runs[4:]:
            await client.cancel(run.id)


async def test_a_batch_that_finds_no_slot_is_left_to_others(
    client: Client, worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It holds none while it is gathered, and one while it is called, for all its runs."""
    monkeypatch.setattr(batches, "SLOT_WITHIN", 0.3)
    let_go = asyncio.Event()
    most = running = 0

    @workflow("blocking")
    async def blocking() -> None:
        await let_go.wait()

    @workflow("elsewhere", batch=Batch(size=2, wait=0.1), retry=ONCE)
    async def elsewhere(numbers: list[int], ctxs: list[Context]) -> list[int]:
        nonlocal most, running
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.05)
        running -= 1
        return [ctx.attempt for ctx in ctxs]

    busy = worker([blocking, elsewhere], slots=1)
    async with busy:
        [block] = [await client.trigger(blocking)]
        await until(lambda: _is_held(Stored(client)))
        runs = await triggered(client, elsewhere, *range(8))

        async def handed_back() -> bool:
            return busy.counts.handed_back > 0

        await until(handed_back)
        async with worker([elsewhere], slots=1):
            assert [await run.result(PATIENCE) for run in runs] == [1] * 8
        let_go.set()
        await block.result(PATIENCE)
        assert most == 1


@pytest.mark.parametrize("wait", ["join", "result", "sleep", "completed"])
async def test_no_run_of_a_batch_can_wait_in_it(client: Client, worker: MakeWorker, wait: str) -> None:
    """All others would wait as well; and one that is parked would unwind them."""

    @workflow("a-child")
    async def a_child(number: int) -> int:
        return number

    @workflow("waiting", batch=Batch(size=1))
    async def waiting(numbers: list[int], ctxs: list[Context]) -> list[int]:
        [ctx] = ctxs
        child = await ctx.spawn_workflow(a_child, 1)
        if wait == "join":
            await ctx.join()
        elif wait == "result":
            await child.result()
        elif wait == "sleep":
            await ctx.sleep(1)
        else:
            async for _ in ctx.as_completed([child]):
                pass
        return numbers

    async with worker([waiting, a_child]):
        [run] = await triggered(client, waiting, 1)
        assert (await failure_of(run)).error_type == "WaitInBatch"


async def test_what_a_batch_cannot_ask_for(client: Client, worker: MakeWorker) -> None:
    """The slot and the end of a call are those of all its runs. More time each of them may have."""

    @workflow("asking", batch=Batch(size=2, wait=NEVER), timeout=0.3, retry=ONCE)
    async def asking(numbers: list[int], ctxs: list[Context]) -> list[int]:
        for ctx in ctxs:
            with pytest.raises(InvalidInput, match="one slot for all of its batch"):
                ctx.release_slot()
            with pytest.raises(InvalidInput, match="return an exception for the one that is to end"):
                await ctx.cancel()
        ctxs[numbers.index(1)].extend_timeout(PATIENCE)
        await asyncio.sleep(0.6)
        return numbers

    async with worker([asking]):
        first, second = await triggered(client, asking, 1, 2)
        assert await first.result(PATIENCE) == 1
        assert (await failure_of(second)).status == "timed_out"


async def test_a_batch_has_what_it_depends_on_once(client: Client, worker: MakeWorker) -> None:
    opened = 0

    def session() -> int:
        nonlocal opened
        opened += 1
        return opened

    @workflow("dependent", batch=Batch(size=2, wait=NEVER))
    def dependent(numbers: list[int], opened: Annotated[int, Depends(session, per="attempt")]) -> list[int]:
        return [opened] * len(numbers)

    async with worker([dependent]):
        assert [await run.result(PATIENCE) for run in await triggered(client, dependent, 5, 6)] == [1, 1]


@pytest_asyncio.fixture
async def process(nats_server: NatsServer, namespace: str, client: Client) -> AsyncGenerator[Callable[[], Any]]:
    started: list[asyncio.subprocess.Process] = []

    async def start() -> asyncio.subprocess.Process:
        command = (sys.executable, "-m", batching_worker.__name__, nats_server.url, namespace)
        started.append(await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.DEVNULL))
        return started[-1]

    yield start
    for one in started:
        if one.returncode is None:
            one.terminate()
        await one.wait()


async def test_a_run_that_kills_its_worker_takes_the_others_with_it_once(
    client: Client, process: Callable[[], Any]
) -> None:
    """What was lost with its worker is called alone from then on."""
    good, deadly, fine = await triggered(client, deadly_batch, "good", "deadly", "fine")
    for _ in range(3):
        dies = await process()
        await asyncio.wait_for(dies.wait(), PATIENCE)
    await process()
    assert (await failure_of(deadly)).error_type == "Poisoned"
    assert (await good.result(PATIENCE), await fine.result(PATIENCE)) == ([1, 2], [1, 2])


async def test_a_run_of_a_batch_is_told_like_any_other(client: Client, worker: MakeWorker) -> None:
    @workflow("told", batch=Batch(size=2, wait=NEVER))
    async def told(numbers: list[int]) -> list[int]:
        return numbers

    async with worker([told]):
        runs = await triggered(client, told, 1, 2)
        for run in runs:
            await run.result(PATIENCE)
        batch = (await client.session.registry.find("told")).steps["run"].batch
        assert batch is not None
        assert (batch.size, batch.wait, batch.keyed) == (2, NEVER, False)
        [step] = (await client.describe(runs[0].id)).steps
        assert step.status == "succeeded"
