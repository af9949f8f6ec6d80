"""`jetflow doctor`: what a namespace stores, and what that costs."""

from __future__ import annotations

from time import time
from typing import Final

import msgspec
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from jetflow.broker.layout import Difference
from jetflow.cli import loop
from jetflow.cli.json_text import print_json
from jetflow.cli.options import AsJson
from jetflow.cli.place import Place
from jetflow.runs.storage import Storage

_UNITS: Final = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
_MB: Final = 1_000_000


def doctor(*, as_json: AsJson = False, place: Place = Place()) -> int:  # noqa: B008 - frozen
    """Tell what is stored, by stream, what history costs the server, and whether the streams are as they have to be.

    What ended long ago is deleted by the workers: see `--keep`, `--keep-failed` and `--keep-runs` of `jetflow worker`.

    ```
    jetflow doctor --server nats.example.com
    ```
    """
    storage, drift = loop.run(_read(place))
    if as_json:
        print_json(msgspec.to_builtins(storage) | {"drift": msgspec.to_builtins(drift)})
        return 0
    Console(highlight=False).print(_page_of(storage, drift))
    return 0


async def _read(place: Place) -> tuple[Storage, list[Difference]]:
    async with place.connect() as client:
        return await client.storage(), await client.drift()


def _page_of(storage: Storage, drift: list[Difference]) -> Group:
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
    return Group(table, Text(), Text(cost), Text(), *map(Text, _told_of(drift)))


def _told_of(drift: list[Difference]) -> list[str]:
    if not drift:
        return ["every stream is as it has to be"]
    return [*(change.told for change in drift), "`jetflow setup` mends what the server lets it change"]


def _told(seconds: float) -> str:
    """Return an age in its largest unit."""
    size, unit = next((one for one in _UNITS if seconds >= one[0]), _UNITS[-1])
    return f"{max(0.0, seconds) / size:.0f} {unit}"
