"""Credentials for servers that let nobody else in: NKeys, the files of an operator's users, and certificates."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from pathlib import Path
from time import time
from typing import Any

import nkeys
import pytest


def new_seed() -> str:
    return bytes(nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER)).decode()


def public_key(seed: str) -> str:
    return bytes(nkeys.from_seed(bytearray(seed.encode())).public_key).decode()


class Identity:
    """An operator, an account or a user: an NKey that signs JWTs."""

    def __init__(self, prefix: int) -> None:
        self.seed = bytes(nkeys.encode_seed(os.urandom(32), prefix)).decode()
        self._pair = nkeys.from_seed(bytearray(self.seed.encode()))
        self.public = bytes(self._pair.public_key).decode()

    def jwt(self, subject: Identity, claims: dict[str, Any]) -> str:
        """Vouch for somebody, as the server reads it: https://docs.nats.io, JWT."""
        body = {"jti": subject.public, "iat": int(time()), "iss": self.public, "sub": subject.public, "name": "test"}
        parts = [{"typ": "JWT", "alg": "ed25519-nkey"}, body | {"nats": claims | {"version": 2}}]
        signed = ".".join(_base64(json.dumps(part).encode()) for part in parts)
        return f"{signed}.{_base64(bytes(self._pair.sign(signed.encode())))}"


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


_CLIENT = {"subs": -1, "data": -1, "payload": -1}
_ACCOUNT = {**_CLIENT, "imports": -1, "exports": -1, "wildcards": True, "conn": -1, "leaf": -1}
_JETSTREAM = {"mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1}


class Operator:
    """Whoever runs a server that trusts accounts by their JWTs, and users by their accounts'."""

    def __init__(self) -> None:
        self._self = Identity(nkeys.PREFIX_BYTE_OPERATOR)
        self._account = Identity(nkeys.PREFIX_BYTE_ACCOUNT)
        self._system = Identity(nkeys.PREFIX_BYTE_ACCOUNT)

    def config(self) -> str:
        account = {"type": "account", "limits": _ACCOUNT | _JETSTREAM}
        system = {"type": "account", "limits": _ACCOUNT}
        return (
            f"operator: {self._self.jwt(self._self, {'type': 'operator'})}\n"
            f"system_account: {self._system.public}\n"
            "resolver: MEMORY\n"
            "resolver_preload: {\n"
            f"  {self._account.public}: {self._self.jwt(self._account, account)}\n"
            f"  {self._system.public}: {self._self.jwt(self._system, system)}\n"
            "}\n"
        )

    def credentials(self) -> tuple[str, str]:
        """Return the text of a new user's credentials file, and the seed in it."""
        user = Identity(nkeys.PREFIX_BYTE_USER)
        jwt = self._account.jwt(user, {"type": "user", "pub": {}, "sub": {}, **_CLIENT})
        return (
            f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
            f"-----BEGIN USER NKEY SEED-----\n{user.seed}\n------END USER NKEY SEED------\n"
        ), user.seed


async def openssl(directory: Path, *arguments: str) -> None:
    try:
        process = await asyncio.create_subprocess_exec(
            "openssl", *arguments, cwd=directory, stdin=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
        )
    except FileNotFoundError:
        pytest.skip("certificates are made with openssl, which is not here")
    _, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()


async def make_certificate(directory: Path, name: str) -> None:
    """Make a key and a certificate for 127.0.0.1 that vouches for itself: ``name.key`` and ``name.pem``."""
    await openssl(
        directory,
        *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"),
        *("-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1"),
        *("-keyout", f"{name}.key", "-out", f"{name}.pem"),
    )
