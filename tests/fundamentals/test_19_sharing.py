"""What steps share: a worker's lifespan, and dependencies per worker and per attempt."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Annotated, Any

import pytest
from patience import PATIENCE

from jetflow import Client, Context, Depends, InvalidDeclaration, Retry, RunFailed, Worker, Workflow, workflow

MakeWorker = Callable[..., Worker]
ONCE = Retry(attempts=1)
log: list[str] = []


@pytest.fixture(autouse=True)
def empty_log() -> None:
    log.clear()


class Pool:
    def __init__(self, name: str) -> None:
        self.name = name


async def settings() -> dict[str, str]:
    log.append("settings")
    return {"name": "pool"}


async def pool(config: Annotated[dict[str, str], Depends(settings)]) -> AsyncIterator[Pool]:
    log.append("pool opened")
    try:
        yield Pool(config["name"])
    finally:
        log.append("pool closed")


def connection(of: Annotated[Pool, Depends(pool)], ctx: Context) -> Iterator[str]:
    log.append(f"connection opened for attempt {ctx.attempt}")
    try:
        yield f"{of.name}/{threading.current_thread().name}"
    except LookupError:
        log.append("rolled back")
        raise
    log.append("connection closed")


@workflow("shares", retry=Retry(attempts=2, initial=0))
async def shares(
    number: int,
    ctx: Context,
    shared: Annotated[Pool, Depends(pool)],
    own: Annotated[str, Depends(connection, per="attempt")],
) -> str:
    log.append("runs")
    assert own.startswith(shared.name)
    if number and ctx.attempt < 2:
        raise LookupError("not yet")
    return shared.name


OPENED = ["settings", "pool opened"]


async def test_opened_with_the_worker_closed_after_its_last_task(client: Client, worker: MakeWorker) -> None:
    """What is per attempt is opened for each, is told of its error, and closed before the outcome is recorded."""
    async with worker([shares]):
        assert log == OPENED
        run = await client.trigger(shares, 1)
        assert await run.result(PATIENCE) == "pool"
    first = ["connection opened for attempt 1", "runs", "rolled back"]
    second = ["connection opened for attempt 2", "runs", "connection closed"]
    assert log == [*OPENED, *first, *second, "pool closed"]


async def test_a_plain_step_has_its_own_in_its_thread(client: Client, worker: MakeWorker) -> None:
    """Opened, used and closed in one thread, as sqlite wants it. What is asynchronous is opened on the loop beside."""
    threads: list[str] = []

    def cursor() -> Iterator[int]:
        threads.append(threading.current_thread().name)
        yield 1
        threads.append(threading.current_thread().name)

    @asynccontextmanager
    async def session(below: Annotated[int, Depends(cursor, per="attempt")]) -> AsyncIterator[int]:
        asyncio.get_running_loop()
        log.append("session opened")
        yield below + 1
        log.append("session closed")

    @workflow("plain")
    def plain(number: int, session: Annotated[int, Depends(session, per="attempt")]) -> int:
        threads.append(threading.current_thread().name)
        return number + session

    async with worker([plain]):
        assert await (await client.trigger(plain, 1)).result(PATIENCE) == 3
    assert len(set(threads)) == 1
    assert len(threads) == 3
    assert log == ["session opened", "session closed"]


async def test_one_provider_of_many_steps_is_opened_once(client: Client, worker: MakeWorker) -> None:
    flow = Workflow("both")

    @flow.step
    async def one(_: int, pool: Annotated[Pool, Depends(pool)]) -> str:
        return pool.name

    @flow.step(after=[one])
    def two(_: int, ctx: Context, *, again: Annotated[Pool, Depends(pool)]) -> str:
        return ctx.output(one) + again.name

    async with worker([flow, shares]):
        assert await (await client.trigger(flow, 1)).result(PATIENCE) == "poolpool"
    assert log == [*OPENED, "pool closed"]


@pytest.mark.parametrize("kind", ["async", "plain"])
async def test_a_lifespan_is_around_everything(client: Client, worker: MakeWorker, kind: str) -> None:
    @asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        log.append("begins")
        yield
        log.append("ends")

    @contextmanager
    def plain_lifespan() -> Iterator[None]:
        log.append("begins")
        yield
        log.append("ends")

    began, go_on = asyncio.Event(), asyncio.Event()

    @workflow("slow")
    async def slow(_: int, pool: Annotated[Pool, Depends(pool)]) -> str:
        began.set()
        await go_on.wait()
        log.append("the last task")
        return pool.name

    running = worker([slow], lifespan=lifespan if kind == "async" else plain_lifespan)
    async with running:
        run = await client.trigger(slow, 1)
        await began.wait()
        stopping = asyncio.create_task(running.stop())  # by another task than that which has started it
        go_on.set()
        await stopping
        assert await run.result(PATIENCE) == "pool"
    assert log == ["begins", *OPENED, "the last task", "pool closed", "ends"]


async def test_what_cannot_be_opened_ends_the_start(worker: MakeWorker) -> None:
    """By its own error, which names the dependency. What was open is closed."""

    async def broken(_: Annotated[Pool, Depends(pool)]) -> None:
        raise OSError("no database")

    @workflow("needs-it")
    async def needs_it(_: int, broken: Annotated[None, Depends(broken)]) -> None: ...

    with pytest.raises(OSError, match="no database") as raised:
        async with worker([needs_it]):
            pass
    assert "broken', which is opened per worker" in raised.value.__notes__[0]
    assert log == [*OPENED, "pool closed"]


async def test_what_cannot_be_closed_fails(client: Client, worker: MakeWorker) -> None:
    """Per attempt the attempt, since it may be a commit; per worker its end."""

    def commits() -> Iterator[int]:
        yield 1
        raise OSError("the commit failed")

    @workflow("commits", retry=ONCE)
    async def uses(number: int, one: Annotated[int, Depends(commits, per="attempt")]) -> int:
        return number + one

    @workflow("kept", retry=ONCE)
    async def kept(number: int, one: Annotated[int, Depends(commits)]) -> int:
        return number + one

    running = worker([uses, kept])
    await running.start()
    with pytest.raises(RunFailed, match="the commit failed"):
        await (await client.trigger(uses, 1)).result(PATIENCE)
    assert await (await client.trigger(kept, 1)).result(PATIENCE) == 2
    with pytest.raises(OSError, match="the commit failed"):
        await running.stop()


async def test_an_error_cannot_be_made_undone(client: Client, worker: MakeWorker) -> None:
    @contextmanager
    def swallows() -> Iterator[None]:
        try:
            yield
        except LookupError:
            log.append("swallowed")

    @workflow("swallowing", retry=ONCE)
    async def swallowing(_: int, none: Annotated[None, Depends(swallows, per="attempt")]) -> None:
        raise LookupError("not lost")

    async with worker([swallowing]):
        with pytest.raises(RunFailed, match="not lost"):
            await (await client.trigger(swallowing, 1)).result(PATIENCE)
    assert log == ["swallowed"]


async def test_calling_a_step_directly_gives_them_by_hand() -> None:
    """As with everything else, a call is just a call."""

    @workflow("direct")
    async def direct(number: int, pool: Annotated[Pool, Depends(pool)]) -> str:
        return pool.name * number

    assert await direct(2, Pool("a")) == "aa"
    assert log == []


def _declare(provider: Any, **how: Any) -> None:
    async def step(_: int, given: Annotated[int, Depends(provider, **how)]) -> None: ...

    workflow("refused")(step)


def _takes(number: int) -> int:
    return number


def _per_attempt(_: Annotated[int, Depends(lambda: 1, per="attempt")]) -> int:
    return 1


def _with_context(ctx: Context) -> int:
    return ctx.attempt


@pytest.mark.parametrize(
    ("provider", "how", "said"),
    [
        (5, {}, "takes the function that gives it"),
        (settings, {"per": "run"}, r'there is per="worker" and per="attempt"'),
        (_takes, {}, r"provider '_takes' takes 'number': give it a default, or say where it comes from"),
        (_per_attempt, {}, r'opened per worker, and \'_\' per attempt: give it per="attempt" as well'),
        (_with_context, {}, r'takes \'ctx\', and a worker has no context: give it per="attempt"'),
        (_with_context, {"per": "attempt"}, "takes the context, so the step has to take it, too"),
    ],
)
def test_what_nobody_could_give_is_refused_at_declaration(provider: Any, how: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidDeclaration, match=said):
        _declare(provider, **how)


def test_a_parameter_that_nobody_gives_is_pointed_to_depends() -> None:
    with pytest.raises(InvalidDeclaration, match=r"what would 'pool' be\? What steps share is Annotated"):

        @workflow("refused")
        async def refused(_: int, ctx: Context, pool: Pool) -> None: ...


async def test_a_lifespan_is_a_context_manager(worker: MakeWorker) -> None:
    with pytest.raises(InvalidDeclaration, match="is an @asynccontextmanager missing"):
        async with worker([shares], lifespan=lambda: 5):
            pass
