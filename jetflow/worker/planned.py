"""A child that is about to be spawned."""

from __future__ import annotations

import msgspec

from jetflow.broker.atomic import Item


class Planned(msgspec.Struct, frozen=True, gc=False):
    """One child that is about to be spawned: its id, its key and the digest of its input, and its first task."""

    id: bytes
    key: str | None
    digest: str
    item: Item
