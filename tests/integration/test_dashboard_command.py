"""The dashboard as commands serve it: to whom, where, and beside `jetflow dev`."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path

import httpx
import pytest

from jetflow.server import NatsServer
from tests.integration.commands import Command, Start, one_line, run, working

WITHOUT_UVICORN = """
import sys
sys.modules["uvicorn"] = None
from jetflow.cli import main
sys.exit(main())
"""
TOKEN = "a-token-of-some-length"


async def link_of(command: Command) -> str:
    return (await command.line("dashboard ")).strip().removeprefix("dashboard ")


async def test_it_serves_this_machine_until_it_is_told_to_end(start: Start, namespace: str) -> None:
    async with working(start), start("dashboard", "--port", "0") as command, httpx.AsyncClient(timeout=20) as http:
        link = await link_of(command)
        meta = (await http.get(f"{link}/api/v1/meta")).json()
        assert (meta["namespace"], len(meta["access"]["actions"])) == (namespace, 7)
        page = await http.get(f"{link}/runs", headers={"Accept": "text/html"})
        assert '<base href="/">' in page.text
        for host in ("evil.example", "0.0.0.0:80"):
            told = (await http.get(f"{link}/api/v1/meta", headers={"Host": host})).json()
            assert told["type"] == "urn:jetflow:unknown-host"
        async with http.stream("GET", f"{link}/api/v1/live", params={"topic": "queues"}) as stream:
            assert await anext(stream.aiter_lines()) == "retry: 2000"
            command.interrupt()
            ended = await command.ended()
    assert (ended.status, ended.errors) == (0, "")


async def test_it_may_be_read_only_and_without_values(start: Start) -> None:
    async with (
        working(start),
        start("dashboard", "--port", "0", "--read-only", "--no-payloads", "--json") as command,
        httpx.AsyncClient(timeout=20) as http,
    ):
        link = json.loads(await command.line("dashboard"))["dashboard"]
        access = (await http.get(f"{link}/api/v1/meta")).json()["access"]
        assert access == {"user": "", "actions": [], "payloads": False}


async def test_who_knows_the_token_is_let_in(start: Start) -> None:
    arguments = ("dashboard", "--host", "0.0.0.0", "--port", "0", "--token", "--allow-host", "127.0.0.1")
    environment = {"JETFLOW_DASHBOARD_TOKEN": TOKEN}
    async with (
        working(start),
        start(*arguments, environment=environment) as command,
        httpx.AsyncClient(timeout=20) as http,
    ):
        link = (await link_of(command)).replace("0.0.0.0", "127.0.0.1")
        assert (await http.get(f"{link}/api/v1/meta")).json()["location"] == "/login"
        page = await http.get(f"{link}/runs", headers={"Accept": "text/html"})
        assert (page.status_code, page.headers["location"]) == (303, "/login")
        assert 'action="/login"' in (await http.get(f"{link}/login")).text
        wrong = await http.post(f"{link}/login", data={"token": "guess"})
        assert (wrong.status_code, wrong.cookies) == (401, httpx.Cookies())
        right = await http.post(f"{link}/login", data={"token": TOKEN})
        assert (right.status_code, right.headers["location"]) == (303, "/")
        said = right.headers["set-cookie"].lower()
        assert "httponly" in said
        assert "samesite=strict" in said
        assert TOKEN not in said
        assert (await http.get(f"{link}/api/v1/meta")).status_code == 200
        http.cookies.clear()
        for token, status in ((TOKEN, 200), ("guess", 401)):
            answer = await http.get(f"{link}/api/v1/meta", headers={"Authorization": f"Bearer {token}"})
            assert answer.status_code == status
        assert TOKEN not in "".join(command.output + command.errors)


async def test_a_new_token_is_printed_once(start: Start) -> None:
    async with working(start), start("dashboard", "--port", "0", "--token") as command:
        found = re.fullmatch(r"http://127\.0\.0\.1:(\d+) \(token (\S{32})\)", await link_of(command))
        assert found is not None
        async with httpx.AsyncClient(timeout=20) as http:
            headers = {"Authorization": f"Bearer {found[2]}"}
            assert (await http.get(f"http://127.0.0.1:{found[1]}/api/v1/meta", headers=headers)).status_code == 200


@pytest.mark.parametrize(
    ("arguments", "environment", "said"),
    [
        (["--host", "0.0.0.0"], {}, "give --token, or --insecure"),
        (["--port", "70000"], {}, "from 0 to 65535"),
        (["--token"], {"JETFLOW_DASHBOARD_TOKEN": "short"}, "16 or more"),
        (["--host", "192.0.2.1", "--insecure", "--port", "0"], {}, "cannot listen on 192.0.2.1"),
    ],
)
async def test_what_cannot_be_served(
    start: Start, arguments: list[str], environment: dict[str, str], said: str
) -> None:
    ended = await run(start, "dashboard", *arguments, environment=environment)
    assert (ended.status, ended.output) == (2, "")
    assert said in one_line(ended.errors)


async def test_a_port_that_is_taken_is_said(start: Start) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ended = await run(start, "dashboard", "--port", str(taken.getsockname()[1]))
    assert (ended.status, "another --port" in one_line(ended.errors)) == (2, True)


async def test_without_its_packages_it_says_which_extra_has_them(start: Start, nats_server: NatsServer) -> None:
    ended = await run(start, "dashboard", program=WITHOUT_UVICORN)
    assert (ended.status, one_line(ended.errors)) == (
        1,
        'error: the dashboard needs uvicorn, which is not installed: pip install "jetflow-nats[ui]"',
    )
    async with start("dev", "flows", program=WITHOUT_UVICORN) as dev:
        await dev.line("the dashboard needs uvicorn")
        await dev.line(" runs ")
        dev.interrupt()
        assert (await dev.ended()).status == 0


async def test_dev_serves_it_and_others_print_its_links(start: Start, tmp_path: Path) -> None:
    async with (
        start("dev", "flows", "--port", "0", "--dashboard-port", "0", server=None) as dev,
        httpx.AsyncClient(timeout=20) as http,
    ):
        link = await link_of(dev)
        await dev.line(" runs ")
        triggered = await run(start, "trigger", "square", "4", server=None)
        page = f"{link}/runs/{one_line(triggered.output)}"
        assert one_line(triggered.errors) == page
        opened = await run(start, "open", one_line(triggered.output), "--print", server=None)
        assert one_line(opened.output) == page
        assert (await http.get(f"{link}/api/v1/{page.removeprefix(link + '/')}")).json()["run"]["workflow"] == "square"
        dev.interrupt()
        assert (await dev.ended()).status == 0
    async with start("dev", "flows", "--port", "0", "--no-dashboard", server=None) as dev:
        await dev.line(" runs ")
        assert [line for line in dev.output if "dashboard" in line] == []
        dev.interrupt()
        assert (await dev.ended()).status == 0
