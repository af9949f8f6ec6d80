"""Who may send a webhook: passwords, keys and signatures of the raw body, each compared in constant time.

A secret may be several, so that one can be replaced while senders still use the other. None is ever in a message, a
log line or a repr.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable, Mapping, Sequence
from time import time
from typing import Final, Literal, Protocol, TypeAlias

Secret: TypeAlias = str | bytes
Algorithm: TypeAlias = Literal["sha1", "sha256", "sha512", "md5"]
Encoding: TypeAlias = Literal["hex", "base64", "base64url"]
Verdict: TypeAlias = Literal["ok", "missing", "wrong"]
"""What is found of a request: it may be taken, it says nothing of who sends it, or something that does not fit."""

ALGORITHMS: Final[tuple[Algorithm, ...]] = ("sha1", "sha256", "sha512", "md5")
ENCODINGS: Final[tuple[Encoding, ...]] = ("hex", "base64", "base64url")

TOLERANCE: Final = 300.0
"""Seconds that a signed time may differ from now: an older request may have been recorded and sent again."""


class Authentication(Protocol):
    """Decides whether a request may be taken."""

    def verdict(self, headers: Mapping[str, str], body: bytes) -> Verdict:
        """Tell what is found of a request. Names of headers are in lower case; ``body`` is as it was sent."""
        ...


class Basic:
    """A user's name and password, as HTTP's basic authentication has them."""

    def __init__(self, user: str, password: Secret | Sequence[Secret]) -> None:
        if not user:
            raise ValueError("Basic(user=''): a user has a name")
        self._wanted = [f"{user}:".encode() + secret for secret in _secrets("Basic", password)]

    def __repr__(self) -> str:
        return "Basic(...)"

    def verdict(self, headers: Mapping[str, str], body: bytes) -> Verdict:
        """See `Authentication`."""
        scheme, _, said = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "basic":
            return "missing"
        try:
            given = base64.b64decode(said.strip(), validate=True)
        except (binascii.Error, ValueError):
            return "wrong"
        return _any(given, self._wanted)


class HeaderKey:
    """A key in a header of its own, such as ``X-Api-Key``."""

    def __init__(self, header: str, key: Secret | Sequence[Secret]) -> None:
        self._header = _named("HeaderKey", header)
        self._wanted = _secrets("HeaderKey", key)

    def __repr__(self) -> str:
        return f"HeaderKey({self._header!r}, ...)"

    def verdict(self, headers: Mapping[str, str], body: bytes) -> Verdict:
        """See `Authentication`."""
        given = headers.get(self._header)
        return "missing" if given is None else _any(given.encode("latin-1"), self._wanted)


class Hmac:
    """A signature of the raw body in a header: its HMAC, as hex or base64, behind a ``prefix`` such as ``sha256=``."""

    def __init__(
        self,
        header: str,
        secret: Secret | Sequence[Secret],
        *,
        algorithm: Algorithm = "sha256",
        encoding: Encoding = "hex",
        prefix: str = "",
    ) -> None:
        if algorithm not in ALGORITHMS:
            raise ValueError(f"Hmac(algorithm={algorithm!r}): one of {', '.join(ALGORITHMS)}")
        if encoding not in ENCODINGS:
            raise ValueError(f"Hmac(encoding={encoding!r}): one of {', '.join(ENCODINGS)}")
        self._header = _named("Hmac", header)
        self._secrets = _secrets("Hmac", secret)
        self._algorithm: Algorithm = algorithm
        self._encoding: Encoding = encoding
        self._prefix = prefix

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._header!r}, ...)"

    def verdict(self, headers: Mapping[str, str], body: bytes) -> Verdict:
        """See `Authentication`."""
        given = headers.get(self._header)
        if given is None:
            return "missing"
        if not given.startswith(self._prefix):
            return "wrong"
        return _signed(given[len(self._prefix) :], body, self._secrets, self._algorithm, self._encoding)


class GitHub(Hmac):
    """The signature of GitHub: ``X-Hub-Signature-256: sha256=<hex>``."""

    def __init__(self, secret: Secret | Sequence[Secret]) -> None:
        super().__init__("X-Hub-Signature-256", secret, prefix="sha256=")


class Stripe:
    """The signature of Stripe: ``Stripe-Signature: t=<seconds>,v1=<hex>``, of the time and the body.

    ``tolerance`` is seconds.
    """

    def __init__(self, secret: Secret | Sequence[Secret], *, tolerance: float = TOLERANCE) -> None:
        self._secrets = _secrets("Stripe", secret)
        self._tolerance = tolerance

    def __repr__(self) -> str:
        return "Stripe(...)"

    def verdict(self, headers: Mapping[str, str], body: bytes) -> Verdict:
        """See `Authentication`."""
        said = headers.get("stripe-signature")
        if said is None:
            return "missing"
        parts = [part.strip().partition("=") for part in said.split(",")]
        at = next((value for name, _, value in parts if name == "t"), "")
        if not _is_recent(at, self._tolerance):
            return "wrong"
        signed = at.encode() + b"." + body
        found = [_signed(value, signed, self._secrets, "sha256", "hex") for name, _, value in parts if name == "v1"]
        return "ok" if "ok" in found else "wrong"


class Slack:
    """The signature of Slack: ``X-Slack-Signature: v0=<hex>``, of ``X-Slack-Request-Timestamp`` and the body.

    ``tolerance`` is seconds. A ``url_verification`` is answered with its challenge, and makes no event.
    """

    def __init__(self, secret: Secret | Sequence[Secret], *, tolerance: float = TOLERANCE) -> None:
        self._secrets = _secrets("Slack", secret)
        self._tolerance = tolerance

    def __repr__(self) -> str:
        return "Slack(...)"

    def verdict(self, headers: Mapping[str, str], body: bytes) -> Verdict:
        """See `Authentication`."""
        given, at = headers.get("x-slack-signature"), headers.get("x-slack-request-timestamp")
        if given is None or at is None:
            return "missing"
        if not given.startswith("v0=") or not _is_recent(at, self._tolerance):
            return "wrong"
        return _signed(given[len("v0=") :], b"v0:" + at.encode() + b":" + body, self._secrets, "sha256", "hex")


def _named(of: str, header: str) -> str:
    if not header or not header.replace("-", "").replace("_", "").isalnum() or not header.isascii():
        raise ValueError(f"{of}({header!r}): the name of a header")
    return header.lower()


def _secrets(of: str, given: Secret | Sequence[Secret]) -> list[bytes]:
    several = [given] if isinstance(given, str | bytes) else list(given)
    secrets = [one.encode() if isinstance(one, str) else bytes(one) for one in several]
    if not secrets or not all(secrets):
        raise ValueError(f"{of}: a secret is not empty; is the variable of the environment set?")
    return secrets


def _any(given: bytes, wanted: Sequence[bytes]) -> Verdict:
    """Compare with all of them, so that the time tells nothing of which one fits, nor of how far."""
    fits = [hmac.compare_digest(given, one) for one in wanted]
    return "ok" if any(fits) else "wrong"


def _signed(given: str, body: bytes, secrets: Sequence[bytes], algorithm: Algorithm, encoding: Encoding) -> Verdict:
    write = _WRITTEN[encoding]
    wanted = [write(hmac.new(secret, body, getattr(hashlib, algorithm)).digest()) for secret in secrets]
    said = given.strip().lower() if encoding == "hex" else given.strip().rstrip("=")
    return _any(said.encode("latin-1", "replace"), wanted)


_WRITTEN: Final[dict[Encoding, Callable[[bytes], bytes]]] = {
    "hex": lambda digest: digest.hex().encode(),
    "base64": lambda digest: base64.b64encode(digest).rstrip(b"="),
    "base64url": lambda digest: base64.urlsafe_b64encode(digest).rstrip(b"="),
}


def _is_recent(at: str, tolerance: float) -> bool:
    return at.isascii() and at.isdecimal() and len(at) < 12 and abs(time() - int(at)) <= tolerance
