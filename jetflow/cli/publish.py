"""`jetflow publish`: one event, or one for each line of the standard input."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter

from jetflow.cli import loop
from jetflow.cli.json_text import print_json
from jetflow.cli.options import FLAG, AsJson, UsageError
from jetflow.cli.place import Place
from jetflow.wire.events import PublishedEvent


def publish(
    topic: Annotated[str, Parameter(help="Its topic: names with dots between them.")],
    payload: Annotated[str | None, Parameter(help="Its payload as JSON; none is null.")] = None,
    /,
    *,
    key: Annotated[str | None, Parameter(help="Its key: what it is of.")] = None,
    id: Annotated[str | None, Parameter(help="An id of yours: published again, it is the same event.")] = None,
    metadata: Annotated[str | None, Parameter(help="A JSON object, for the runs that it starts.")] = None,
    level: Annotated[str | None, Parameter(help="How urgent the runs are that it starts.")] = None,
    lines: Annotated[bool, FLAG, Parameter(help="Read a payload from each line of the standard input.")] = False,
    as_json: AsJson = False,
    place: Place = Place(),  # noqa: B008 - frozen
) -> int:
    """Publish an event: it starts a run of each workflow that asks for it, and is kept for a week.

    ```
    jetflow publish order.paid '{"id": "a1", "amount": 12.5}' --key customer-7
    jetflow publish order.paid --lines < orders.jsonl
    ```
    """
    if lines and (payload is not None or id is not None):
        raise UsageError("--lines reads the payloads, each an event of its own: give neither a payload nor --id")
    payloads = (_parsed("a line", line) for line in sys.stdin if line.strip()) if lines else [_payload(payload)]
    told = _object(metadata)
    events = loop.run(_publish(place, topic, payloads, key, id, told, level))
    if as_json:
        print_json([msgspec.to_builtins(event) for event in events])
    elif lines:
        print(f"published {len(events)} events")
    else:
        [event] = events
        print(f"published {event.id}" if event.created else f"there was an event {event.id} already")
    return 0


async def _publish(
    place: Place,
    topic: str,
    payloads: Iterable[Any],
    key: str | None,
    id: str | None,
    metadata: Mapping[str, Any] | None,
    level: str | None,
) -> list[PublishedEvent]:
    async with place.connect() as client:
        return await client.publish_many(
            topic,
            payloads,
            key=None if key is None else lambda _: key,
            id=None if id is None else lambda _: id,
            metadata=metadata,
            level=level,
        )


def _payload(text: str | None) -> Any:
    return None if text is None else _parsed("the payload", text)


def _parsed(what: str, text: str) -> Any:
    try:
        return msgspec.json.decode(text.encode())
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        raise UsageError(f"{what} is no JSON: {error}: {text[:80]!r}") from None


def _object(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        return msgspec.json.decode(text.encode(), type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        raise UsageError(f"--metadata is no JSON object: {error}") from None
