"""`jetflow new`: a small project to begin with, which passes its own tests."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Final

from cyclopts import Parameter

from jetflow.cli.options import UsageError
from jetflow.engine.identity import check_name
from jetflow.errors import InvalidName

FILES: Final = {
    "flows.py.txt": "flows.py",
    "tests.test_flows.py.txt": "tests/test_flows.py",
    "pyproject.toml.txt": "pyproject.toml",
    "Makefile.txt": "Makefile",
    "Dockerfile.txt": "Dockerfile",
    "README.md.txt": "README.md",
    ".gitignore.txt": ".gitignore",
    ".dockerignore.txt": ".dockerignore",
}
"""What a project consists of: the name of each template, and of the file that it becomes."""


def new(
    directory: Annotated[Path, Parameter(help="Where to; its name is that of the project and its namespace.")],
) -> int:
    """Write a small project: workflows, tests, Makefile and Dockerfile.

    ```
    jetflow new demo
    cd demo
    make test
    ```
    """
    name = directory.absolute().name
    try:
        check_name("project", name)
    except InvalidName as error:
        raise UsageError(str(error)) from None
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise UsageError(f"{str(directory)!r} exists, and is not empty: name another directory")
    for file, text in _texts(name):
        place = directory / file
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    print(f"{directory} is ready: cd {directory}, make test, make dev")
    return 0


def _texts(name: str) -> Iterator[tuple[str, str]]:
    templates = resources.files("jetflow.cli") / "new_project"
    for template, file in FILES.items():
        text = (templates / template).read_text("utf-8")
        yield file, text.replace("PROJECT", name).replace("VERSION", version("jetflow-nats"))
