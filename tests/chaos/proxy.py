"""A TCP proxy between one worker and the servers, that can cut, refuse and hold back what passes."""

from __future__ import annotations

import asyncio


class _Side(asyncio.Protocol):
    """One side of a connection. What arrives here leaves at the other."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.transport: asyncio.Transport | None = None
        self.other: _Side | None = None
        self.unsent: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self.transport = transport  # type: ignore[assignment]
        self.link.sides.add(self)
        if self.unsent:
            self.transport.write(b"".join(self.unsent))  # type: ignore[union-attr]
            self.unsent.clear()

    def data_received(self, data: bytes) -> None:
        if self.other is None:
            return
        if self.link.held:
            self.link.kept.append((self.other, data))
        else:
            self.other.send(data)

    def send(self, data: bytes) -> None:
        if self.transport is None:
            self.unsent.append(data)
        elif not self.transport.is_closing():
            self.transport.write(data)

    def pause_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self.link.sides.discard(self)
        if self.other is not None and self.other.transport is not None:
            self.other.transport.abort()


class _Front(_Side):
    """The worker's side: opens the way to the server."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert self.transport is not None
        if self.link.refusing:
            self.transport.abort()
            return
        back = _Side(self.link)
        self.other, back.other = back, self
        self.link.open(self, back)


class Link:
    """Listens on a port of its own, for one worker, and forwards to one server."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._server: asyncio.Server | None = None
        self._opening: set[asyncio.Task[None]] = set()
        self.port = 0
        self.sides: set[_Side] = set()
        self.refusing = False
        self.held = False
        self.kept: list[tuple[_Side, bytes]] = []

    async def start(self) -> None:
        self._server = await asyncio.get_running_loop().create_server(lambda: _Front(self), "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def open(self, front: _Side, back: _Side) -> None:
        async def dial() -> None:
            try:
                await asyncio.get_running_loop().create_connection(lambda: back, "127.0.0.1", self._target)
            except OSError:
                if front.transport is not None:
                    front.transport.abort()

        task = asyncio.get_running_loop().create_task(dial())
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    def cut(self) -> None:
        """Break every connection; what was held back never arrives."""
        self.kept.clear()
        for side in list(self.sides):
            if side.transport is not None:
                side.transport.abort()

    def hold(self) -> None:
        """Hold back what passes, in both directions."""
        self.held = True

    def release(self) -> None:
        """Let what was held back go on."""
        self.held = False
        kept, self.kept = self.kept, []
        for side, data in kept:
            side.send(data)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        self.refusing = True
        self.cut()
        for task in list(self._opening):
            task.cancel()


class Proxy:
    """One worker's way to all servers."""

    def __init__(self, ports: list[int], user: str, password: str) -> None:
        self._user = f"{user}:{password}"
        self.links = [Link(port) for port in ports]

    async def start(self) -> None:
        for link in self.links:
            await link.start()

    @property
    def urls(self) -> list[str]:
        return [f"nats://{self._user}@127.0.0.1:{link.port}" for link in self.links]

    def cut(self) -> None:
        for link in self.links:
            link.cut()

    async def refuse(self, seconds: float) -> None:
        """Cut, and let nothing new through for a while."""
        for link in self.links:
            link.refusing = True
            link.cut()
        try:
            await asyncio.sleep(seconds)
        finally:
            for link in self.links:
                link.refusing = False

    async def stall(self, seconds: float, *, then_cut: bool) -> None:
        """Hold back everything for a while; then let it go on, or lose it with the connection."""
        for link in self.links:
            link.hold()
        try:
            await asyncio.sleep(seconds)
        finally:
            if then_cut:
                self.cut()
            for link in self.links:
                link.release()

    async def close(self) -> None:
        for link in self.links:
            await link.close()
