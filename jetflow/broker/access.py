"""How to reach a server and as whom: all that was said about it, checked and put together before anybody connects."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

import msgspec
from nats.aio.client import Client

from jetflow.broker.addresses import Address, address_of, shown
from jetflow.broker.auth import Auth
from jetflow.broker.contexts import NatsContext, read_context
from jetflow.errors import InvalidConnection, InvalidSetting
from jetflow.settings import NAMED, Found, settings_of

Server: TypeAlias = "str | Sequence[str] | Client | None"

DEFAULT_SERVER: Final = "nats://127.0.0.1:4222"
DEFAULT_API: Final = "$JS.API"
DEFAULT_INBOX: Final = "_INBOX"

AUTH: Final = {
    "user": "user",
    "password": "password",
    "token": "token",
    "creds": "creds",
    "nkey": "nkey_seed",
    "tls_ca": "tls_ca",
    "tls_cert": "tls_cert",
    "tls_key": "tls_key",
    "tls_first": "tls_first",
}
"""Settings that say who connects, and what of `Auth` they are."""

WAYS: Final = ("user", "token", "creds", "nkey")
"""Those that name somebody."""

_TOKENS: Final = re.compile(r"[^\s.*>]+(\.[^\s.*>]+)*")


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """Servers, without user info, and how to connect to them; or a connected client that was handed over.

    ``copied`` are nats-py's options of a client that was handed over, for a second connection like it.
    """

    servers: tuple[str, ...] = ()
    client: Client | None = None
    auth: Auth = Auth()
    api: str = DEFAULT_API
    inbox: str = DEFAULT_INBOX
    copied: Mapping[str, Any] = {}

    def __repr__(self) -> str:
        return f"<Access to {self.shown}>"

    @property
    def shown(self) -> str:
        """The servers, for people."""
        return shown(self.servers)

    def options(self) -> dict[str, Any]:
        """Return what nats-py's connect takes, with all files looked at.

        Raises:
            InvalidConnection, MissingExtra: see `Auth.options`.
        """
        return {"inbox_prefix": self.inbox} | self.auth.options() | dict(self.copied)


def access_of(
    server: Server | Access,
    *,
    auth: Auth | None = None,
    domain: str | None = None,
    inbox_prefix: str | None = None,
    context: str | None = None,
) -> Access:
    """Put together what was said. What is said here counts before the context's, and user info in URLs like ``auth``.

    Without ``server`` and ``context`` it is what `jetflow.settings` find, then the local default. Who connects is found
    there, too, but only for a server that is: one that is named here is told no credentials of others.

    Raises:
        InvalidConnection: it contradicts itself, or names what does not exist.
        InvalidSetting: a setting that is looked for cannot be read.
    """
    if isinstance(server, Access):
        return server
    if isinstance(server, Client):
        if auth is not None or inbox_prefix is not None or context is not None:
            raise InvalidConnection("a connected client has its own auth, inbox prefix and server: give domain= only")
        return _like(server, _api(domain, NatsContext()))
    found = settings_of()
    given = [server] if isinstance(server, str) else list(server or ())
    is_named = bool(given) or context is not None
    if not is_named:
        given, context = _nearest(found)
    said = NatsContext() if context is None else read_context(context)
    addresses = [address_of(url) for url in _urls(given or [said.url])]
    return Access(
        servers=tuple(address.url for address in addresses),
        auth=nearest_of([auth, _auth_in(addresses), None if is_named else auth_found(found), said.auth()]),
        api=_api(domain or _value(found, "domain"), said),
        inbox=_inbox(inbox_prefix or said.inbox_prefix or _value(found, "inbox_prefix") or DEFAULT_INBOX),
    )


def _nearest(found: Mapping[str, Found]) -> tuple[list[str], str | None]:
    """Return the server or the context that is said nearest by: in the environment before a file, a server first."""
    server, context = found.get("server"), found.get("context")
    is_in_files = server is not None and server.origin != NAMED["server"].variable
    if server is None or (is_in_files and context is not None and context.origin == NAMED["context"].variable):
        return [], None if context is None else str(context.value)
    return [str(server.value)], None


def _urls(given: Sequence[str]) -> list[str]:
    return [url.strip() for text in given for url in text.split(",") if url.strip()] or [DEFAULT_SERVER]


def _value(found: Mapping[str, Found], name: str) -> str | None:
    return None if name not in found else str(found[name].value)


def auth_found(found: Mapping[str, Found]) -> Auth | None:
    """Return who connects by the settings: whoever is named nearest by, and the password that is there.

    Raises:
        InvalidSetting: a user without a password.
    """
    values: dict[str, Any] = {setting: found[name].value for name, setting in AUTH.items() if name in found}
    who = [found[name].origin for name in WAYS if name in found]
    in_environment = {NAMED[name].variable for name in WAYS}
    if any(origin in in_environment for origin in who):
        for name in WAYS:
            if name in found and found[name].origin not in in_environment:
                values.pop(AUTH[name])
    if "user" not in values:
        values.pop("password", None)
    elif "password" not in values:
        needed = NAMED["password"].variable
        raise InvalidSetting(found["user"].origin, values["user"], f"no password is in the environment: set {needed}")
    auth = Auth(**values)
    return auth if auth != Auth() else None


def _auth_in(addresses: list[Address]) -> Auth | None:
    """Return the user that the URLs name. Servers that are found later take the same."""
    users = {(address.user, address.password) for address in addresses if address.user is not None}
    if len(users) > 1:
        raise InvalidConnection("the server URLs name different users: a connection has one")
    for user, password in users:
        return Auth(token=user) if password is None else Auth(user=user, password=password)
    return None


def nearest_of(said: list[Auth | None]) -> Auth:
    """Return who is named first, with the TLS files that are named first."""
    auths = [auth for auth in said if auth is not None]
    who = next((auth for auth in auths if auth.names_somebody), Auth())
    trust = next((auth for auth in auths if auth.has_tls), Auth())
    return msgspec.structs.replace(
        who, tls_ca=trust.tls_ca, tls_cert=trust.tls_cert, tls_key=trust.tls_key, tls_first=trust.tls_first
    )


def _api(domain: str | None, said: NatsContext) -> str:
    domain = domain or (None if said.jetstream_api_prefix else said.jetstream_domain or None)
    if domain is None:
        return said.jetstream_api_prefix.rstrip(".") or DEFAULT_API
    if not _TOKENS.fullmatch(domain) or "." in domain:
        raise InvalidConnection(f"{domain!r} is no JetStream domain: it is one word, as in the server's settings")
    return f"$JS.{domain}.API"


def _inbox(prefix: str) -> str:
    if not _TOKENS.fullmatch(prefix):
        raise InvalidConnection(f"{prefix!r} is no inbox prefix: it is a subject without wildcards, as in _INBOX_app")
    return prefix


def _like(client: Client, api: str) -> Access:
    """Return the access of a client that was handed over, as its second connection needs it."""
    untyped: Any = client
    options: dict[str, Any] = untyped.options
    copied = {
        name: options[name]
        for name in ("user", "password", "token", "tls", "tls_hostname", "tls_handshake_first", "ws_connection_headers")
        if options.get(name)
    }
    for name in ("signature_cb", "user_jwt_cb", "user_credentials", "nkeys_seed", "nkeys_seed_str"):
        value = getattr(untyped, f"_{name}")
        if value is not None:
            copied[name] = value
    uris: list[Any] = [server.uri for server in untyped._server_pool]  # noqa: SLF001 - with the user info of each
    for uri in uris:
        if uri.username is not None and not copied.keys() & {"user", "token"}:
            user = {"token": uri.username} if uri.password is None else {"user": uri.username, "password": uri.password}
            copied |= user  # as they are: that is what has connected
    return Access(
        servers=tuple(address_of(uri.geturl()).url for uri in uris),
        client=client,
        api=api,
        inbox=bytes(untyped._inbox_prefix).decode(),  # noqa: SLF001
        copied=copied,
    )
