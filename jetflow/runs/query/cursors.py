"""Cursors: where a list goes on. Opaque to whoever holds one, and bound to the question that it is of."""

from __future__ import annotations

import base64
import binascii
from hashlib import sha256
from typing import Any

import msgspec

from jetflow.errors import InvalidQuery


class Cursor(msgspec.Struct, frozen=True, array_like=True):
    """A place in a list: behind (or before) the message of stream sequence ``at``, which is at place ``n`` of it.

    Without a sequence the place itself is sought.
    """

    question: str
    at: int
    n: int

    def text(self) -> str:
        """Return it as it travels."""
        return base64.urlsafe_b64encode(msgspec.json.encode(self)).rstrip(b"=").decode()


def question(**asked: Any) -> str:
    """Return what tells one question from another: filters and order, without where and how much."""
    return sha256(msgspec.json.encode(asked, order="sorted")).hexdigest()[:8]


def read_cursor(text: str, asked: str) -> Cursor:
    """Return the cursor that a text is.

    Raises:
        InvalidQuery: it is none, or of another question.
    """
    cursor = _decoded(text)
    if cursor is None:
        raise InvalidQuery(f"{_cut(text)!r} is no cursor: use the next or previous of a page")
    if cursor.question != asked:
        raise InvalidQuery(f"the cursor {_cut(text)!r} is of another question: begin without one")
    return cursor


def is_cursor(text: str) -> bool:
    """Tell whether a text is a cursor, of whatever question."""
    return _decoded(text) is not None


def _decoded(text: str) -> Cursor | None:
    try:
        cursor = msgspec.json.decode(base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True), type=Cursor)
    except (ValueError, binascii.Error, UnicodeError):
        return None
    return cursor if cursor.at >= 0 and cursor.n >= 0 else None


def _cut(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:79]}…"
