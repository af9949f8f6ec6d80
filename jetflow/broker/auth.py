"""Who connects: users, tokens, credentials files, NKeys and TLS files. Secrets are in no message and no repr."""

from __future__ import annotations

import importlib
import os
import ssl
from pathlib import Path
from typing import Any, Final

import msgspec

from jetflow.errors import InvalidConnection, MissingExtra

_SECRET: Final = frozenset({"password", "token", "nkey_seed"})
_WAYS: Final = ("user", "token", "creds", "nkey_seed")
_CREDS_MARKS: Final = (b"BEGIN NATS USER JWT", b"BEGIN USER NKEY SEED")


class Auth(msgspec.Struct, frozen=True, kw_only=True, repr_omit_defaults=True):
    """Who connects to NATS, and what they trust. At most one of user, token, creds and nkey_seed.

    - ``user`` and ``password``, or ``token``.
    - ``creds``: a credentials file, as ``nsc`` writes them. Needs the extra ``nkeys``.
    - ``nkey_seed``: a user's NKey seed (``SU...``), or the file that holds it. Needs the extra ``nkeys``.
    - ``tls_ca``: a file of the authorities that are trusted, instead of the system's.
    - ``tls_cert`` and ``tls_key``: files of the client's own certificate.
    - ``tls_first``: begin with TLS, as a server with ``handshake_first`` wants.

    Raises:
        InvalidConnection: they contradict one another.
    """

    user: str | None = None
    password: str | None = None
    token: str | None = None
    creds: str | os.PathLike[str] | None = None
    nkey_seed: str | os.PathLike[str] | None = None
    tls_ca: str | os.PathLike[str] | None = None
    tls_cert: str | os.PathLike[str] | None = None
    tls_key: str | os.PathLike[str] | None = None
    tls_first: bool = False

    def __post_init__(self) -> None:
        ways = [name for name in _WAYS if getattr(self, name) is not None]
        if len(ways) > 1:
            raise InvalidConnection(f"Auth has {' and '.join(ways)}: a connection takes one of {', '.join(_WAYS)}")
        if (self.user is None) != (self.password is None):
            raise InvalidConnection("Auth takes user and password together; a token is token=...")
        if self.tls_key is not None and self.tls_cert is None:
            raise InvalidConnection("Auth has tls_key without tls_cert: a key is that of a certificate")

    def __repr__(self) -> str:
        return f"Auth({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Return what is set, with secrets masked."""
        values = [(name, getattr(self, name)) for name in self.__struct_fields__]
        return [(name, "***" if name in _SECRET else value) for name, value in values if value not in (None, False)]

    @property
    def way(self) -> str:
        """How these credentials are named in a message."""
        if self.user is not None:
            return f"the user {self.user!r}"
        if self.token is not None:
            return "the token"
        if self.creds is not None:
            return f"the credentials in {str(self.creds)!r}"
        if self.nkey_seed is not None:
            return "the NKey"
        return "a connection without credentials"

    @property
    def names_somebody(self) -> bool:
        """Whether it says who connects, and not only what is trusted."""
        return any(getattr(self, name) is not None for name in _WAYS)

    @property
    def has_tls(self) -> bool:
        """Whether it says anything of TLS."""
        return self.tls_first or self.tls_ca is not None or self.tls_cert is not None

    def options(self) -> dict[str, Any]:
        """Return it as nats-py's connect takes it, with all files looked at.

        Raises:
            InvalidConnection: a file cannot be used.
            MissingExtra: the package ``nkeys`` is needed, and not installed.
        """
        given: dict[str, Any] = {"user": self.user, "password": self.password, "token": self.token}
        if self.creds is not None:
            _check_creds(Path(self.creds).expanduser())
            given["user_credentials"] = str(Path(self.creds).expanduser())
        if self.nkey_seed is not None:
            given["nkeys_seed_str"] = _checked_seed(_seed_of(self.nkey_seed))
        if self.tls_ca is not None or self.tls_cert is not None:
            given["tls"] = self._tls()
        if self.tls_first:
            given["tls_handshake_first"] = True
        return {name: value for name, value in given.items() if value is not None}

    def _tls(self) -> ssl.SSLContext:
        files = [self.tls_ca, self.tls_cert, self.tls_key]
        ca, cert, key = (None if file is None else Path(file).expanduser() for file in files)
        for file in (ca, cert, key):
            if file is not None:
                _read(file, "TLS file")
        try:
            context = ssl.create_default_context(cafile=ca)
            if cert is not None:
                context.load_cert_chain(cert, key, password=lambda: "")  # and do not ask for one on the terminal
        except (OSError, ValueError) as error:
            named = ", ".join(repr(str(file)) for file in files if file is not None)
            raise InvalidConnection(f"the TLS files {named} cannot be used: {error}") from None
        return context


def _seed_of(given: str | os.PathLike[str]) -> str:
    """Return the seed itself. A seed and a path look nothing alike."""
    if isinstance(given, str) and given.strip().startswith("SU") and given.strip().isalnum():
        return given.strip()
    file = Path(given).expanduser()
    lines = _read(file, "NKey file").decode("ascii", "replace").split()
    seeds = [line for line in lines if line.startswith("SU")]
    if not seeds:
        raise InvalidConnection(f"the NKey file {str(file)!r} holds no seed of a user (SU...)")
    return seeds[0]


def _checked_seed(seed: str) -> str:
    nkeys = _nkeys()
    try:
        nkeys.from_seed(bytearray(seed.encode()))
    except Exception as error:  # the package has many of its own, and ValueError, and binascii's
        raise InvalidConnection(f"the NKey seed cannot be read ({type(error).__name__})") from None
    return seed


def _check_creds(file: Path) -> None:
    """Look into a credentials file: nats-py would search one without a JWT for ever."""
    text = _read(file, "credentials file")
    _nkeys()
    for mark in _CREDS_MARKS:
        if mark not in text:
            raise InvalidConnection(f"the credentials file {str(file)!r} has no line with {mark.decode()!r}")


def _read(file: Path, what: str) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise InvalidConnection(f"the {what} {str(file)!r} cannot be read: {error.strerror}") from None


def _nkeys() -> Any:
    try:
        return importlib.import_module("nkeys")
    except ModuleNotFoundError:
        raise MissingExtra(
            "credentials files and NKeys need the package nkeys: run `pip install 'jetflow-nats[nkeys]'`"
        ) from None
