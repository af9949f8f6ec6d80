"""Names, digests and run ids.

A run id is 32 hexadecimal digits. A root run's id is a UUIDv7 or derived from the caller's key; a child's id is a
pure function of its parent run, its workflow and its key or input digest, so that whoever spawns it again names the
same run (``docs/wire.md``, section Identity).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from hashlib import sha256
from typing import Final

from jetflow.errors import InvalidInput, InvalidName

DIGEST_RULE: Final = "2"
"""Version of the rule by which an input has a digest (``docs/wire.md``, section Identity)."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}\Z")
_RUN_ID = re.compile(r"[0-9a-f]{32}\Z")


def check_name(what: str, name: object) -> str:
    """Return ``name`` if it can stand as a subject token.

    A leading ``_`` or ``-`` is jetflow's own.

    Raises:
        InvalidName: it cannot.
    """
    if not isinstance(name, str) or not _NAME.match(name):
        raise InvalidName(what, name)
    return name


def checked_key(of: str, key: object) -> str:
    """Return the key ``of`` a run, or of a child, if it is one.

    Raises:
        InvalidInput: it is not a str.
    """
    if isinstance(key, str):
        return key
    if callable(key):
        raise InvalidInput(f"the key of {of} is a str: a function of the input is for spawn_workflows")
    raise InvalidInput(f"the key of {of} is a str, not {type(key).__name__}: {key!r}")


def is_name(text: str) -> bool:
    """Tell whether ``text`` can stand as a name."""
    return _NAME.match(text) is not None


def is_run_id(text: str) -> bool:
    """Tell whether ``text`` has the form of a run id."""
    return _RUN_ID.match(text) is not None


def cut_hash(data: bytes) -> bytes:
    """Return SHA-256 of ``data``, cut to 16 bytes: every standard library has it."""
    return sha256(data).digest()[:16]


def input_digest(canonical: bytes) -> str:
    """Return the versioned digest of an input's canonical JSON."""
    return f"{DIGEST_RULE}-{sha256(canonical).hexdigest()[:32]}"


def keyed_root_id(workflow: str, key: str) -> str:
    """Return the id of the root run that ``key`` names.

    Raises:
        InvalidInput: the key has no form in UTF-8.
    """
    return child_ids("-", workflow, keyed=True)(key).hex()


def child_id(parent: str, workflow: str, *, key: str | None, digest: str) -> str:
    """Return the id of the child of ``parent`` that ``key`` names, or, without one, the input digest.

    Raises:
        InvalidInput: the key has no form in UTF-8.
    """
    return child_ids(parent, workflow, keyed=key is not None)(digest if key is None else key).hex()


def child_ids(parent: str, workflow: str, *, keyed: bool) -> Callable[[str], bytes]:
    """Return what derives the ids of children from their keys, or digests, as 16 bytes.

    What the texts of all these ids have in common is hashed once. A key that has no form in UTF-8 raises InvalidInput.
    """
    shared = sha256(f"{parent}\n{workflow}\n{'key' if keyed else 'hash'}\n".encode())

    def derive(key_or_digest: str) -> bytes:
        derived = shared.copy()
        try:
            derived.update(key_or_digest.encode())
        except UnicodeEncodeError as error:
            raise InvalidInput(f"the key {key_or_digest!r} cannot be written as UTF-8: {error.reason}") from error
        return derived.digest()[:16]

    return derive


def once_token(name: str) -> str:
    """Return what stands for the name of a ``once`` in subjects: itself, or the hash of one that is no token."""
    return name if is_name(name.removeprefix("_")) else cut_hash(name.encode()).hex()
