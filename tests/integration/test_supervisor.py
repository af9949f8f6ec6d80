"""`jetflow worker`: worker processes below a supervisor that starts those again that die, and passes signals on."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
from pathlib import Path

import jetflow.processes
from tests.endings.stored import until
from tests.integration.commands import Command, Start, one_line, run
from tests.processes import children_of, is_known, lives

SUBREAPER = """
import ctypes, runpy, sys
ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER, as the first process of a container is
sys.argv = ["supervisor", "1", "-1", *sys.argv[1:]]
runpy.run_path({path!r}, run_name="__main__")
"""


async def workers(command: Command, count: int) -> list[int]:
    """Wait until so many workers have started in all, and return their process ids."""
    await command.line(" runs ", times=count)
    return [int(found) for found in re.findall(r"worker \S+-(\d+) runs ", "".join(command.output + command.errors))]


async def is_gone(*pids: int) -> bool:
    return not any(map(lives, pids))


async def test_a_worker_process_that_dies_is_started_again(start: Start) -> None:
    """And the attempt that was lost tells by which signal."""
    async with start("worker", "flows", "--grace", "0", "--ack-wait", "600") as command:
        (first,) = await workers(command, 1)
        run_id = one_line((await run(start, "trigger", "stuck", '"here"')).output)
        await command.line("stuck here")
        os.kill(first, signal.SIGKILL)
        await command.line("was killed by SIGKILL: another one starts at once")
        await command.line("stuck here", times=2)
        shown = json.loads((await run(start, "show", run_id, "--json")).output)
        (lost,) = shown["steps"][0]["failures"]
        assert (lost["attempt"], lost["error"]["type"]) == (1, "WorkerLost")
        assert f"-{first} was killed by SIGKILL while it ran this step" in lost["error"]["message"]
        await run(start, "cancel", run_id)
        command.interrupt()
        assert (await command.ended()).status == 0


async def test_several_worker_processes(start: Start) -> None:
    async with start("worker", "flows", "--processes", "2", "--grace", "0") as command:
        pids = await workers(command, 2)
        assert len(set(pids)) == 2
        assert (await run(start, "trigger", "total-squares", '{"items": [1, 2, 3]}', "--wait")).status == 0
        os.kill(pids[0], signal.SIGKILL)
        pids = await workers(command, 3)
        command.interrupt()
        assert (await command.ended()).status == 0
    await until(lambda: is_gone(*pids))


async def test_each_process_answers_probes_on_a_port_of_its_own(start: Start) -> None:
    """And writes its log as JSON, if that is asked for."""
    with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("127.0.0.1", 0)) as second:
        ports = sorted((first.getsockname()[1], second.getsockname()[1]))
    port = str(ports[0])
    flags = ("--health-port", port, "--processes", "2", "--log-format", "json", "--grace", "0")
    async with start("worker", "flows", *flags) as command:
        for number in (ports[0], ports[0] + 1):
            line = await command.line(f"http://127.0.0.1:{number}")
            assert json.loads(line)["level"] == "info"
        await command.line(" runs ", times=2)
        command.interrupt()
        assert (await command.ended()).status == 0


async def test_the_third_signal_kills(start: Start) -> None:
    async with start("worker", "flows", "--grace", "600") as command:
        (pid,) = await workers(command, 1)
        await run(start, "trigger", "stuck-thread", '"here"')
        await command.line("stuck here")
        os.kill(pid, signal.SIGSTOP)  # it cannot even end in a hurry
        for said in ("the workers stop", "without their grace time", "are killed"):
            command.interrupt()
            await command.line(said)
        assert (await command.ended()).status == 128 + signal.SIGKILL


async def test_a_worker_does_not_outlive_its_supervisor(start: Start) -> None:
    async with start("worker", "flows", "--grace", "0") as command:
        (pid,) = await workers(command, 1)
        command.process.kill()
        await command.process.wait()
        await until(lambda: is_gone(pid))


async def test_processes_below_1_are_refused(start: Start) -> None:
    ended = await run(start, "worker", "flows", "--processes", "0")
    assert (ended.status, ended.errors) == (2, "error: --processes is 0: it must be above 0\n")


async def test_the_first_process_of_a_container_takes_the_ends_of_orphans(start: Start) -> None:
    """Such as that of the guard of a worker that has died."""
    path = str(Path(jetflow.processes.__file__).with_name("supervisor.py"))
    async with start("worker", "flows", "--grace", "0", program=SUBREAPER.format(path=path)) as command:
        (first,) = await workers(command, 1)
        guards = await until(lambda: _started_by(first))
        os.kill(first, signal.SIGKILL)
        await workers(command, 2)
        await until(lambda: _are_taken(*guards))
        command.interrupt()
        assert (await command.ended()).status == 0


async def _are_taken(*pids: int) -> bool:
    """Tell whether processes have ended, and somebody has waited for them."""
    return not any(map(is_known, pids))


async def _started_by(pid: int) -> list[int]:
    return children_of(pid)
