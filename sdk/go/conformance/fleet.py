"""Mixed fleets: Python parents with Go children, and the other way round, while workers are killed: ``fleet.py KIT``.

Both kits run in one namespace. Of each fan-out the sum must be right, and each child must have one outcome.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from typing import Any, Final

import msgspec
import nats

import jetflow

TOGETHER: Final = 300.0


class Fleet:
    """The kits that run beside a server."""

    def __init__(self, url: str, commands: dict[str, list[str]]) -> None:
        self._url = url
        self._commands = commands
        self.running: dict[str, list[asyncio.subprocess.Process]] = {name: [] for name in commands}

    async def start(self, name: str) -> None:
        """Start one more worker of a language, and wait until it pulls tasks."""
        settings = {"NATS_URL": self._url, "PREFIX": f"{name}-", "SLOTS": "50", "SWEEP_EVERY": "5"}
        process = await asyncio.create_subprocess_exec(
            *self._commands[name],
            env=os.environ | settings,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        self.running[name].append(process)
        assert process.stdout is not None
        while (line := await process.stdout.readline()).strip() != b"ready":
            if not line:
                raise RuntimeError(f"a worker of {name} did not start")

    async def kill(self, name: str) -> None:
        """Kill the oldest worker of a language by SIGKILL."""
        process = self.running[name].pop(0)
        process.kill()
        await process.wait()

    async def stop(self) -> None:
        """Stop all."""
        everybody = [process for some in self.running.values() for process in some]
        for process in everybody:
            process.send_signal(signal.SIGTERM)
        await asyncio.gather(*(process.wait() for process in everybody))


async def stored(bus: Any, stream: str, subjects: str) -> int:
    """Return how many subjects are stored below a filter."""
    asked = msgspec.json.encode({"subjects_filter": subjects, "offset": 2**31})
    answer = await bus.request(f"$JS.API.STREAM.INFO.JF_default_{stream}", asked, timeout=20)
    return int(msgspec.json.decode(answer.data)["total"])


async def fan_out(fleet: Fleet, client: jetflow.Client, bus: Any, parent: str, child: str, count: int) -> None:
    """Fan out over a child of another language; kill one worker of each language in the middle."""
    given = {"child": f"{child}-square", "inputs": list(range(count))}
    run = await client.trigger(f"{parent}-fan", given)
    outcomes = f"jf.default.run.{run.id}.{run.id}.scatter.*"
    for name, share in ((child, 0.2), (parent, 0.5)):
        while await stored(bus, "records", outcomes) < count * share:
            await asyncio.sleep(0.02)
        await fleet.kill(name)
        await fleet.start(name)
    total = await run.result()
    ended = await stored(bus, "records", outcomes)
    tasks = await stored(bus, "tasks", f"jf.default.task.{child}-square.run.{run.id}.>")
    wanted = sum(number * number for number in range(count))
    print(f"{parent} parent, {child} children: {ended} outcomes, {tasks} tasks, sum {total:.0f}", flush=True)
    if (total, ended, tasks) != (wanted, count, count):
        raise SystemExit(f"{count} outcomes and tasks, and the sum {wanted}, were expected")


async def main() -> None:
    """Run all fan-outs."""
    parser = argparse.ArgumentParser("fleet.py", description=__doc__)
    parser.add_argument("--children", type=int, default=10_000)
    parser.add_argument("kit", help="the kit of the other language")
    given = parser.parse_args()
    commands = {"py": [sys.executable, "-m", "conformance.kit"], "go": [given.kit]}
    async with asyncio.timeout(TOGETHER), jetflow.local_server() as server:
        fleet = Fleet(server.url, commands)
        try:
            for name in ("py", "py", "go", "go"):
                await fleet.start(name)
            bus = await nats.connect(server.url)
            async with jetflow.connect(server.url) as client:
                for parent, child in (("py", "go"), ("go", "py"), ("go", "go")):
                    await fan_out(fleet, client, bus, parent, child, given.children)
            await bus.close()
        finally:
            await fleet.stop()


if __name__ == "__main__":
    asyncio.run(main())
