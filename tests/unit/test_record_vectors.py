"""What records and policies mean to every implementation: ``conformance/vectors``, held against this one.

Of ``records.json``: ``json`` is a record as it is stored, ``decoded`` each of its fields with what was left out filled
in, or null if it cannot be read.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from jetflow.engine.policies import JoinPolicy
from jetflow.errors import MalformedRecord
from jetflow.wire.records import (
    Mark,
    decode_attempt,
    decode_declaration,
    decode_graph,
    decode_join,
    decode_mark,
    decode_outcome,
)

VECTORS: Final = Path(__file__).parents[2] / "conformance" / "vectors"
RECORDS: Final[list[dict[str, Any]]] = json.loads((VECTORS / "records.json").read_text())
POLICIES: Final[list[dict[str, Any]]] = json.loads((VECTORS / "policies.json").read_text())

READERS: Final[dict[str, Callable[[str], Any]]] = {
    "outcome": decode_outcome,
    "attempt": decode_attempt,
    "join": decode_join,
    "graph": decode_graph,
    "declaration": decode_declaration,
    "mark": decode_mark,
}


OF_FULL = (
    "waits",
    "on",
    "gate",
    "limited",
    "admits",
    "booked",
    "adopted",
    "limits",
    "rates",
    "gated",
    "levels",
    "level",
    "streamed",
    "loosable",
    "looser",
    "loosened",
    "batch",
    "requires",
    "idempotent",
)
"""Fields that only level *full* reads: vectors are for all levels, and leave them out where they are empty."""


def expanded(value: Any) -> Any:
    """Return a record with all its fields, as JSON has them."""
    if isinstance(value, msgspec.Raw):
        return msgspec.json.decode(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, tuple | list):
        return [expanded(one) for one in value]
    if isinstance(value, dict):
        return {name: expanded(one) for name, one in value.items()}
    if isinstance(value, msgspec.Struct):
        fields = {name: expanded(getattr(value, name)) for name in value.__struct_fields__}
        fields = {name: field for name, field in fields.items() if name not in OF_FULL or field}
        return list(fields.values()) if value.__struct_config__.array_like else fields
    return value


@pytest.mark.parametrize("vector", RECORDS, ids=lambda vector: f"{vector['kind']}-{vector['json'][:40]}")
def test_records(vector: dict[str, Any]) -> None:
    read = READERS[vector["kind"]]
    if vector["decoded"] is not None:
        decoded = expanded(read(vector["json"]))
        if not decoded.get("adopted"):  # which the vectors leave out where nothing was adopted
            decoded.pop("adopted", None)
        assert decoded == vector["decoded"]
    elif vector["kind"] in ("outcome", "attempt"):  # whoever reads them must go on
        error = read(vector["json"]).error
        assert error.type == f"Malformed{vector['kind'].capitalize()}"
    elif vector["kind"] == "mark":
        assert read(vector["json"]) == Mark()
    else:
        with pytest.raises(MalformedRecord):
            read(vector["json"])


def test_every_kind_has_one_that_leaves_all_defaults_out_and_one_that_cannot_be_read() -> None:
    for kind in READERS:
        decoded = [vector["decoded"] for vector in RECORDS if vector["kind"] == kind]
        assert None in decoded
        assert any(decoded)


@pytest.mark.parametrize("vector", POLICIES, ids=str)
def test_policies(vector: dict[str, Any]) -> None:
    policy = msgspec.json.decode(msgspec.json.encode(vector["policy"]), type=JoinPolicy)
    ends = vector["total"], vector["succeeded"], vector["ended"]
    assert (policy.verdict(*ends), policy.missing(*ends)) == (vector["verdict"], vector["missing"])
