"""The cases, and how they are played: those that may share a server and a process do, the others have their own."""

from __future__ import annotations

import asyncio
import inspect
import traceback
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from time import monotonic
from typing import Final, TypeAlias

from conformance.lab import Failed, Lab
from conformance.process import NotOffered, NotReady, Refused

LEVELS: Final = ("client", "child", "parent", "full")
"""What an SDK can be, each with all that stands before it."""

BOUND: Final = 60.0
"""Seconds that a case may take in all."""

TOGETHER: Final = 12
"""Cases that share one process at the same time."""

APART: Final = 3
"""Cases that have processes of their own at the same time."""

Play: TypeAlias = Callable[[Lab], Awaitable[None]]


@dataclass(frozen=True)
class Case:
    """One case. ``alone`` ones get a server and a process of their own, started with ``settings``."""

    id: str
    level: str
    play: Play
    alone: bool = False
    start: bool = True
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def rule(self) -> str:
        """What the case is about, in one line."""
        return inspect.cleandoc(self.play.__doc__ or "").partition("\n")[0]


CASES: Final[dict[str, Case]] = {}


def case(id: str, level: str, *, alone: bool = False, start: bool = True, **settings: str) -> Callable[[Play], Play]:
    """Make a function a case. ``alone`` if it disturbs others; without ``start`` it starts the process itself."""

    def add(play: Play) -> Play:
        if id in CASES:
            raise ValueError(f"two cases are called {id}")
        CASES[id] = Case(id, level, play, alone or not start or bool(settings), start, settings)
        return play

    return add


@dataclass(frozen=True)
class Result:
    """How a case ended; ``problem`` is empty if it passed. A ``skipped`` one is of what a client need not do."""

    case: Case
    seconds: float
    problem: str = ""
    skipped: bool = False

    @property
    def passed(self) -> bool:
        """Whether all was as expected."""
        return not self.problem


def chosen(level: str = "full", only: Sequence[str] = ()) -> list[Case]:
    """Return the cases of a level and all before it, in order; ``only`` are ids or patterns of them."""
    levels = LEVELS[: LEVELS.index(level) + 1]
    return [
        one
        for one in CASES.values()
        if one.level in levels and (not only or any(fnmatchcase(one.id, pattern) for pattern in only))
    ]


async def play(
    cases: Sequence[Case],
    command: Sequence[str],
    *,
    prefix: str = "",
    patience: float = 1.0,
    on_result: Callable[[Result], None] = lambda _: None,
    on_lab: Callable[[Lab], None] = lambda _: None,
) -> list[Result]:
    """Play cases, and return how they ended, in their order. ``on_lab`` is given each laboratory before it is used."""
    results: dict[str, Result] = {}

    def note(result: Result) -> None:
        results[result.case.id] = result
        on_result(result)

    def lab() -> Lab:
        made = Lab(command, patience=patience, prefix=prefix)
        on_lab(made)
        return made

    async def apart(case: Case, gate: asyncio.Semaphore) -> None:
        async with gate:
            note(await _guarded(case, lambda: _play_alone(case, lab())))

    async def together(shared: Sequence[Case]) -> None:
        if not shared:
            return
        gate = asyncio.Semaphore(TOGETHER)
        try:
            async with opened(lab()) as one, asyncio.TaskGroup() as group:
                for case in shared:
                    group.create_task(_in_turn(case, one, gate, note))
        except* (NotReady, OSError) as errors:
            for case in shared:
                note(Result(case, 0.0, str(errors.exceptions[0])))

    gate = asyncio.Semaphore(APART)
    async with asyncio.TaskGroup() as group:
        group.create_task(together([one for one in cases if not one.alone]))
        for one in cases:
            if one.alone:
                group.create_task(apart(one, gate))
    return [results[one.id] for one in cases]


@asynccontextmanager
async def opened(lab: Lab, *, start: bool = True, **settings: str) -> AsyncGenerator[Lab]:
    """Open a laboratory, and close it behind the block."""
    try:
        await lab.open(start=start, **settings)
        yield lab
    finally:
        await lab.close()


async def _play_alone(case: Case, lab: Lab) -> None:
    async with opened(lab, start=case.start, **case.settings):
        await case.play(lab)


async def _in_turn(case: Case, lab: Lab, gate: asyncio.Semaphore, note: Callable[[Result], None]) -> None:
    async with gate:
        note(await _guarded(case, lambda: case.play(lab)))


async def _guarded(case: Case, play: Callable[[], Awaitable[None]]) -> Result:
    began, problem, skipped = monotonic(), "", False
    try:
        async with asyncio.timeout(BOUND):
            await play()
    except Failed as failure:
        problem = str(failure)
    except NotOffered:
        skipped = True
    except TimeoutError:
        problem = f"not done after {BOUND:g} s"
    except (NotReady, Refused) as error:
        problem = f"{type(error).__name__}: {error}"
    except Exception:  # a fault of the case itself, or of the server: the others go on
        problem = traceback.format_exc()
    return Result(case, monotonic() - began, problem, skipped)
