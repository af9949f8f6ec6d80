"""`jetflow config`: each setting, its value, and where that is from."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import Parameter
from rich.table import Table
from rich.text import Text

from jetflow.broker.addresses import shown
from jetflow.cli.console import stdout
from jetflow.cli.json_text import print_json
from jetflow.cli.options import FLAG, AsJson, WorkerFlags
from jetflow.cli.place import Place
from jetflow.settings import SETTINGS, Found, Setting, settings_of

MASK = "***"


def config(
    *,
    all: Annotated[bool, FLAG, Parameter(help="Also the settings that nothing is said of.")] = False,
    as_json: AsJson = False,
    place: Place = Place(),  # noqa: B008 - frozen
    flags: WorkerFlags = WorkerFlags(),  # noqa: B008 - frozen
) -> int:
    """Print each setting, and where its value is from. Secrets are masked.

    An argument counts first, then a variable of the environment, then jetflow.toml or [tool.jetflow] in pyproject.toml
    in this directory or the nearest above it, then the default.

    ```
    jetflow config --slots 20
    ```
    """
    found = settings_of(place.given() | flags.given())
    if as_json:
        print_json(
            [
                {
                    "name": setting.name,
                    "value": _masked(setting, found.get(setting.name)),
                    "from": found[setting.name].origin if setting.name in found else None,
                    "variable": setting.variable,
                    "about": setting.about,
                }
                for setting in SETTINGS
            ]
        )
        return 0
    table = Table("setting", "value", "from", "variable", box=None, pad_edge=False)
    for setting in SETTINGS:
        if setting.name in found or all:
            origin = found[setting.name].origin if setting.name in found else ""
            value = _masked(setting, found.get(setting.name))
            table.add_row(*map(Text, (setting.name, "" if value is None else str(value), origin, setting.variable)))
    stdout().print(table)
    return 0


def _masked(setting: Setting, found: Found | None) -> Any:
    """Return a value as it may be shown: of a URL what is no user info, of a seed nothing."""
    if found is None:
        return None
    if setting.name == "server":
        return shown(url.strip() for url in str(found.value).split(","))
    is_seed = setting.name == "nkey" and str(found.value).startswith("SU")
    return MASK if setting.secret or is_seed else found.value
