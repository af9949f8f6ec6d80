"""Walks the newcomer's path of README.md as it stands there: ``path.py`` makes its files, runs its commands, and looks."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

SDK: Final = Path(__file__).parents[1]
BIN: Final = Path(sys.executable).parent
PATIENCE: Final = 60.0


def blocks(text: str, language: str) -> list[str]:
    """Return the code blocks of a language, in their order."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def wait_for(process: subprocess.Popen[str], log: Path, word: str) -> str:
    """Wait until a process has written a word, and return all that it wrote."""
    until = time.monotonic() + PATIENCE
    while word not in (said := log.read_text()):
        if process.poll() is not None or time.monotonic() > until:
            raise SystemExit(f"{process.args} did not say {word!r}:\n{said}")
        time.sleep(0.05)
    return said


def main() -> None:
    """Walk the path."""
    text = (SDK / "README.md").read_text()
    with tempfile.TemporaryDirectory(prefix="jetflow-path-") as scratch:
        here = Path(scratch)
        files = {"go/main.go": blocks(text, "go")[0], "parent.py": blocks(text, "python")[0]}
        for name, body in files.items():
            (here / name).parent.mkdir(exist_ok=True)
            (here / name).write_text(body)
        env = os.environ | {"JETFLOW": str(SDK.parents[1]), "PATH": f"{BIN}:{os.environ['PATH']}"}
        env.pop("NATS_URL", None)
        dev, trigger = (block.strip() for block in blocks(text, "bash"))
        *build, run = blocks(text, "sh")[0].strip().splitlines()
        started: list[subprocess.Popen[str]] = []

        def start(command: str, where: Path, word: str, **more: str) -> str:
            log = here / f"{len(started)}.log"
            with log.open("w") as out:
                process = subprocess.Popen(
                    ["/bin/sh", "-c", f"exec {command}"],
                    cwd=where,
                    env=env | more,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    stdin=subprocess.DEVNULL,
                    text=True,
                )
            started.append(process)
            return wait_for(process, log, word)

        try:
            said = start(dev.replace("4222", "0"), here, "NATS_URL=")  # the port may be in use here
            url = re.search(r"NATS_URL=(\S+)", said)[1]  # pyright: ignore[reportOptionalSubscript]
            subprocess.run(["/bin/sh", "-ec", "\n".join(build)], cwd=here / "go", env=env, check=True)
            start(run, here / "go", "ready", NATS_URL=url)
            found = subprocess.run(
                ["/bin/sh", "-c", trigger],
                cwd=here,
                env=env,
                check=True,
                timeout=PATIENCE,
                stdout=subprocess.PIPE,
                text=True,
            ).stdout
        finally:
            for process in reversed(started):
                process.send_signal(signal.SIGTERM)
                process.wait()
    if found.strip() != "14":
        raise SystemExit(f"{trigger} printed {found!r}")
    print("the newcomer's path ends with 14")


if __name__ == "__main__":
    main()
