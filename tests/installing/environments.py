"""Fresh environments, and the distributions that are installed into them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
PROJECT: Final = ROOT / "pyproject.toml"
VERSIONS: Final = ("3.11", "3.12", "3.13", "3.14")


class Environment:
    """A virtual environment, with what was installed into it by pip from the versions of requirements.lock."""

    def __init__(self, place: Path, *requirements: str, python: str = sys.executable) -> None:
        self.place = place
        run(python, "-m", "venv", str(place))
        self.run(
            "python",
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-compile",
            "-c",
            str(ROOT / "requirements.lock"),
            *requirements,
        )

    def run(self, program: str, *arguments: str, **options: str | Path) -> str:
        return run(str(self.place / "bin" / program), *arguments, **options)

    def python(self, code: str) -> str:
        return self.run("python", "-c", code, cwd=self.place)


def run(*command: str, cwd: str | Path | None = None, **environment: str | Path) -> str:
    """Run a program that has to end well, without what the environment says of jetflow or of the tests' Python."""
    clean = {
        name: value for name, value in os.environ.items() if not re.match("PYTHON|VIRTUAL_ENV|JETFLOW_|NATS_", name)
    }
    given = {name: str(value) for name, value in environment.items()}
    done = subprocess.run(command, cwd=cwd, env=clean | given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout


@cache
def interpreter(version: str) -> str | None:
    """Return a Python of this version, if there is one here: that of the tests, of PATH, or of pyenv."""
    found = [sys.executable, shutil.which(f"python{version}")]
    found += [str(one) for one in sorted(Path("~/.pyenv/versions").expanduser().glob(f"{version}.*/bin/python"))]
    asks = "import sys, venv, ensurepip; print('{}.{}'.format(*sys.version_info))"
    for python in filter(None, found):
        asked = subprocess.run([python, "-c", asks], capture_output=True, text=True, check=False)
        if asked.stdout.strip() == version:
            return python
    return None
