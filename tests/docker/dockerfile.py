"""The stages of a Dockerfile, and its steps run in a plain folder: what an image would hold, without an engine.

Only what ``docker/Dockerfile`` uses is understood. Absolute places of the image are places below the folder. Users are
not made, and nothing is run as another.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

PLACES = ("/src", "/wheels", "/opt/jetflow", "/app")
"""The places of the image that its steps name."""


class Step(NamedTuple):
    instruction: str
    rest: str


class Stage(NamedTuple):
    """One stage: what it is built on, and its steps."""

    name: str
    base: str
    steps: list[Step]

    def last(self, instruction: str) -> str:
        """Return what the last instruction of a kind says."""
        return next(step.rest for step in reversed(self.steps) if step.instruction == instruction)

    def exec_form(self, instruction: str) -> list[str]:
        """Return a command in its exec form."""
        rest = self.last(instruction)
        found: Any = json.loads(rest[rest.index("[") :])
        return list(found)


def stages_of(file: Path) -> dict[str, Stage]:
    text = re.sub(r"^\s*#.*\n", "", file.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    stages: dict[str, Stage] = {}
    stage: Stage | None = None
    for line in filter(None, map(str.strip, text.splitlines())):
        instruction, _, rest = line.partition(" ")
        if instruction == "FROM":
            base, _, name = rest.partition(" AS ")
            stage = stages[name] = Stage(name, base, [])
        elif stage is not None:
            stage.steps.append(Step(instruction, rest.strip()))
    return stages


class Folder:
    """A folder in which stages are built, from the files of a context."""

    def __init__(self, root: Path, context: Path, python: str) -> None:
        self._root = root
        self._context = context
        self._python = python
        self.environment: dict[str, str] = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PYTHON", "VIRTUAL_ENV", "NATS_", "JETFLOW_"))
        }

    def here(self, text: str) -> str:
        """Return text of the image with its places as they are here."""
        for place in PLACES:
            text = re.sub(rf"(?<![\w.]){re.escape(place)}(?![\w-])", str(self._root / place[1:]), text)
        return text

    def build(self, stages: dict[str, Stage], *names: str) -> None:
        for name in names:
            self._build(stages[name])

    def _build(self, stage: Stage) -> None:
        work = self._root
        for step in stage.steps:
            match step.instruction:
                case "WORKDIR":
                    work = Path(self.here(step.rest))
                    work.mkdir(parents=True, exist_ok=True)
                case "ENV":
                    for pair in shlex.split(step.rest):
                        variable, _, value = pair.partition("=")
                        self.environment[variable] = self.here(value).replace("$PATH", self.environment.get("PATH", ""))
                case "COPY" if not step.rest.startswith("--from"):
                    *sources, target = step.rest.split()
                    for source in sources:
                        self._copy(self._context / source, Path(os.path.normpath(work / self.here(target))), target)
                case "RUN" if "useradd" not in step.rest:
                    command = self.here(step.rest).replace("python -m venv", f"{self._python} -m venv")
                    done = subprocess.run(
                        ["sh", "-euc", command],
                        cwd=work,
                        env=self.environment,
                        capture_output=True,
                        text=True,
                        check=False,
                    )
                    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
                case _:
                    pass

    @staticmethod
    def _copy(source: Path, place: Path, target: str) -> None:
        if source.is_dir():
            shutil.copytree(source, place, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
            return
        into = place if target.endswith("/") or place.is_dir() else place.parent
        into.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, into / source.name)
