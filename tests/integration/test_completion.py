"""`jetflow --install-completion`: what bash then completes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ASKED = """
source "$HOME/.bashrc"
COMP_WORDS=(jetflow {words})
COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
_jetflow
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here")
def test_bash_completes_commands_and_options(tmp_path: Path) -> None:
    environment = {**os.environ, "HOME": str(tmp_path), "SHELL": "/bin/bash"}
    install = [sys.executable, "-m", "jetflow.cli", "--install-completion"]
    subprocess.run(install, env=environment, check=True, capture_output=True)

    def completed(words: str) -> list[str]:
        script = ASKED.format(words=words)
        done = subprocess.run(["bash", "-c", script], env=environment, check=True, capture_output=True, text=True)
        return done.stdout.split()

    assert completed("tri") == ["trigger"]
    assert completed("trigger --k") == ["--key"]
