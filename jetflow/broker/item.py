"""Messages that are published with others, and how they stand on the wire."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec


class Item(msgspec.Struct, frozen=True, gc=False):
    """One message to publish."""

    subject: str
    headers: bytes
    body: bytes


def written(items: Iterable[Item], replies: Iterable[str]) -> list[bytes]:
    """Return messages as they stand on the wire, each with its reply, in pieces."""
    pieces: list[bytes] = []
    for item, reply in zip(items, replies, strict=True):
        headers, body = item.headers, item.body
        if headers:
            line = f"HPUB {item.subject} {reply} {len(headers)} {len(headers) + len(body)}\r\n"
            pieces += (line.encode(), headers, body, b"\r\n")
        else:
            pieces += (f"PUB {item.subject} {reply} {len(body)}\r\n".encode(), body, b"\r\n")
    return pieces
