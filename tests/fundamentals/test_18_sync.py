"""Plain programs: the client without ``await``, from threads, beside an event loop, and behind a fork."""

from __future__ import annotations

import asyncio
import inspect
import os
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast, get_args, get_origin, get_type_hints

import pytest
from patience import PATIENCE

import jetflow.embedding
import jetflow.sync
from jetflow import Client, Context, InvalidInput, ResultTimeout, Retry, Run, RunFailed, Worker, workflow
from jetflow.errors import ClientClosed, ServerUnreachable, WrongEventLoop
from jetflow.server import NatsServer

MakeWorker = Callable[..., Worker]


@workflow("double")
async def double(number: int) -> int:
    return 2 * number


@workflow("doubles")
async def doubles(upto: int, ctx: Context) -> int:
    return sum(await ctx.join(await ctx.spawn_workflows(double, range(upto))))


@workflow("fails", retry=Retry(attempts=1))
async def fails() -> None:
    raise LookupError("nothing there")


@pytest.fixture
def plain(nats_server: NatsServer, namespace: str) -> Iterator[jetflow.sync.Client]:
    with jetflow.sync.connect(nats_server.url, namespace=namespace) as client:
        yield client


async def test_a_plain_program_triggers_and_follows(plain: jetflow.sync.Client, worker: MakeWorker) -> None:
    def program() -> None:
        run = plain.trigger(doubles, 4, metadata={"by": "cron"})
        assert run.result(PATIENCE) == 12
        assert run.status() == "succeeded"
        trace = plain.describe(run.id)
        assert (trace.totals.succeeded, trace.metadata) == (4, {"by": "cron"})
        assert plain.run(run.id, doubles).result() == 12
        assert plain.workflows() == ["double", "doubles"]
        [last] = [seen.totals.succeeded for seen in plain.watch(run.id)][-1:]
        assert last == 4
        plain.delete(run.id)

    async with worker([doubles, double]):
        await asyncio.to_thread(program)


async def test_errors_are_those_of_the_client(plain: jetflow.sync.Client, worker: MakeWorker) -> None:
    ended, loop = asyncio.Event(), asyncio.get_running_loop()

    @workflow("waits")
    async def waits() -> None:
        await ended.wait()

    def program() -> None:
        with pytest.raises(RunFailed, match="nothing there"):
            plain.trigger(fails).result(PATIENCE)
        run = plain.trigger("waits")
        with pytest.raises(ResultTimeout):
            run.result(0)
        loop.call_soon_threadsafe(ended.set)
        run.result(PATIENCE)

    async with worker([fails, waits]):
        await asyncio.to_thread(program)


async def test_many_threads_share_one_client(plain: jetflow.sync.Client, worker: MakeWorker) -> None:
    def program() -> list[int]:
        with ThreadPoolExecutor(16) as threads:
            return list(threads.map(lambda number: plain.trigger(double, number).result(PATIENCE), range(200)))

    async with worker([double]):
        assert await asyncio.to_thread(program) == [2 * number for number in range(200)]


async def test_it_may_be_called_where_an_event_loop_runs(plain: jetflow.sync.Client) -> None:
    """The loop stands still meanwhile, but nothing waits for ever."""
    assert plain.trigger(double, 3).created
    assert plain.workflows() == ["double"]


async def test_many_runs_at_once(client: Client, plain: jetflow.sync.Client, worker: MakeWorker) -> None:
    """In the order of their inputs; with keys, those that exist are found."""
    async with worker([double]):
        runs = await client.trigger_many(double, range(1200), key=str)
        assert [run.created for run in runs] == [True] * 1200
        assert [await run.result(PATIENCE) for run in runs[::100]] == [200 * number for number in range(12)]
        again = await asyncio.to_thread(plain.trigger_many, double, range(1190, 1210), key=str)
        assert [run.created for run in again] == [False] * 10 + [True] * 10
        assert [run.id for run in again[:10]] == [run.id for run in runs[1190:]]
        assert (await client.trigger(double, 5, key="5")).created is False
        another = await client.trigger(double, 5)
        assert another.created
        assert client.run(runs[0].id).created is None

        async def numbers() -> AsyncGenerator[int]:
            for number in range(3):
                yield number

        found = await client.trigger_many("double", numbers())
        assert [await run.result(PATIENCE) for run in found] == [0, 2, 4]
        assert sum(await asyncio.gather(*(run.result(PATIENCE) for run in runs))) == 1199 * 1200
        await asyncio.gather(*(client.run(run.id).result(PATIENCE) for run in again), another.result(PATIENCE))
    with pytest.raises(InvalidInput, match="the key of trigger_many is a function"):
        await client.trigger_many(double, [1], key=cast("Any", "a"))
    with pytest.raises(InvalidInput, match="trigger takes one"):
        plain.trigger_many("double", "ab")
    with pytest.raises(InvalidInput, match="Expected `int`"):
        await client.trigger_many(double, cast("list[int]", [1, "b"]))


async def test_inputs_are_taken_in_the_thread_that_asks(plain: jetflow.sync.Client) -> None:
    """They may come from the client itself."""

    def numbers() -> Iterator[int]:
        yield len(plain.workflows())

    assert len(plain.trigger_many(double, numbers())) == 1


def test_a_client_that_was_closed_says_so(nats_server: NatsServer, namespace: str) -> None:
    with jetflow.sync.connect(nats_server.url, namespace=namespace) as client:
        run = client.trigger(double, 1)
    client.close()
    for use in (client.workflows, run.status, lambda: client.namespace, lambda: next(client.watch(run.id))):
        with pytest.raises(ClientClosed, match="make another one"):
            use()
    assert [thread for thread in threading.enumerate() if thread.name == "jetflow-sync"] == []


