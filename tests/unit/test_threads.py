"""The threads that plain def steps run in."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest

from jetflow.worker.threads import Call, Threads


@pytest.fixture
async def threads() -> AsyncIterator[Threads]:
    threads = Threads()
    yield threads
    threads.close()


async def ended(call: Call) -> None:
    """Wait for what tells nobody, as nobody waits for it."""
    while not call.has_ended:  # noqa: ASYNC110
        await asyncio.sleep(0)


async def test_a_call_gives_its_value_and_its_error(threads: Threads) -> None:
    assert await threads.call(lambda: 3).result == 3
    with pytest.raises(ZeroDivisionError):
        await threads.call(lambda: 1 // 0).result


async def test_stop_iteration_is_an_error_like_others(threads: Threads) -> None:
    with pytest.raises(RuntimeError, match="raised StopIteration") as caught:
        await threads.call(lambda: next(iter(()))).result
    assert isinstance(caught.value.__cause__, StopIteration)


async def test_a_system_exit_is_how_the_call_ended(threads: Threads) -> None:
    def leave() -> None:
        raise SystemExit(3)

    (outcome,) = await asyncio.gather(threads.call(leave).result, return_exceptions=True)
    assert isinstance(outcome, SystemExit)


async def test_a_thread_is_used_again(threads: Threads) -> None:
    assert len({await threads.call(threading.get_ident).result for _ in range(50)}) == 1


async def test_a_call_that_nobody_waits_for_is_hung_until_it_returns(threads: Threads) -> None:
    began, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def hang() -> None:
        loop.call_soon_threadsafe(began.set)
        go_on.wait()

    call = threads.call(hang)
    await began.wait()
    assert not call.is_hung
    assert not threads.has_hung(0)
    call.result.cancel()
    assert call.is_hung
    assert threads.has_hung(0)
    assert not threads.has_hung(1)
    assert await threads.call(lambda: 4).result == 4
    go_on.set()
    await ended(call)
    assert not threads.has_hung(0)


async def test_a_call_that_was_given_up_before_it_began_is_not_made(threads: Threads) -> None:
    made: list[int] = []
    call = Call(lambda: made.append(1))
    call.result.cancel()
    assert call.make() == (None, None)
    assert not made


async def test_the_threads_do_not_hold_up_the_end_of_python(threads: Threads) -> None:
    thread = await threads.call(threading.current_thread).result
    assert thread.daemon
