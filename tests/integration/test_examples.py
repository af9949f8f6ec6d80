"""The examples and the README's programs, run as a newcomer runs them.

Workers inherit the standard error of their program, so ``communicate`` returns only when all of them are gone.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from jetflow.server import NatsServer

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
BOUND = 90.0  # seconds
SMALL = "--limit=200"
VERIFIED = "verified: identical to the result of a plain loop in one process, byte for byte"

# What a web server does with an application's lifespan.
OPENED = """
import asyncio


async def open_and_close():
    async with running(app) as state:
        print("opened with", *state)


asyncio.run(open_and_close())
"""


def start(example: str, *arguments: str, server: str = "") -> subprocess.Popen[str]:
    environment = {**os.environ, "NATS_URL": server}
    return subprocess.Popen(
        [sys.executable, str(EXAMPLES / example), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def finish(program: subprocess.Popen[str]) -> tuple[int, list[str], str]:
    try:
        output, errors = program.communicate(timeout=BOUND)
    finally:
        program.kill()  # its workers end with it
    return program.returncode, output.splitlines(), errors


RENDERED = """

async def main() -> None:
    async with jetflow.Worker([render, render_tile]), jetflow.connect() as client:
        print(await (await client.trigger(render, "a scene")).result())


if __name__ == "__main__":
    import asyncio

    import jetflow

    asyncio.run(main())
"""
"""Runs the steps in processes that the README shows."""


def python_blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def wait_for_progress(program: subprocess.Popen[str]) -> None:
    assert program.stdout is not None
    for line in program.stdout:
        if "have ended" in line:
            return


def test_the_programs_of_the_readme_run(nats_server: NatsServer, tmp_path: Path) -> None:
    flows, render, connecting, service = python_blocks(ROOT / "README.md")
    (tmp_path / "flows.py").write_text(flows)
    (tmp_path / "render.py").write_text(render + RENDERED)
    (tmp_path / "connecting.py").write_text(connecting)
    (tmp_path / "service.py").write_text(service + OPENED)

    for program, expected in (
        ("flows.py", "lines of Python in ."),
        ("render.py", "{'a scene': "),
        ("connecting.py", ""),
        ("service.py", "opened with jetflow"),
    ):
        ran = subprocess.run(
            [sys.executable, program],
            check=False,
            cwd=tmp_path,
            env={**os.environ, "NATS_URL": nats_server.url, "APP_PASSWORD": "s3cr3t"},
            capture_output=True,
            text=True,
            timeout=BOUND,
        )

        assert ran.returncode == 0, ran.stderr
        assert expected in ran.stdout


def test_hello_starts_a_server_of_its_own() -> None:
    code, lines, errors = finish(start("01_hello.py"))

    assert (code, lines) == (0, ["Hello, world!"]), errors


def test_hello_uses_the_server_that_is_named(nats_server: NatsServer) -> None:
    code, lines, errors = finish(start("01_hello.py", server=nats_server.url))

    assert (code, lines) == (0, ["Hello, world!"]), errors


def test_index_tree_finds_what_one_process_finds() -> None:
    code, lines, errors = finish(start("02_index_tree.py", SMALL))

    assert code == 0, (lines, errors)
    assert VERIFIED in lines


def test_index_tree_uses_the_server_that_is_named(nats_server: NatsServer) -> None:
    code, lines, errors = finish(start("02_index_tree.py", SMALL, server=nats_server.url))

    assert code == 0, (lines, errors)
    assert VERIFIED in lines


def test_index_tree_tells_which_was_faster() -> None:
    code, lines, errors = finish(start("02_index_tree.py", SMALL))

    assert code == 0, (lines, errors)
    times = re.fullmatch(r"the plain loop took ([\d.]+) s, jetflow ([\d.]+) s on \d+ cores: (.*)", lines[-1])
    assert times, lines[-1]
    plain, took = float(times[1]), float(times[2])
    assert ("times as fast" in times[3]) == (took < plain) or took == plain  # rounded, they may be the same


def test_index_tree_shows_how_far_it_is() -> None:
    code, lines, errors = finish(start("02_index_tree.py", SMALL))

    assert code == 0, (lines, errors)
    assert any("child runs have ended" in line for line in lines)
    assert any("files are indexed by a plain loop" in line for line in lines)


def test_survive_finds_the_same_when_a_worker_is_killed() -> None:
    code, lines, errors = finish(start("03_survive.py", SMALL, "--kills=1"))

    assert code == 0, (lines, errors)
    assert "Traceback" not in errors
    assert "0 outcomes recorded twice" in lines
    assert lines[-1] == "verified: identical to the single-process result, though workers were killed"


def test_ctrl_c_stops_the_program_and_its_workers() -> None:
    program = start("03_survive.py", SMALL)
    wait_for_progress(program)
    program.send_signal(signal.SIGINT)
    code, lines, errors = finish(program)

    assert code == 130, (lines, errors)
    assert lines[-1] == "interrupted: the workers and the server are stopped"


def test_workers_end_when_their_program_and_its_server_are_killed() -> None:
    program = start("03_survive.py", SMALL)
    wait_for_progress(program)
    program.kill()
    code, _, _ = finish(program)

    assert code == -signal.SIGKILL
