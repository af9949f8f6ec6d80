"""What can go wrong, and when: two lanes of faults at once, one for workers and one for servers, drawn by seed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Collection
from time import monotonic, time
from typing import TypeAlias

import nats.errors

from tests.chaos.account import FULL, PARTS
from tests.chaos.driver import Driver
from tests.chaos.processes import WorkerProcess
from tests.chaos.progress import say
from tests.chaos.servers import Servers, api

Fault: TypeAlias = Callable[[], Awaitable[None]]


class Faults:
    """Draws faults until a time is over, of all kinds or ``only`` some. Each ends by healing what it broke."""

    def __init__(
        self,
        servers: Servers,
        workers: list[WorkerProcess],
        driver: Driver,
        namespace: str,
        rng: random.Random,
        only: Collection[str] = (),
    ) -> None:
        self._servers = servers
        self._workers = workers
        self._driver = driver
        self._namespace = namespace
        self._rng = rng
        self.drawn: Counter[str] = Counter()
        self.denied: Counter[str] = Counter()
        on_workers: dict[str, tuple[int, Fault]] = {
            "worker_sigkill": (12, self._kill_worker),
            "worker_sigkill_all": (2, self._kill_all_workers),
            "guard_sigkill": (3, self._kill_guard),
            "worker_and_guard_sigkill": (3, self._kill_both),
            "worker_sigstop": (3, self._freeze_worker),
            "worker_long_sigstop": (1, self._freeze_worker_for_long),
            "worker_sigterm": (2, self._stop_worker),
            "process_sigkill": (6, self._kill_process),
            "connection_cut": (3, self._cut),
            "connection_refused": (2, self._refuse),
            "connection_stalled": (2, self._stall),
            "connection_lost_acks": (2, self._stall_and_cut),
            "duplicate_trigger": (2, driver.duplicate),
            "conflicting_trigger": (1, driver.conflict),
            "poison_step": (1, self._poison),
            "permissions_denied": (2, self._deny),
        }
        on_servers: dict[str, tuple[int, Fault]] = {
            "server_sigkill": (3, self._kill_server),
            "server_restart": (2, self._restart_server),
            "server_sigstop": (1, self._freeze_server),
            "full_stop": (1, self._full_stop),
            "outage": (1, self._outage),
            "full_stream": (2, self._fill_stream),
            "full_account": (2, self._fill_account),
        }
        if servers.count > 1:
            on_servers |= {
                "rolling_restart": (1, servers.roll),
                "leader_stepdown": (4, self._step_down),
                "full_sigkill": (1, self._full_kill),
            }
        if hasattr(driver.client_class, "cancel"):
            on_workers["cancel"] = (2, driver.cancel)
        lanes = (on_workers, 0.2, 1.2), (on_servers, 2.0, 6.0)
        if unknown := set(only) - on_workers.keys() - on_servers.keys():
            raise ValueError(f"no faults are named {sorted(unknown)}: choose of {[*on_workers, *on_servers]}")
        self._lanes = [
            ({kind: fault for kind, fault in faults.items() if not only or kind in only}, least, most)
            for faults, least, most in lanes
        ]

    async def run(self, seconds: float) -> None:
        until = monotonic() + seconds
        await asyncio.gather(*(self._lane(until, *lane) for lane in self._lanes))

    async def _lane(self, until: float, faults: dict[str, tuple[int, Fault]], least: float, most: float) -> None:
        deck: list[str] = []
        while faults:
            pause = self._rng.uniform(least, most)
            if monotonic() + pause >= until:
                return
            await asyncio.sleep(pause)
            if not deck:  # every kind comes once before the heavier ones come again
                kinds = list(faults)
                more = [kind for kind in kinds for _ in range(faults[kind][0] - 1)]
                deck = self._shuffled(more) + self._shuffled(kinds)
            kind = deck.pop()
            self.drawn[kind] += 1
            try:
                await faults[kind][1]()
            except (nats.errors.Error, OSError, TimeoutError) as error:
                say(f"fault {kind} met {error!r}")

    def _shuffled(self, kinds: list[str]) -> list[str]:
        return self._rng.sample(kinds, len(kinds))

    # --- workers

    def _worker(self) -> WorkerProcess:
        return self._rng.choice(self._workers)

    async def _kill_worker(self) -> None:
        self._worker().kill(self._rng.choice((0.0, 0.5, 3.0)))

    async def _kill_all_workers(self) -> None:
        for worker in self._workers:
            worker.kill(self._rng.uniform(0, 1))

    async def _kill_guard(self) -> None:
        self._worker().kill_guard(with_worker=False)

    async def _kill_both(self) -> None:
        self._worker().kill_guard(with_worker=True, pause=self._rng.choice((0.0, 0.5, 3.0)))

    async def _kill_process(self) -> None:
        """Kill one of those that a worker runs steps in."""
        if processes := self._worker().processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._rng.choice(processes), signal.SIGKILL)

    async def _freeze_worker(self) -> None:
        await self._freeze(self._worker(), self._rng.choice((0.5, 3.0, 7.0)))

    async def _freeze_worker_for_long(self) -> None:
        """Beside the other faults, for as long as a machine that is moved or overloaded may stand still."""
        task = asyncio.create_task(self._freeze(self._worker(), self._rng.uniform(10.0, 30.0)))
        self._driver.adopt(task)

    async def _freeze(self, worker: WorkerProcess, pause: float) -> None:
        if worker.signal(signal.SIGSTOP):
            try:
                await asyncio.sleep(pause)
            finally:
                worker.signal(signal.SIGCONT)
                self._goes_on()

    def _goes_on(self) -> None:
        """Note that what was held up is published now: later than it was to be."""
        self._servers.held_up.append(time())

    async def _stop_worker(self) -> None:
        self._worker().terminate()

    async def _cut(self) -> None:
        self._worker().proxy.cut()

    async def _refuse(self) -> None:
        await self._worker().proxy.refuse(self._rng.choice((0.5, 4.0)))

    async def _stall(self) -> None:
        await self._worker().proxy.stall(self._rng.choice((0.5, 4.0)), then_cut=False)
        self._goes_on()

    async def _stall_and_cut(self) -> None:
        await self._worker().proxy.stall(self._rng.choice((0.2, 1.0)), then_cut=True)

    async def _poison(self) -> None:
        task = asyncio.create_task(self._driver.poison())
        self._driver.adopt(task)

    async def _deny(self) -> None:
        """Deny one worker, or all, to publish on some subjects, and let them again."""
        every = range(len(self._workers))
        some = [*every] if self._rng.random() < 0.3 else [self._rng.choice(every)]
        parts = self._rng.sample(list(PARTS), self._rng.choice((1, 1, 2)))
        self.denied.update(parts)
        account = self._servers.account
        account.deny(some, [subject.format(self._namespace) for part in parts for subject in PARTS[part]])
        self._servers.reload()
        try:
            await asyncio.sleep(self._rng.choice((0.5, 2.0, 6.0)))
        finally:
            account.deny(some, [])
            self._servers.reload()
            self._goes_on()

    # --- servers

    def _server(self) -> int:
        return self._rng.randrange(self._servers.count)

    async def _kill_server(self) -> None:
        await self._servers.kill(self._server(), self._rng.choice((0.0, 0.5, 2.0)))
        await self._ready()

    async def _restart_server(self) -> None:
        await self._servers.restart(self._server())
        await self._ready()

    async def _freeze_server(self) -> None:
        # In a cluster, long enough for the others to elect leaders of their own.
        await self._servers.freeze(self._server(), self._rng.choice((0.5, 3.0, 6.0 * min(2, self._servers.count))))
        self._goes_on()

    async def _full_stop(self) -> None:
        await self._servers.stop_all(self._rng.choice((0.5, 3.0)), kill=False)
        await self._ready()

    async def _outage(self) -> None:
        await self._servers.stop_all(self._rng.uniform(1.0, 30.0), kill=self._rng.random() < 0.5)
        await self._ready()

    async def _full_kill(self) -> None:
        await self._servers.stop_all(self._rng.choice((0.0, 2.0)), kill=True)
        await self._ready()

    async def _ready(self) -> None:
        """Most often, wait until the servers are well again; else the next fault meets them half recovered."""
        if self._rng.random() < 0.8:
            await self._servers.ready()

    async def _step_down(self) -> None:
        client = await self._servers.connect()
        try:
            kinds = ("tasks", "records", "inbox", "timers")
            streams = [f"JF_{self._namespace}_{kind}" for kind in kinds] + [f"KV_jf_{self._namespace}_counters"]
            for stream in self._rng.sample(streams, self._rng.randint(1, len(streams))):
                await api(client, f"STREAM.LEADER.STEPDOWN.{stream}")
        finally:
            await client.close()

    async def _fill_stream(self) -> None:
        """Make a stream full where it stands, and raise its limit again."""
        client = await self._servers.connect()
        try:
            stream = f"JF_{self._namespace}_{self._rng.choice(('tasks', 'records'))}"
            info = await api(client, f"STREAM.INFO.{stream}")
            config = info["config"] | {"max_bytes": max(1, info["state"]["bytes"])}
            await api(client, f"STREAM.UPDATE.{stream}", config)
            await asyncio.sleep(self._rng.choice((0.5, 2.0, 4.0)))
        finally:
            await client.close()
            await self.lift_limits()
            self._goes_on()

    async def _fill_account(self) -> None:
        """Let the account store less than it holds, at times through a server's restart, and let it store again."""
        self._servers.account.storage = FULL
        self._servers.reload()
        try:
            await asyncio.sleep(self._rng.choice((0.5, 3.0, 8.0)))
            if self._rng.random() < 0.25:
                await self._servers.restart(self._server())
        finally:
            self._servers.account.storage = None
            self._servers.reload()
            self._goes_on()
        await self._ready()

    async def lift_limits(self) -> None:
        """Set every limit back, however long that takes."""
        for _ in range(60):
            client = None
            try:
                async with asyncio.timeout(10):
                    client = await self._servers.connect()
                    account = await api(client, "INFO")
                    if account["limits"]["max_storage"] != -1:
                        raise OSError("the account is not free yet")
                    for kind in ("tasks", "records"):
                        stream = f"JF_{self._namespace}_{kind}"
                        info = await api(client, f"STREAM.INFO.{stream}")
                        if info["config"]["max_bytes"] != -1:
                            answer = await api(client, f"STREAM.UPDATE.{stream}", info["config"] | {"max_bytes": -1})
                            if "error" in answer:
                                raise OSError(str(answer["error"]))
                    return
            except (nats.errors.Error, OSError, TimeoutError, KeyError):
                await asyncio.sleep(0.5)
            finally:
                if client is not None:
                    await client.close()
        raise RuntimeError("the limit of a stream could not be set back")
