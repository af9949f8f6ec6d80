"""Where NATS servers are: URLs, checked where they enter, and told apart from who connects.

A URL may hold a user and a password, or a token. They are taken out here, so that nothing that is shown has them, and
decoded, because a URL has ``@`` and ``/`` in a password as ``%40`` and ``%2F``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple
from urllib.parse import unquote, urlsplit

from jetflow.errors import InvalidConnection

SCHEMES: Final = ("nats", "tls", "ws", "wss")


class Address(NamedTuple):
    """A server's URL without user info, and the user info. A user without a password is a token."""

    url: str
    user: str | None
    password: str | None


def address_of(text: str) -> Address:
    """Return a URL in its parts. Without a scheme it is ``nats://``.

    Raises:
        InvalidConnection: it is not the URL of a NATS server. The message does not show it: it may hold a password.
    """
    scheme, separator, rest = text.strip().partition("://")
    if not separator:
        scheme, rest = "nats", scheme
    if scheme.lower() not in SCHEMES:
        raise InvalidConnection("a NATS URL begins with nats://, tls://, ws:// or wss://, and this one does not")
    info, at, place = rest.rpartition("@")  # the last one: a password may hold others
    url = f"{scheme.lower()}://{place}"
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise InvalidConnection(
            "the host or port of a NATS URL cannot be read: write nats://host:4222, and reserved characters of a "
            "password as in %40 for @"
        ) from None
    if parts.path.strip("/") and parts.scheme in ("nats", "tls"):
        raise InvalidConnection(
            "a NATS URL ends after its port, as in nats://host:4222; a / in a password is written as %2F"
        )
    if not parts.hostname:
        raise InvalidConnection("a NATS URL names a host, as in nats://host:4222, and this one does not")
    user, colon, password = info.partition(":")
    return Address(url, unquote(user) if at else None, unquote(password) if colon else None)


def shown(urls: Iterable[str]) -> str:
    """Return URLs for people, without user info, whatever they are."""
    return ", ".join(_shown(url) for url in urls)


def _shown(url: str) -> str:
    try:
        return address_of(url).url
    except InvalidConnection:
        return "(a URL that cannot be read)"
