"""Names, digests and run ids.

A run id is 32 hexadecimal digits. A root run's id is a UUIDv7 or derived from the caller's key; a child's id is a
pure function of its parent run, its workflow and its key or input digest, so that whoever spawns it again names the
same run (``docs/wire.md``, section Identity).
"""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import Final

from jetflow.errors import InvalidName

DIGEST_ALGORITHM: Final = "1"
"""Version of the input digest: canonical JSON of msgspec (sorted object keys), blake2b of 16 bytes."""

_EMPTY = blake2b(digest_size=16)
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


def is_name(text: str) -> bool:
    """Tell whether ``text`` can stand as a name."""
    return _NAME.match(text) is not None


def is_run_id(text: str) -> bool:
    """Tell whether ``text`` has the form of a run id."""
    return _RUN_ID.match(text) is not None


def input_digest(canonical: bytes) -> str:
    """Return the versioned digest of an input's canonical JSON."""
    digest = _EMPTY.copy()  # which takes less time than making one
    digest.update(canonical)
    return f"{DIGEST_ALGORITHM}-{digest.hexdigest()}"


def keyed_root_id(workflow: str, key: str) -> str:
    """Return the id of the root run that ``key`` names."""
    return _derive(f"-\n{workflow}\nkey\n", key).hexdigest()


def child_id(parent: str, workflow: str, *, key: str | None, digest: str) -> str:
    """Return the id of the child of ``parent`` that ``key`` names, or, without one, the input digest."""
    return child_id_bytes(
        child_id_prefix(parent, workflow, keyed=key is not None), digest if key is None else key
    ).hex()


def child_id_prefix(parent: str, workflow: str, *, keyed: bool) -> blake2b:
    """Return the part of a child's id that all children of one bulk spawn share."""
    return blake2b(f"{parent}\n{workflow}\n{'key' if keyed else 'hash'}\n".encode(), digest_size=16)


def child_id_bytes(prefix: blake2b, key_or_digest: str) -> bytes:
    """Return a child's id as 16 bytes."""
    derived = prefix.copy()
    derived.update(key_or_digest.encode("utf-8", "surrogatepass"))
    return derived.digest()


def _derive(prefix: str, text: str) -> blake2b:
    return blake2b(prefix.encode() + text.encode("utf-8", "surrogatepass"), digest_size=16)
