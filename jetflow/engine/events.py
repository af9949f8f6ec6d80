"""Topics, keys and ids of events: what they may be, and which run an event starts.

A topic is names with dots between them, as ``order.paid``: it stands in subjects as it is, so that any NATS client
publishes an event by one publish, and listens by wildcards.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from jetflow.engine.identity import cut_hash, is_name
from jetflow.errors import InvalidDeclaration, InvalidInput

MOST_NAMES: Final = 8
"""Names of one topic."""

LONGEST_ID: Final = 200
"""Characters that the id of an event may have."""

NO_KEY: Final = "_"
"""Stands in subjects for the key of an event that has none."""

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")


def checked_topic(topic: object) -> str:
    """Return a topic, if it is one.

    Raises:
        InvalidInput: it is none.
    """
    if isinstance(topic, str) and is_topic(topic):
        return topic
    raise InvalidInput(
        f"{topic!r} is no topic of events: 1 to {MOST_NAMES} names with dots between them, each 1 to 64 of "
        "A-Z a-z 0-9 _ -, such as 'order.paid'"
    )


def is_topic(text: str) -> bool:
    """Tell whether a text is a topic."""
    names = text.split(".")
    return len(names) <= MOST_NAMES and all(map(_NAME.match, names))


def checked_pattern(of: str, pattern: object) -> str:
    """Return a pattern of topics, if it is one: ``*`` stands for any one name, a last ``>`` for all that follow.

    Raises:
        InvalidDeclaration: it is none.
    """
    names = pattern.split(".") if isinstance(pattern, str) else []
    last = len(names) - 1
    fits = [name == "*" or (name == ">" and n == last) or _NAME.match(name) is not None for n, name in enumerate(names)]
    if isinstance(pattern, str) and len(names) <= MOST_NAMES and all(fits):
        return pattern
    raise InvalidDeclaration(
        f"{of}: {pattern!r} is no topic: names with dots between them, such as 'order.paid'; '*' stands for any one "
        "of them, and a '>' at the end for all that follow"
    )


def is_of(topic: str, pattern: str) -> bool:
    """Tell whether a topic is one of a pattern, or all those of another pattern are."""
    names, wanted = topic.split("."), pattern.split(".")
    if wanted[-1] == ">":
        wanted.pop()
        if len(names) <= len(wanted):
            return False
        names = names[: len(wanted)]
    return len(names) == len(wanted) and all(
        one == name or (one == "*" and name != ">") for one, name in zip(wanted, names, strict=True)
    )


def without_overlap(filters: Iterable[str], *, everything: str) -> list[str]:
    """Return filters that stand for the same subjects, of which no two have one in common.

    Where some have, and none is part of the other, that is ``everything``.
    """
    given = sorted(set(filters))
    kept = [one for one in given if not any(other != one and is_of(one, other) for other in given)]
    meet = any(_meet(one.split("."), other.split(".")) for n, one in enumerate(kept) for other in kept[:n])
    return [everything] if meet else kept


def _meet(one: list[str], other: list[str]) -> bool:
    """Tell whether two filters have a subject in common."""
    for left, right in zip(one, other, strict=False):
        if ">" in (left, right):
            return True
        if left != right and "*" not in (left, right):
            return False
    return len(one) == len(other)


def key_token(key: str | None) -> str:
    """Return what stands for the key of an event in subjects: itself, or the hash of one that is no name.

    Raises:
        InvalidInput: it is no str, or has no form in UTF-8.
    """
    if key is None:
        return NO_KEY
    if not isinstance(key, str):  # pyright: ignore[reportUnnecessaryIsInstance] - it comes from the user
        raise InvalidInput(f"the key of an event is a str, not {type(key).__name__}: {key!r}")
    try:
        return key if is_name(key) else cut_hash(key.encode()).hex()
    except UnicodeEncodeError as error:
        raise InvalidInput(f"the key {key!r} cannot be written as UTF-8: {error.reason}") from error


def checked_id(topic: str, id: str) -> str:
    """Return the message id of an event whose sender says ``id``: that of one topic means nothing in another.

    Raises:
        InvalidInput: it cannot be one.
    """
    fits = isinstance(id, str) and 0 < len(id) <= LONGEST_ID and id.isascii() and id.isprintable() and id == id.strip()  # pyright: ignore[reportUnnecessaryIsInstance]
    if not fits:
        raise InvalidInput(f"the id of an event is 1 to {LONGEST_ID} characters that ASCII can print, not {id!r}")
    return f"{topic}/{id}"


def event_id(message_id: str | None, sequence: int, time: float) -> str:
    """Return the id of a stored event: its message id; of one that has none, its place, and the second it is of.

    The second tells it from one that had the same place in a stream that was deleted.
    """
    return message_id or f"{sequence}.{int(time)}"


def run_of_event(workflow: str, event: str) -> str:
    """Return the id of the root run of a workflow that an event starts."""
    return cut_hash(f"-\n{workflow}\nevent\n{event}".encode()).hex()
