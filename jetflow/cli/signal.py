"""`jetflow signal`: a signal to one run."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from cyclopts import Parameter

from jetflow.cli import loop
from jetflow.cli.json_text import print_json
from jetflow.cli.options import AsJson, UsageError
from jetflow.cli.place import Place
from jetflow.wire.events import PublishedEvent


def signal(
    run: Annotated[str, Parameter(help="The run's id.")],
    name: Annotated[str, Parameter(help="The signal's name.")],
    payload: Annotated[str | None, Parameter(help="Its payload as JSON; none is null.")] = None,
    /,
    *,
    id: Annotated[str | None, Parameter(help="An id of yours: sent again, it is the same signal.")] = None,
    as_json: AsJson = False,
    place: Place = Place(),  # noqa: B008 - frozen
) -> int:
    """Send a signal to a run, for a step that waits for it, now or later. The run has to be there.

    ```
    jetflow signal 0199b2c3d4e5f60718293a4b5c6d7e8f approval '{"by": "ann"}'
    ```
    """
    try:
        value = None if payload is None else msgspec.json.decode(payload.encode())
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        raise UsageError(f"the payload is no JSON: {error}") from None
    event = loop.run(_signal(place, run, name, value, id))
    if as_json:
        print_json(msgspec.to_builtins(event))
    else:
        print(f"sent {event.id}" if event.created else f"there was a signal {event.id} already")
    return 0


async def _signal(place: Place, run: str, name: str, payload: Any, id: str | None) -> PublishedEvent:
    async with place.connect() as client:
        await client.run(run).status()  # what is sent to nobody would be sent all the same
        return await client.signal(run, name, payload, id=id)
