"""Steps that run in processes: what crosses, how they fail, how they die, and that nothing of them is left behind."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from jetflow import Client, InvalidDeclaration, RunFailed, Worker, WorkerOptions, Workflow, workflow
from jetflow.processes import pool_memory
from jetflow.server import NatsServer
from tests.endings import steps_in_processes as steps
from tests.endings.steps_in_processes import FLOWS, Noted, Pair
from tests.endings.stored import GRACE, PATIENCE, Stored, until
from tests.processes import lives

MakeWorker = Callable[..., Worker]

KILLS = int(os.environ.get("JETFLOW_TEST_KILLS", "20"))
"""How often the steps of one run are killed: a process takes a quarter of a second of a core to start."""

TWO = WorkerOptions(processes=2)


async def failure_of(client: Client, flow: Any, value: Any = None) -> RunFailed:
    run = await client.trigger(flow, value)
    with pytest.raises(RunFailed) as caught:
        await run.result(PATIENCE)
    return caught.value


async def noted(file: Path, lines: int = 1) -> list[int]:
    """Wait until steps have written so many lines, and return all numbers in them."""

    def text() -> str:
        return file.read_text() if file.exists() else ""

    async def written() -> bool:
        return text().count("\n") >= lines

    await until(written)
    return [int(number) for number in text().split()]


async def gone(*pids: int, within: float = PATIENCE) -> None:
    async def are_gone() -> bool:
        return not any(map(lives, pids))

    await until(are_gone, patience=within)


def end(*pids: int) -> None:
    """End what a test that fails would leave behind."""
    for pid in filter(lives, pids):
        os.kill(pid, signal.SIGKILL)


# --- what crosses


async def test_values_and_what_a_context_knows(client: Client, worker: MakeWorker) -> None:
    async with worker(FLOWS, options=TWO):
        run = await client.trigger(steps.doubled, Pair(3), metadata={"by": "me"})
        facts = await run.result(PATIENCE)
        assert (facts.run, facts.attempt, facts.key) == (run.id, 1, f"{run.id}.facts")
        assert (facts.metadata, facts.before, facts.cancelled) == ({"by": "me"}, Pair(6, 2), False)
        assert facts.pid != os.getpid()
        large = {"text": "é" * 700_000, "numbers": [1, 2.5, None, True]}
        assert await (await client.trigger(steps.echo, large)).result(PATIENCE) == large
        assert (await failure_of(client, steps.unwritable)).error_type == "InvalidOutput"


async def test_an_error_is_told_as_if_it_had_been_raised_in_a_thread(
    client: Client, worker: MakeWorker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "tests.steps")
    async with worker(FLOWS, options=TWO):
        assert await (await client.trigger(steps.fails, "thrice")).result(PATIENCE) == 3  # by its class
        error = await failure_of(client, steps.fails, "other")
    assert (error.error_type, error.error_message) == ("ValueError", "other")
    assert "raise ValueError(how)\nValueError: other" in error.traceback
    [line] = [record.getMessage() for record in caplog.records if "failed: ValueError" in record.getMessage()]
    assert "(steps_in_processes.py:" in line
    assert line.endswith(" in fails); it is the last one")
    logged = [record for record in caplog.records if record.name == "tests.steps"]
    assert [record.getMessage() for record in logged] == [*["attempt of thrice"] * 3, "attempt of other"]
    told: Any = logged[-1]
    assert (told.run, told.workflow, told.step, told.attempt) == (error.run_id, "p-fails", "run", 1)
    assert (told.how, told.filename) == ("other", "steps_in_processes.py")
    assert told.process != os.getpid()


async def test_errors_that_say_whether_and_when_to_try_again(
    client: Client, worker: MakeWorker, caplog: pytest.LogCaptureFixture
) -> None:
    async with worker(FLOWS, options=TWO):
        error = await failure_of(client, steps.final, "never")
        assert error.error_type == "NonRetryable"
        assert (await failure_of(client, steps.final, "exits")).error_type == "SystemExit"
        run = await client.trigger(steps.final, "later")
        assert await run.result(PATIENCE) == 2
    assert "RetryAfter: try again after 0.3 s (steps_in_processes.py:151 in final); next in 0.3 s" in caplog.text


async def test_all_that_a_context_can_be_asked(client: Client, worker: MakeWorker) -> None:
    async with worker(FLOWS, options=TWO):
        told = await (await client.trigger(steps.asks, 4)).result(PATIENCE)
    squares = [0, 1, 4, 9]
    assert told["charged"] == [[7, told["pid"]]] * 2
    assert told["made"] == [7]
    assert told["joined"] == told["decided"] == told["as they end"] == told["on a loop of its own"] == squares
    assert (told["one"], told["in a thread"], told["conflict"]) == (10_000, 5, "1 p-leaf")
    assert told["failed"].endswith("failed in step 'run': ValueError: -1 is below 0")
    assert told["children"] == [*squares, 10_000]


async def test_a_stream_whose_source_is_read_in_a_process(client: Client, worker: MakeWorker) -> None:
    async with worker(FLOWS, options=TWO):
        assert await (await client.trigger(steps.stream_apart, 700)).result(PATIENCE) == [700, 0]
        assert await (await client.trigger(steps.reduce_apart, 200)).result(PATIENCE) == sum(range(200))


async def test_a_context_that_outlives_its_step_says_so(client: Client, worker: MakeWorker) -> None:
    async with worker(FLOWS, options=WorkerOptions(processes=1)):
        assert await (await client.trigger(steps.outlived, 0)).result(PATIENCE) == ""
        said = await (await client.trigger(steps.outlived, 1)).result(PATIENCE)
        assert said.startswith("StepEnded: step 'run' of run ")


async def test_steps_that_wait_hold_no_place(client: Client, worker: MakeWorker) -> None:
    """A recursion is deeper than there are processes, and its parents are parked."""
    async with worker(FLOWS, options=WorkerOptions(processes=1)) as one:
        assert await (await client.trigger(steps.deep, 5)).result(PATIENCE) == 5
        assert 1 <= one.counts.parked <= 5


async def test_a_step_in_a_process_is_parked(client: Client, worker: MakeWorker, tmp_path: Path) -> None:
    file = tmp_path / "noted"
    async with worker(FLOWS, options=WorkerOptions(processes=2, park_after=0.1)) as one:
        run = await client.trigger(steps.parent, Noted(str(file), 0.5))
        assert await run.result(PATIENCE) == (await noted(Path(f"{file}-child")))[0]
        assert one.counts.parked == 1
    assert len(await noted(file, 2)) == 2


# --- how they die


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (9, r"was killed by signal 9 \(SIGKILL\)$"),
        (11, r"by signal 11 \(SIGSEGV\)$"),
        (0, "by itself with exit status 3$"),
    ],
    ids=["killed", "crashed", "exited"],
)
async def test_a_process_that_dies_fails_its_attempt_by_name(
    client: Client, worker: MakeWorker, tmp_path: Path, number: int, said: str
) -> None:
    """And no other's."""
    file = tmp_path / "noted"
    async with worker(FLOWS, options=TWO):
        beside = await client.trigger(steps.slow, Noted(str(file), 1.0))
        [pid] = await noted(file)
        error = await failure_of(client, steps.dies, number)
        assert error.error_type == "ProcessDied"
        assert re.search(said, error.error_message)
        assert await beside.result(PATIENCE) == pid


