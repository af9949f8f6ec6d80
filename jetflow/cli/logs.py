"""`jetflow logs`: what the steps of a run have logged, and what they stream."""

from __future__ import annotations

from contextlib import aclosing
from datetime import datetime
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter

from jetflow.cli import loop
from jetflow.cli.options import FLAG, AsJson
from jetflow.cli.place import Place
from jetflow.wire.output import Chunk, LogLine


def logs(
    run: Annotated[str, Parameter(help="The run's id.")],
    /,
    *,
    follow: Annotated[bool, FLAG, Parameter(name=["--follow", "-f"], help="Go on until the run has ended.")] = False,
    step: Annotated[str | None, Parameter(help="Only this step of it.")] = None,
    output: Annotated[bool, FLAG, Parameter(help="Print what its steps stream, and not what they log.")] = False,
    as_json: AsJson = False,
    place: Place = Place(),  # noqa: B008 - frozen
) -> int:
    """Print what a run's steps have logged: by `ctx.log`, and by `logging` where their worker keeps it.

    With --output, what they have streamed by `ctx.stream`. With --json, a JSON object for each line or chunk; chunks of
    bytes are base64 there.

    ```
    jetflow logs 0199b2c3d4e5f60718293a4b5c6d7e8f -f
    jetflow logs 0199b2c3d4e5f60718293a4b5c6d7e8f --output --step answer
    ```
    """
    loop.run(_print(place, run, follow=follow, step=step, output=output, as_json=as_json))
    return 0


async def _print(place: Place, run: str, *, follow: bool, step: str | None, output: bool, as_json: bool) -> None:
    async with place.look() as client:
        chosen = client.run(run)
        said = chosen.stream(follow=follow, step=step) if output else chosen.logs(follow=follow, step=step)
        async with aclosing(said) as found:
            async for one in found:
                print(msgspec.json.encode(one).decode() if as_json else _told(one), flush=True)


def _told(one: Chunk | LogLine) -> str:
    if isinstance(one, Chunk):
        return _shown(one.value)
    fields = "".join(f" {name}={_shown(value)}" for name, value in one.fields.items())
    attempt = "" if one.attempt == 1 else f" (attempt {one.attempt})"
    at = datetime.fromtimestamp(one.at)
    return f"{at:%H:%M:%S}.{at.microsecond // 1000:03d} {one.level:7} {one.step}{attempt}: {one.message}{fields}"


def _shown(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
