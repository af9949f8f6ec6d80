"""`jetflow doctor`: whether all is well with a namespace, what it stores, and what that costs."""

from __future__ import annotations

from time import time
from typing import Final

import msgspec
from rich.console import Group
from rich.table import Table
from rich.text import Text

from jetflow.cli import loop
from jetflow.cli.console import printable, stdout
from jetflow.cli.json_text import print_json
from jetflow.cli.options import AsJson
from jetflow.cli.place import Place
from jetflow.runs.query.checks import Check, Diagnosis
from jetflow.runs.storage import Storage

_UNITS: Final = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
_MB: Final = 1_000_000


def doctor(*, as_json: AsJson = False, place: Place = Place()) -> int:  # noqa: B008 - frozen
    """Check the server, its limits and clock, queues, workers and leftovers, and tell what is stored.

    The exit status is 1 if anything is worth a look. What ended long ago is deleted by the workers: see `--keep`,
    `--keep-failed` and `--keep-runs` of `jetflow worker`.

    ```
    jetflow doctor --server nats.example.com
    jetflow doctor --json | jq '.checks[] | select(.state == "look")'
    ```
    """
    found = loop.run(_read(place))
    if as_json:
        told = msgspec.to_builtins(found.storage) | {"checks": msgspec.to_builtins(found.checks)}
        print_json(told)
    else:
        stdout().print(_page_of(found))
    return 0 if found.well else 1


async def _read(place: Place) -> Diagnosis:
    async with place.connect() as client:
        return await client.doctor()


def _page_of(found: Diagnosis) -> Group:
    return Group(*map(_line, found.checks), Text(), _storage_of(found.storage))


def _line(check: Check) -> Text:
    style = {"ok": "green", "look": "bold yellow", "unknown": "dim"}[check.state]
    text = Text.assemble((f"{check.state:<8}", style), f"{check.name:<9}", printable(check.detail))
    return text.append(f" ({check.hint})", "dim") if check.hint else text


def _storage_of(storage: Storage) -> Group:
    table = Table("stream", "messages", "MB", "oldest", box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    now = time()
    for stream in storage.streams:
        age = "" if stream.oldest is None else _told(now - stream.oldest)
        table.add_row(Text(stream.name), f"{stream.messages:,}", f"{stream.bytes / _MB:,.1f}", age)
    cost = (
        f"history: about {storage.memory / _MB:,.0f} MB of the server's memory, and {storage.bytes / _MB:,.0f} MB of "
        "its disk; jetflow worker --keep, --keep-failed and --keep-runs say how much of it stays"
    )
    return Group(table, Text(), Text(cost))


def _told(seconds: float) -> str:
    """Return an age in its largest unit."""
    size, unit = next((one for one in _UNITS if seconds >= one[0]), _UNITS[-1])
    return f"{max(0.0, seconds) / size:.0f} {unit}"
