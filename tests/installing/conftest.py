"""The wheel and the sdist that are tested: built once, from a copy of what git would take."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.installing.environments import ROOT, Environment


@pytest.fixture(scope="session")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that holds one wheel and one sdist."""
    root = tmp_path_factory.mktemp("build")
    source = root / "source"
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(listed, cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    builder = Environment(root / "builder", "hatchling")
    builder.run("hatchling", "build", "-d", str(root / "dist"), cwd=source)
    return root / "dist"


@pytest.fixture(scope="session")
def wheel(distributions: Path) -> Path:
    [found] = distributions.glob("*.whl")
    return found


@pytest.fixture(scope="session")
def sdist(distributions: Path) -> Path:
    [found] = distributions.glob("*.tar.gz")
    return found
