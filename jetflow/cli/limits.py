"""`jetflow limits`: how many runs of a key at once, who is admitted, who waits; and changing it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec
from cyclopts import App, Parameter
from rich.console import Group, RenderableType
from rich.text import Text

from jetflow.cli.console import print_rows, stdout
from jetflow.cli.json_text import print_json
from jetflow.cli.options import AsJson
from jetflow.cli.place import Place
from jetflow.cli.tables import clock, table_of
from jetflow.client import Client
from jetflow.runs.rate_rows import RateRow
from jetflow.runs.standing import LimitRow, StandingRow

KEYS_SHOWN = 20
"""Keys of a limit that are shown: those at which most stand."""

limits: App = App(
    name="limits",
    help="""Show limits, who waits for them, and change how many runs they admit.

```
jetflow limits
jetflow limits rates
jetflow limits show tenant --key acme
jetflow limits set tenant 10 --key acme
jetflow limits reset tenant --key acme
```
""",
)

Name = Annotated[str, Parameter(help="The limit's name.")]
Key = Annotated[str | None, Parameter(help="Only this key.")]


@limits.default
def list_limits(*, as_json: AsJson = False, place: Place = Place()) -> int:  # noqa: B008 - frozen
    """Show all limits: how many runs of a key they admit, how many are admitted, and how many wait."""

    async def ask(client: Client) -> tuple[list[LimitRow], list[RateRow]]:
        return await client.limits.list(), [] if as_json else await client.limits.rates()

    rows, of_rates = place.ask(ask)
    if as_json:
        print_rows(rows)
    else:
        stdout().print(Group(limits_of(rows), *((Text(), rates_of(of_rates)) if of_rates else ())))
    return 0


@limits.command
def rates(*, as_json: AsJson = False, place: Place = Place()) -> int:  # noqa: B008 - frozen
    """Show all rate limits, what of their keys was taken of late, and when a run would begin that came now."""
    rows = place.ask(lambda client: client.limits.rates())
    if as_json:
        print_rows(rows)
    else:
        stdout().print(Group(rates_of(rows), *(Group(Text(), _keys_of_rate(row)) for row in rows if row.keys)))
    return 0


@limits.command
def show(name: Name, /, *, key: Key = None, as_json: AsJson = False, place: Place = Place()) -> int:  # noqa: B008
    """Show one limit with its keys; or who stands at one key, in their order."""

    async def ask(client: Client) -> tuple[LimitRow, list[StandingRow]]:
        row = await client.limits.get(name)
        has_no_keys = [one.key for one in row.keys] == [None]
        return row, await client.limits.standing(name, key) if key is not None or has_no_keys else []

    row, standing = place.ask(ask)
    if as_json:
        print_json(msgspec.to_builtins(row) | {"standing": msgspec.to_builtins(standing)})
    else:
        stdout().print(Group(limits_of([row]), Text(), _standing_of(standing) if standing else _keys_of(row)))
    return 0


@limits.command(name="set")
def change(
    name: Name,
    max: Annotated[int, Parameter(help="How many runs of a key at once.")],
    /,
    *,
    key: Key = None,
    as_json: AsJson = False,
    place: Place = Place(),  # noqa: B008 - frozen
) -> int:
    """Admit at most so many runs of a key at once, of all keys or of one, whatever is declared. It counts at once."""
    return _told(place.ask(lambda client: client.limits.set(name, max, key=key)), as_json=as_json)


@limits.command
def reset(name: Name, /, *, key: Key = None, as_json: AsJson = False, place: Place = Place()) -> int:  # noqa: B008
    """Have what is declared count again, for all keys or for one."""
    return _told(place.ask(lambda client: client.limits.reset(name, key=key)), as_json=as_json)


def limits_of(rows: Sequence[LimitRow]) -> RenderableType:
    """Return limits as a table."""
    if not rows:
        return Text("no limits", "dim")
    table = table_of("limit", "max", "when full", "running", "waiting", "keys")
    for row in rows:
        chosen = "" if row.max == row.declared else f" (declared: {row.declared})"
        table.add_row(
            Text(row.name),
            Text.assemble(f"{row.max}", (chosen, "dim")),
            Text(row.when_full),
            Text(f"{row.running:,}"),
            Text(f"{row.waiting:,}", "yellow" if row.waiting else "dim"),
            Text(f"{len(row.keys):,}", "dim"),
        )
    return table


def rates_of(rows: Sequence[RateRow]) -> RenderableType:
    """Return rate limits as a table."""
    if not rows:
        return Text("no rate limits", "dim")
    table = table_of("rate limit", "max", "per", "keys", "waited for")
    for row in rows:
        late = sum(key.free_at is not None for key in row.keys)
        table.add_row(
            Text(row.name),
            Text(f"{row.max:,}"),
            Text(f"{row.per:g} s"),
            Text(f"{len(row.keys):,}", "dim"),
            Text(f"{late:,}", "yellow" if late else "dim"),
        )
    return table


def _keys_of_rate(row: RateRow) -> RenderableType:
    table = table_of(f"key of {row.name}", "taken", "free")
    for key in row.keys[:KEYS_SHOWN]:
        free = Text("now", "dim") if key.free_at is None else Text(clock(key.free_at), "yellow")
        table.add_row(Text(key.key or ""), Text(f"{key.taken:,} of {row.max:,}"), free)
    left = len(row.keys) - KEYS_SHOWN
    return Group(table, Text(f"and {left:,} more keys: --json", "dim")) if left > 0 else table


def _keys_of(row: LimitRow) -> RenderableType:
    if not row.keys:
        return Text("nobody stands there", "dim")
    table = table_of("key", "max", "running", "waiting")
    for key in row.keys[:KEYS_SHOWN]:
        most = Text.assemble(f"{key.max}", (" (chosen)" if key.chosen else "", "dim"))
        table.add_row(Text(key.key or ""), most, Text(f"{key.running:,}"), Text(f"{key.waiting:,}"))
    left = len(row.keys) - KEYS_SHOWN
    return Group(table, Text(f"and {left:,} more keys: --json", "dim")) if left > 0 else table


def _standing_of(rows: Sequence[StandingRow]) -> RenderableType:
    table = table_of("run", "workflow", "since", "status")
    for row in rows:
        status = Text("admitted", "cyan") if row.admitted else Text("waits", "yellow")
        of = row.workflow if row.step is None else f"{row.workflow} {row.step}"
        table.add_row(Text(row.run), Text(of), Text(clock(row.since)), status)
    return table


def _told(row: LimitRow, *, as_json: bool) -> int:
    if as_json:
        print_json(msgspec.to_builtins(row))
    else:
        stdout().print(Group(limits_of([row]), Text(), _keys_of(row)))
    return 0
