"""One webhook: who may send it, and which event a request becomes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, TypeAlias, cast
from urllib.parse import parse_qsl

import msgspec

from jetflow.engine.events import checked_topic
from jetflow.engine.identity import check_name
from jetflow.errors import InvalidDeclaration, InvalidInput
from jetflow.webhooks.authentication import Authentication

Told: TypeAlias = Callable[[Any, Mapping[str, str]], str | None]
"""Returns a text of the body and the headers of a request; the names of headers are in lower case."""

LARGEST_BODY: Final = 512 * 1024
"""Bytes that a request may have, if nothing else is said."""

_FORM: Final = "application/x-www-form-urlencoded"
_FIELDS: Final = 1000


class Mapped(NamedTuple):
    """The event that a request becomes."""

    topic: str
    payload: Any
    key: str | None
    id: str | None


class Webhook:
    """Requests to ``/<name>``, and the event that each becomes.

    ``auth`` says who may send it; None is everybody, and has to be said. ``topic`` is a topic, or a function of the
    body and the headers that returns one, or None for a request that shall become no event. ``key`` and ``id`` are such
    functions, too: with an ``id``, what is sent again is the same event. ``static`` is put into the body, over what it
    says itself. ``largest`` is the bytes that a body may have.

    Bodies are JSON, or forms: those become an object of their fields, or what is in their one field ``payload``.

    Raises:
        InvalidDeclaration: the name or the topic is none.
    """

    def __init__(
        self,
        name: str,
        *,
        auth: Authentication | None,
        topic: str | Told,
        key: Told | None = None,
        id: Told | None = None,
        static: Mapping[str, Any] | None = None,
        largest: int = LARGEST_BODY,
    ) -> None:
        self.name: str = check_name("webhook name", name)
        self.auth: Authentication | None = auth
        self.largest: int = largest
        if isinstance(topic, str):
            try:
                checked_topic(topic)
            except InvalidInput as error:
                raise InvalidDeclaration(f"webhook {name!r}: {error}") from None
        self._topic = topic
        self._key = key
        self._id = id
        self._static = dict(static or {})

    def __repr__(self) -> str:
        return f"<Webhook {self.name!r}>"

    def read(self, headers: Mapping[str, str], body: bytes) -> Any:
        """Return what a body holds.

        Raises:
            InvalidInput: it is neither JSON nor a form.
        """
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        try:
            value = _form(body) if kind == _FORM else msgspec.json.decode(body)
        except (ValueError, RecursionError) as error:
            raise InvalidInput(f"the body is no {'form' if kind == _FORM else 'JSON'}: {error}") from None
        if self._static and isinstance(value, dict):
            return cast(dict[str, Any], value) | self._static
        return value

    def mapped(self, value: Any, headers: Mapping[str, str]) -> Mapped | None:
        """Return the event that a request becomes, or None.

        Raises:
            InvalidInput: its topic, key or id is none.
            Exception: whatever the functions raise.
        """
        topic = self._topic if isinstance(self._topic, str) else self._topic(value, headers)
        if topic is None:
            return None
        key = None if self._key is None else self._key(value, headers)
        id = None if self._id is None else self._id(value, headers)
        return Mapped(checked_topic(topic), value, key, id)


def _form(body: bytes) -> Any:
    fields = dict(parse_qsl(body.decode(), keep_blank_values=True, strict_parsing=bool(body), max_num_fields=_FIELDS))
    if list(fields) == ["payload"]:
        return msgspec.json.decode(fields["payload"].encode())
    return fields
