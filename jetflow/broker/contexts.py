"""The contexts of the ``nats`` command line: JSON files in ``~/.config/nats/context`` with a server and credentials."""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import Any, Final

import msgspec

from jetflow.broker.auth import Auth
from jetflow.errors import InvalidConnection

_UNKNOWN: Final = ("nsc", "socks_proxy", "user_jwt")
"""Fields that change how to connect, and that jetflow cannot follow."""


class NatsContext(msgspec.Struct, frozen=True):
    """What a context says of how to connect. Empty is not said."""

    url: str = ""
    token: str = ""
    user: str = ""
    password: str = ""
    creds: str = ""
    nkey: str = ""
    user_seed: str = ""
    cert: str = ""
    key: str = ""
    ca: str = ""
    tls_first: bool = False
    jetstream_domain: str = ""
    jetstream_api_prefix: str = ""
    inbox_prefix: str = ""

    def auth(self) -> Auth:
        """Return its credentials. A user without a password is a token there."""
        is_token = bool(self.user) and not self.password
        return Auth(
            user=None if is_token else self.user or None,
            password=self.password or None,
            token=self.token or (self.user if is_token else None) or None,
            creds=self.creds or None,
            nkey_seed=self.user_seed or self.nkey or None,
            tls_ca=self.ca or None,
            tls_cert=self.cert or None,
            tls_key=self.key or None,
            tls_first=self.tls_first,
        )


def read_context(name: str) -> NatsContext:
    """Return a context by its name, or by the path of its file.

    Raises:
        InvalidConnection: there is none, or it cannot be read or followed.
    """
    directory = _directory()
    is_path = name.endswith(".json") or os.sep in name
    file = Path(name).expanduser() if is_path else directory / f"{name}.json"
    try:
        fields: dict[str, Any] = msgspec.json.decode(file.read_bytes(), type=dict[str, Any])
        said = msgspec.convert(fields, NatsContext)
    except FileNotFoundError:
        known = sorted(path.stem for path in directory.glob("*.json"))
        near = difflib.get_close_matches(name, known, n=3)
        hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else f" (`nats context ls` has {len(known)})"
        raise InvalidConnection(f"there is no NATS context {name!r} in {str(directory)!r}{hint}") from None
    except (OSError, msgspec.DecodeError) as error:
        raise InvalidConnection(f"the NATS context {str(file)!r} cannot be read: {error}") from None
    for field in _UNKNOWN:
        if fields.get(field):
            raise InvalidConnection(f"the NATS context {name!r} uses {field}, which jetflow does not follow")
    return said


def _directory() -> Path:
    home = os.environ.get("XDG_CONFIG_HOME")
    return (Path(home) if home else Path.home() / ".config") / "nats" / "context"
