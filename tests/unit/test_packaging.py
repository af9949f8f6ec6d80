"""What pyproject.toml says of the package, held to what is there."""

from __future__ import annotations

import re
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import pytest

ROOT: Final = Path(__file__).parents[2]
PROJECT: Final[dict[str, Any]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS: Final[dict[str, list[str]]] = PROJECT["optional-dependencies"]


@pytest.mark.parametrize("extra", [extra for extra in EXTRAS if extra != "dev"])
def test_an_extra_brings_only_what_the_code_uses(extra: str) -> None:
    code = "\n".join(module.read_text() for module in (ROOT / "jetflow").rglob("*.py"))
    modules = metadata.packages_distributions()

    for requirement in EXTRAS[extra]:
        distribution = re.split(r"[<>=\[; ]", requirement)[0]
        names = {module for module, owners in modules.items() if distribution in owners}
        asked_for = re.compile(rf'^ *(import|from) ({"|".join(names)})\b|"{distribution}"', re.MULTILINE)
        assert asked_for.search(code), f"jetflow does nothing with {distribution}"


def test_the_licence_that_is_named_is_the_one_that_is_there() -> None:
    assert (PROJECT["license"], PROJECT["license-files"]) == ("Apache-2.0", ["LICENSE"])
    text = (ROOT / "LICENSE").read_text()
    assert text.split()[:4] == ["Apache", "License", "Version", "2.0,"]
    assert "END OF TERMS AND CONDITIONS" in text