async def test_a_process_that_the_kernel_has_killed_for_memory_is_told_so(
    client: Client, worker: MakeWorker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group, own = tmp_path / "group", tmp_path / "own"
    group.mkdir()
    (group / "memory.events").write_text("oom 3\noom_kill 1\n")
    own.write_text("0::/group\n")
    monkeypatch.setattr(pool_memory, "_ROOT", tmp_path)
    monkeypatch.setattr(pool_memory, "_OWN", own)
    async with worker(FLOWS, options=TWO):
        assert "memory" not in (await failure_of(client, steps.dies, 9)).error_message
        error = await failure_of(client, steps.out_of_memory, str(group / "memory.events"))
    assert error.error_message.endswith("was killed by signal 9 (SIGKILL): the kernel was out of memory")


async def test_steps_that_are_killed_again_and_again_lose_nothing(client: Client, worker: MakeWorker) -> None:
    deaths = [KILLS // 4 + at for at in (-3, -1, 1, 3)]  # equal inputs would be one child
    async with worker(FLOWS, options=TWO):
        run = await client.trigger(steps.all_unlucky, deaths)
        assert await run.result(10 * PATIENCE) == sum(deaths) + len(deaths)
        trace = await client.describe(run.id)
        assert [child.status for child in trace.children] == ["succeeded"] * len(deaths)


async def test_a_process_that_dies_idle_costs_no_attempt(client: Client, worker: MakeWorker) -> None:
    async with worker(FLOWS, options=WorkerOptions(processes=1)):
        for _ in range(5):
            pid = await (await client.trigger(steps.pid, 0)).result(PATIENCE)
            os.kill(pid, signal.SIGKILL)
            assert await (await client.trigger(steps.pid, 0)).result(PATIENCE) != pid


async def test_a_timeout_kills(client: Client, worker: MakeWorker, tmp_path: Path) -> None:
    """The process, and what it has started."""
    file = tmp_path / "noted"
    async with worker(FLOWS, options=TWO):
        error = await failure_of(client, steps.timed, Noted(str(file)))
        assert (error.status, error.error_type) == ("timed_out", "StepTimeout")
        pids = await noted(file)
        try:
            await gone(*pids, within=1.0)
        finally:
            end(*pids)


async def test_cancelling_kills(client: Client, worker: MakeWorker, tmp_path: Path) -> None:
    file = tmp_path / "noted"
    async with worker(FLOWS, options=TWO):
        run = await client.trigger(steps.endless, Noted(str(file), 1.0))
        pids = await noted(file)
        assert all(map(lives, pids))
        await client.cancel(run.id)
        await gone(*pids)
        with pytest.raises(RunFailed, match="cancelled"):
            await run.result(PATIENCE)


async def test_the_end_of_grace_kills_and_hands_back(client: Client, worker: MakeWorker, tmp_path: Path) -> None:
    file = tmp_path / "noted"
    async with worker(FLOWS, options=TWO):
        run = await client.trigger(steps.handed_over, Noted(str(file)))
        pids = await noted(file)
        began = monotonic()
    assert monotonic() - began < GRACE + 2.0
    assert not any(map(lives, pids))
    async with worker(FLOWS, options=TWO):
        assert await run.result(PATIENCE) == 2  # and no attempt was counted: there is but one


# --- the processes themselves


async def test_processes_are_warm_and_replaced_after_a_while(client: Client, worker: MakeWorker) -> None:
    async def pids(count: int) -> list[int]:
        return [await (await client.trigger(steps.pid, 0)).result(PATIENCE) for _ in range(count)]

    async with worker(FLOWS, options=WorkerOptions(processes=1)):
        warm = await pids(4)
        assert len(set(warm)) == 1
    async with worker(FLOWS, options=WorkerOptions(processes=1, steps_per_process=2)):
        first, second, third, fourth = await pids(4)
        assert first == second != third == fourth
        await gone(first, within=2.0)
    async with worker(FLOWS, options=WorkerOptions(processes=1, mb_per_process=1)):
        assert len(set(await pids(3))) == 3
    await gone(*warm, third, within=1.0)


async def test_no_more_are_fetched_than_there_are_processes(client: Client, worker: MakeWorker, tmp_path: Path) -> None:
    """The others are for other workers."""
    runs = [await client.trigger(steps.gated, Noted(str(tmp_path / "noted"))) for _ in range(4)]
    async with worker(FLOWS, options=TWO) as first:
        await noted(tmp_path / "noted", 2)
        async with worker(FLOWS, options=TWO) as second:
            await noted(tmp_path / "noted", 4)
            (tmp_path / "noted-gate").touch()
            pids = [await run.result(PATIENCE) for run in runs]
            assert len(set(pids)) == 4
            assert (first.counts.executed, second.counts.executed) == (2, 2)
            assert first.counts.handed_back == second.counts.handed_back == 0


async def test_a_process_has_none_of_its_workers_sockets(client: Client, worker: MakeWorker) -> None:
    async with worker(FLOWS, options=TWO):
        here = steps.sockets_here()
        assert here
        found = await (await client.trigger(steps.sockets)).result(PATIENCE)
        assert len(found) == 1
        assert not here.intersection(found)


async def test_ctrl_c_is_the_workers(client: Client, worker: MakeWorker) -> None:
    """What a step executes is ended by it as ever."""
    async with worker(FLOWS, options=TWO):
        assert await (await client.trigger(steps.interrupted)).result(PATIENCE) == -signal.SIGINT


async def test_a_forked_child_of_a_process_is_told_apart(client: Client, worker: MakeWorker) -> None:
    async with worker(FLOWS, options=TWO):
        assert await (await client.trigger(steps.forks, 0)).result(PATIENCE) == "ForkedProcess"


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_processes_end_with_a_worker_that_is_killed(
    nats_server: NatsServer,
    client: Client,
    worker: MakeWorker,
    stored: Stored,
    namespace: str,
    tmp_path: Path,
    loop: str,
) -> None:
    """At once, also one that is in a long C call, with all that they have started."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", steps.__name__, nats_server.url, namespace, loop)
    )
    busy, stuck = tmp_path / "busy", tmp_path / "stuck"
    try:
        idle = await (await client.trigger(steps.pid, 0)).result(PATIENCE)
        runs = [await client.trigger(steps.endless, Noted(str(busy)))]
        runs.append(await client.trigger(steps.endless, Noted(str(stuck), 1.0)))
        pids = [idle, *await noted(busy), *await noted(stuck)]
        assert all(map(lives, pids))
    finally:
        process.kill()
        await process.wait()
    try:
        await gone(*pids, within=1.0)
    finally:
        end(*pids)
    for run in runs:
        await client.cancel(run.id)
    async with worker(FLOWS):
        await until(stored.all_acknowledged)


# --- what a step asks for itself


async def test_it_extends_its_time(client: Client, worker: MakeWorker) -> None:
    async with worker(FLOWS, options=TWO):
        assert await (await client.trigger(steps.extends, 1.5)).result(PATIENCE) == 1.5


async def test_its_children_have_metadata_of_their_own(client: Client, worker: MakeWorker) -> None:
    async with worker(FLOWS, options=TWO):
        found = await (await client.trigger(steps.tells, 600)).result(PATIENCE)
    assert found == ["one", "same", *range(600)]


async def test_it_cancels_its_run(client: Client, worker: MakeWorker, tmp_path: Path) -> None:
    """Its process is killed: nothing of it goes on."""
    async with worker(FLOWS, options=TWO):
        error = await failure_of(client, steps.gives_up, Noted(str(tmp_path / "noted")))
    assert (error.status, error.error_message) == ("cancelled", "the run has cancelled itself")
    assert not (tmp_path / "noted").exists()


async def test_it_lets_others_have_its_place(client: Client, worker: MakeWorker, tmp_path: Path) -> None:
    """They run in other processes, for it keeps its own."""
    noted = Noted(str(tmp_path / "noted"))
    async with worker(FLOWS, options=WorkerOptions(processes=1)):
        waits = await client.trigger(steps.lets_others, noted)
        await (await client.trigger(steps.slow, noted)).result(PATIENCE)
        assert await waits.result(PATIENCE) == 1


# --- declaring


async def async_step(number: int) -> int:
    return number


async def test_what_cannot_run_in_a_process_is_refused_where_it_stands() -> None:
    def local(number: int) -> int:
        return number

    for function, message in (
        (async_step, r"^step 's' of workflow 'w' is an async def, which runs on the event loop .* write a plain def"),
        (lambda number: number, r"^step 's' of workflow 'w' runs in a process, which finds it by import, .* a lambda"),
        (local, r"stands inside of another one: declare it with def at the top level of a module"),
    ):
        with pytest.raises(InvalidDeclaration, match=message):
            Workflow("w").step(name="s", runs_in="process")(function)
        with pytest.raises(InvalidDeclaration, match=message.replace("'s'", "'run'")):
            workflow("w", runs_in="process")(function)
    with pytest.raises(
        InvalidDeclaration, match=r"runs_in is 'thread': there is runs_in=\"process\", and nothing else"
    ):
        Workflow("w").step(name="s", runs_in="thread")(async_step)  # pyright: ignore[reportArgumentType, reportCallIssue]
    with pytest.raises(InvalidDeclaration, match="and no module has a name for it: declare it at the top level"):
        Worker(workflow("w", runs_in="process")(steps.computed_for_ever))
