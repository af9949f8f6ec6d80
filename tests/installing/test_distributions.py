"""What is released: a wheel and an sdist that install, each extra alone, and a program that starts soon."""

from __future__ import annotations

import json
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any, Final

import pytest

from tests.installing.environments import PROJECT, ROOT, VERSIONS, Environment, interpreter, run

METADATA: Final[dict[str, Any]] = tomllib.loads(PROJECT.read_text())["project"]
EXTRAS: Final = [extra for extra in METADATA["optional-dependencies"] if extra != "dev"]

USES: Final = {
    "server": "from jetflow.server import find_server; print(find_server())",
    "cli": "import jetflow.cli.application",
    "nkeys": "import nkeys",
    "ui": "import jetflow.dashboard",
    "otel": "import opentelemetry.trace",
    "prometheus": "import prometheus_client",
    "django": "import django",
    "testing": "import jetflow.testing",
}
"""A line of Python for each extra, which needs what it brings."""

IMPORT_SECONDS: Final = 0.25

HELLO: Final = """
import asyncio
from jetflow import workflow

@workflow("hello")
async def hello(name: str) -> str:
    return f"hello {name}"

print(asyncio.run(hello("you")))
"""


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.partition("/")[0] for name in names} == {"jetflow", f"jetflow_nats-{METADATA['version']}.dist-info"}
    assert "jetflow/py.typed" in names
    of_code = {str(file.relative_to(ROOT)) for file in (ROOT / "jetflow").rglob("*.py")}
    assert of_code <= set(names)
    assert {name for name in names if "new_project/" in name} == {
        str(file.relative_to(ROOT)) for file in (ROOT / "jetflow" / "cli" / "new_project").iterdir()
    }
    assert not any(name.endswith((".pyc", ".so")) for name in names)


def test_the_sdist_makes_the_same_wheel(wheel: Path, sdist: Path, tmp_path: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"LICENSE", "README.md", "CHANGELOG.md", "pyproject.toml", "jetflow/py.typed"} <= names
    builder = Environment(tmp_path / "env", "hatchling")
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path / "dist"))
    builder.run("python", "-m", "pip", "wheel", *options, str(sdist))
    [again] = (tmp_path / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as one, zipfile.ZipFile(again) as other:
        assert {entry.filename: entry.CRC for entry in one.infolist()} == {
            entry.filename: entry.CRC for entry in other.infolist()
        }


@pytest.mark.parametrize("version", VERSIONS)
def test_it_installs_on_each_python_that_is_named(version: str, wheel: Path, tmp_path: Path) -> None:
    assert f"Programming Language :: Python :: {version}" in METADATA["classifiers"]
    python = interpreter(version)
    if python is None:
        pytest.skip(f"there is no Python {version} on this machine")
    environment = Environment(tmp_path / "env", str(wheel), python=python)
    assert environment.python(HELLO) == "hello you\n"
    environment.run("python", "-m", "pip", "check")


@pytest.mark.parametrize("extra", EXTRAS)
def test_each_extra_works_alone(extra: str, wheel: Path, tmp_path: Path) -> None:
    environment = Environment(tmp_path / "env", f"{wheel}[{extra}]")
    environment.python(f"import jetflow\n{USES[extra]}")
    environment.run("python", "-m", "pip", "check")


def test_the_bare_package_says_what_its_command_needs(wheel: Path, tmp_path: Path) -> None:
    environment = Environment(tmp_path / "env", str(wheel))
    told = environment.python(
        "import subprocess, sys; print(subprocess.run([sys.executable, '-m', 'jetflow.cli'], "
        "capture_output=True, text=True).stderr)"
    )
    assert "run `pip install 'jetflow-nats[cli]'`" in told


def test_importing_it_loads_no_command_line_and_no_pages() -> None:
    """Nor any extra, nor what only tests and tools need: a program of many starts as soon as it can."""
    heavy = {
        *("jetflow.cli", "jetflow.dashboard", "jetflow.testing"),
        *("cyclopts", "rich", "watchfiles", "starlette", "uvicorn", "jsonschema", "pydantic", "django", "pytest"),
        *("opentelemetry", "prometheus_client", "nkeys", "structlog", "yaml"),
        *("unittest", "tkinter", "sqlite3", "distutils", "setuptools"),
    }
    code = f"import sys; before = set(sys.modules); import jetflow; print(*{heavy!r} & (set(sys.modules) - before))"
    assert run(sys.executable, "-c", code).split() == []


def test_importing_it_takes_less_than_a_quarter_of_a_second(tmp_path: Path) -> None:
    """Of the processor's time, the best of five, from bytecode: what else runs here is not its own."""
    code = "import time; began = time.process_time(); import jetflow; print(time.process_time() - began)"
    took = [float(run(sys.executable, "-c", code, PYTHONPYCACHEPREFIX=tmp_path)) for _ in range(1 + 5)]
    assert min(took[1:]) < IMPORT_SECONDS, took


def test_a_new_project_passes_its_own_tests(wheel: Path, tmp_path: Path) -> None:
    """In a fresh environment, with nothing but the wheel."""
    environment = Environment(tmp_path / "env", f"{wheel}[cli]")
    assert environment.run("jetflow", "--version") == f"jetflow {METADATA['version']}\n"
    environment.run("jetflow", "new", "demo", cwd=tmp_path)
    demo = tmp_path / "demo"
    python = environment.place / "bin" / "python"
    passed = run("make", "test", f"PYTHON={python}", cwd=demo, PIP_FIND_LINKS=wheel.parent)
    assert "2 passed" in passed
    shown = run(str(demo / ".venv" / "bin" / "jetflow"), "config", "--json", cwd=demo)
    found = {one["name"]: (one["value"], one["from"]) for one in json.loads(shown)}
    assert found["namespace"] == ("demo", str(demo / "pyproject.toml"))