def test_one_that_waits_is_told_of_the_end(nats_server: NatsServer, namespace: str) -> None:
    """Nobody waits for ever for a run that another thread does not follow any more."""
    client = jetflow.sync.connect(nats_server.url, namespace=namespace)
    run = client.trigger(double, 1)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(run.result)
        client.workflows()  # so that it has begun to wait, or will find it closed
        client.close()
        with pytest.raises(ClientClosed, match="was closed"):
            waiting.result(PATIENCE)


def test_a_lazy_client_connects_when_it_is_used(nats_server: NatsServer, namespace: str) -> None:
    nowhere = jetflow.sync.connect("nats://127.0.0.1:1", lazy=True)
    with pytest.raises(ServerUnreachable):
        nowhere.workflows()
    with pytest.raises(ServerUnreachable):
        jetflow.sync.connect("nats://127.0.0.1:1")
    with jetflow.sync.connect(nats_server.url, namespace=namespace, lazy=True) as client:
        assert client.namespace == namespace
    assert [thread for thread in threading.enumerate() if thread.name == "jetflow-sync"] == []


def test_its_own_event_loop_is_refused(plain: jetflow.sync.Client) -> None:
    """It would wait for itself for ever."""

    class Odd(dict[str, Any]):
        def __iter__(self) -> Iterator[str]:
            plain.workflows()
            return super().__iter__()

        def keys(self) -> Any:
            return iter(self)

    with pytest.raises(WrongEventLoop, match=r"its own event loop"):
        plain.trigger(double, 1, metadata=Odd(a=1))


FORKING = """
import os, sys, threading
import jetflow.sync
from jetflow import workflow

@workflow("double")
async def double(number: int) -> int:
    return 2 * number

url, namespace = sys.argv[1:]
client = jetflow.sync.connect(url, namespace=namespace)
before = client.trigger(double, 0, key="before")
stop = threading.Event()

def busy():
    while not stop.is_set():
        client.workflows()

threads = [threading.Thread(target=busy) for _ in range(4)]
for thread in threads:
    thread.start()
for child in range(5):
    if os.fork() == 0:
        run = client.trigger(double, child, key=f"of child {child}")
        print(run.created, before.status(), client.namespace == namespace, flush=True)
        client.close()
        os._exit(0)
for _ in range(5):
    _, status = os.wait()
    assert status == 0, status
stop.set()
for thread in threads:
    thread.join()
print("parent", client.trigger(double, 6).created, flush=True)
"""


def test_forked_processes_connect_by_themselves(nats_server: NatsServer, namespace: str) -> None:
    """While other threads use the client, as under a server that forks its workers; the parent goes on."""
    ran = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKING, nats_server.url, namespace],
        capture_output=True,
        text=True,
        timeout=PATIENCE * 2,
        check=False,
        cwd=Path(__file__).parents[2],
        env=os.environ,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert sorted(ran.stdout.splitlines()) == ["True queued True"] * 5 + ["parent True"]


LEFT_OPEN = """
import sys
import jetflow.sync
client = jetflow.sync.connect(sys.argv[1], namespace=sys.argv[2])
print(client.workflows())
"""


def test_a_program_may_end_without_closing(nats_server: NatsServer, namespace: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-X", "dev", "-c", LEFT_OPEN, nats_server.url, namespace],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "[]\n", "")


# --- the same signatures

_NOT_HERE = {"session", "through", "like"}
_OF_RUNS = ("loosen", "rerun", "newest", "newest_of")
_OF_ITS_OWN = {"close"}


def _parameters(function: Any) -> list[tuple[str, Any, Any]]:
    hints = get_type_hints(function)
    _, *taken = inspect.signature(function).parameters.values()
    return [(one.name, one.default, hints[one.name]) for one in taken]


def _plain_return(kind: Any) -> Any:
    """Return what a coroutine or an asynchronous generator is without its event loop."""
    if get_origin(kind) is AsyncGenerator:
        return Iterator[get_args(kind)[0]]
    return kind


@pytest.mark.parametrize(("of", "twin"), [(Client, jetflow.sync.Client), (Run, jetflow.sync.Run)])
def test_the_plain_client_has_every_method_with_the_same_signature(of: Any, twin: Any) -> None:
    public = [name for name in dir(of) if not name.startswith("_") and name not in _NOT_HERE | _OF_ITS_OWN]
    for name in public:
        one, other = inspect.getattr_static(of, name), inspect.getattr_static(twin, name)
        if isinstance(one, property):
            assert isinstance(other, property)
            continue
        given, taken = _parameters(one), _parameters(other)
        assert [(who, default) for who, default, _ in given] == [(who, default) for who, default, _ in taken], name
        if name not in ("trigger_many", "publish_many", *_OF_RUNS):  # which take no asynchronous inputs
            assert [kind for *_, kind in given] == [kind for *_, kind in taken], name
        if name not in ("trigger", "trigger_many", "run", "result", *_OF_RUNS):  # whose types are their own
            kind = get_type_hints(one).get("return")
            assert _plain_return(kind) == get_type_hints(other).get("return"), name
    own = {name for name in dir(twin) if not name.startswith("_")} - set(public)
    assert own <= _OF_ITS_OWN


def test_connecting_takes_the_same_arguments() -> None:
    """And ``lazy``. A worker's helper for web services takes all that says how to connect, too."""
    asked, plain = inspect.signature(jetflow.connect).parameters, inspect.signature(jetflow.sync.connect).parameters
    assert {name: one for name, one in plain.items() if name != "lazy"} == dict(asked)
    helper = inspect.signature(jetflow.embedding.lifespan).parameters
    worker = inspect.signature(Worker.__init__).parameters
    given = {"inside" if name == "lifespan" else name for name in worker if name != "self"}
    assert set(helper) == given
