"""The processes that a worker runs steps in: started when they are needed, kept warm, and replaced after a while.

How many steps run at once is not decided here, but by the places (`jetflow.worker.slots.Slots`) that tasks are fetched
for. A step that waits for children gives its place back and keeps its process, so that there may be more of these.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Iterable, Mapping
from itertools import count
from typing import Any, Final

import msgspec

from jetflow.errors import ProcessDied
from jetflow.processes.pool_hosting import Host, Hosting
from jetflow.processes.pool_logging import levels_here
from jetflow.processes.pool_memory import OutOfMemory
from jetflow.processes.pool_messages import Call, Prepare
from jetflow.processes.pool_places import Place, program_of
from jetflow.processes.pool_process import PoolProcess
from jetflow.workflow import Workflow

ENDED_WITHIN: Final = 1.0
"""Seconds in which a process that has nothing to do must have ended: what it has registered for its end is run."""

_log = logging.getLogger("jetflow.worker")


class PoolOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How many processes are kept warm, and when one is replaced: after how many steps, above how many MB."""

    size: int
    steps: int
    memory: float | None


def cores() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Pool:
    """The processes of one worker. `close` it when no step runs any more."""

    def __init__(
        self, places: Iterable[Place], workflows: Mapping[str, Workflow[Any, Any]], options: PoolOptions
    ) -> None:
        self._places = list(places)
        self._workflows = workflows
        self._options = options
        self._numbers = count(1)
        self._idle: list[PoolProcess] = []
        self._ending: set[asyncio.Task[None]] = set()
        self._is_closed = False
        self._out_of_memory = OutOfMemory()

    async def take(self) -> PoolProcess:
        """Return a process that nobody else has, and that is ready. `give_back` it.

        Raises:
            ProcessDied: it could not be started.
        """
        while self._idle:
            process = self._idle.pop()
            if process.is_alive and not process.has_died_unheard():
                return process
        try:
            process = PoolProcess(self._out_of_memory)
        except OSError as error:
            raise ProcessDied(f"could not be started: {error}") from error
        await process.start(
            Prepare(argv=sys.argv, program=program_of(self._places), places=self._places, levels=levels_here())
        )
        _log.debug("process %d is ready to run steps", process.pid)
        return process

    def give_back(self, process: PoolProcess) -> None:
        """Keep a process for the next step, if it is still good for one."""
        options = self._options
        is_heavy = options.memory is not None and process.memory > options.memory
        if not process.is_alive:
            return
        if is_heavy or process.steps >= options.steps or len(self._idle) >= options.size or self._is_closed:
            self._end(process)
        else:
            self._idle.append(process)

    async def run(self, process: PoolProcess, call: Call, host: Host | None) -> bytes:
        """Run a step in a process; see `PoolProcess.call`."""
        call = msgspec.structs.replace(call, number=next(self._numbers))
        hosting = None if host is None else Hosting(host, self._workflows, process.send)
        return await process.call(call, hosting)

    async def close(self) -> None:
        """End all processes, and wait until they are gone."""
        self._is_closed = True
        while self._idle:
            self._end(self._idle.pop())
        await asyncio.gather(*self._ending)

    def _end(self, process: PoolProcess) -> None:
        task = asyncio.get_running_loop().create_task(process.end(ENDED_WITHIN))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
