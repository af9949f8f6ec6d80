"""The nats-servers of a chaos run: one, or a cluster of three on loopback. Each can be killed, stopped and started."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from pathlib import Path
from time import monotonic, time

import msgspec
import nats
import nats.errors
from nats.aio.client import Client

from jetflow.server import NatsServer, ServerOptions
from tests.chaos.account import Account

READY = 60.0
"""Seconds in which a server, or a cluster, must be ready again."""


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


class Server(NatsServer):
    """A server whose configuration can be changed while it runs."""

    def configure(self, config: str) -> None:
        """Set the configuration that it is started with from now on."""
        self.options = msgspec.structs.replace(self.options, config=config)

    def reload(self) -> None:
        """Have it take its configuration while it runs. One that has not started yet would die of it."""
        pid = self.pid
        if pid is not None and self._scratch is not None:
            (self._scratch / "nats-server.conf").write_text(self.options.settings())
            os.kill(pid, signal.SIGHUP)


class Servers:
    """``count`` servers, with their data under ``directory``, and one account for ``workers`` and everybody else."""

    def __init__(self, count: int, directory: Path, workers: int) -> None:
        self.count = count
        self.account = Account(workers)
        self._up: set[int] = set()
        ports = free_ports(count * 2)
        self.ports = ports[:count]
        routes = ports[count:]
        self._clusters: list[str] = []
        self.servers: list[Server] = []
        for number in range(count):
            cluster = ""
            if count > 1:
                others = ", ".join(f'"nats://127.0.0.1:{port}"' for port in routes)
                cluster = (
                    f'server_name: "n{number}"\n'
                    f'cluster {{ name: "chaos", listen: "127.0.0.1:{routes[number]}", no_advertise: true, '
                    f"routes: [{others}] }}\n"
                )
            self._clusters.append(cluster)
            options = ServerOptions(port=self.ports[number], config=self._config(number), start_timeout=30.0)
            self.servers.append(Server(directory / f"n{number}", options))
        self.restarted: list[float] = []
        self.held_up: list[float] = []
        """When something ended that had held up what workers publish, other than the absence of a server."""

    def _config(self, number: int) -> str:
        return self.account.settings() + self._clusters[number]

    @property
    def restarts(self) -> int:
        return len(self.restarted)

    async def start(self) -> None:
        await asyncio.gather(*(server.start() for server in self.servers))
        self._up.update(range(self.count))
        await self.ready()

    async def close(self) -> None:
        for server in self.servers:
            if server.pid is not None:
                os.kill(server.pid, signal.SIGCONT)
        await asyncio.gather(*(server.stop() for server in self.servers), return_exceptions=True)

    async def connect(self) -> Client:
        """Connect past all proxies."""
        return await nats.connect(
            [server.url for server in self.servers if server.pid is not None],
            connect_timeout=2,
            max_reconnect_attempts=-1,
            reconnect_time_wait=0.1,  # pyright: ignore[reportArgumentType] - seconds, a fraction is taken too
            error_cb=_ignore,
        )

    async def ready(self) -> None:
        """Wait until JetStream answers, every stream has a leader, and every replica is current."""
        until = monotonic() + READY
        reason: object = None
        while monotonic() < until:
            try:
                async with asyncio.timeout(10):
                    if (reason := await self._unready()) is None:
                        return
            except (nats.errors.Error, OSError, TimeoutError) as error:
                reason = repr(error)
            await asyncio.sleep(0.1)
        raise RuntimeError(f"the servers are not ready after {READY:g} s: {reason}")

    async def _unready(self) -> object:
        client = await self.connect()
        try:
            info = await api(client, "INFO")
            if "error" in info:
                return info["error"]
            if self.count > 1:  # the meta group must have elected a leader and see all of its peers
                listed = await api(client, "STREAM.LIST")
                if "error" in listed:
                    return listed["error"]
                for stream in listed.get("streams") or []:
                    cluster = stream.get("cluster") or {}
                    if not cluster.get("leader"):
                        return f"stream {stream['config']['name']} has no leader"
                    for replica in cluster.get("replicas") or []:
                        if not replica.get("current") or replica.get("offline"):
                            return f"a replica of {stream['config']['name']} is behind"
        finally:
            await client.close()
        return None

    # --- what faults ask for

    def reload(self) -> None:
        """Have every server take the account as it is now; one that is down takes it when it starts."""
        for number in range(self.count):
            self.servers[number].configure(self._config(number))
            if number in self._up:
                self.servers[number].reload()

    async def kill(self, number: int, pause: float) -> None:
        self._up.discard(number)
        await self.servers[number].kill()
        await asyncio.sleep(pause)
        await self._start(number)

    async def restart(self, number: int, pause: float = 0.0) -> None:
        self._up.discard(number)
        await self.servers[number].stop()
        await asyncio.sleep(pause)
        await self._start(number)

    async def roll(self) -> None:
        """Restart one after the other, each when the one before is back."""
        for number in range(self.count):
            await self.restart(number)
            await self.ready()

    async def stop_all(self, pause: float, *, kill: bool) -> None:
        self._up.clear()
        await asyncio.gather(*(server.kill() if kill else server.stop() for server in self.servers))
        await asyncio.sleep(pause)
        await asyncio.gather(*(self._start(number) for number in range(self.count)))

    async def freeze(self, number: int, pause: float) -> None:
        pid = self.servers[number].pid
        if pid is not None:
            os.kill(pid, signal.SIGSTOP)
            try:
                await asyncio.sleep(pause)
            finally:
                os.kill(pid, signal.SIGCONT)

    async def _start(self, number: int) -> None:
        self.restarted.append(time())
        await self._run(number)

    async def _run(self, number: int) -> None:
        server = self.servers[number]
        before = server.options
        await server.start()
        self._up.add(number)
        if server.options is not before:  # it was reloaded meanwhile
            server.reload()

    async def ensure_up(self) -> None:
        """Start whatever a broken-off fault has left down."""
        for number in range(self.count):
            await self._run(number)
        await self.ready()


async def api(client: Client, operation: str, body: object = None, *, timeout: float = 5.0) -> dict:
    """Ask the JetStream API; an error stands in the answer."""
    message = await client.request(
        f"$JS.API.{operation}", b"" if body is None else json.dumps(body).encode(), timeout=timeout
    )
    return json.loads(message.data)


async def _ignore(_: Exception) -> None:
    """Broken connections are what this is about."""
