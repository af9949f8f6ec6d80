"""Writes the groups of vectors.json that are about identity; other groups of the file are left as they are.

What is expected is computed by jetflow, and checked by ``check_vectors.mjs``, which shares no code with it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jetflow.engine.identity import child_id, keyed_root_id, once_token
from jetflow.engine.joins import id_sum
from jetflow.runs.values import chunk_size, chunks_of
from jetflow.wire.codec import Codec
from jetflow.wire.records import shown_key

FILE = Path(__file__).with_name("vectors.json")

NUMBERS = """
    0 -0 0.0 -0.0 1 1.0 -1.0 1e0 10e-1 1.5 0.1 0.30000000000000004 100.0 1E5 1e20 1e21 -1e21 1.5e21 1e22 1e23
    123456789012345680000.0 999999999999999900000.0 1e15 1e16 1e17 12345678901234567.0 0.001 0.0001 0.00001 0.000001
    0.0000001 1e-6 1e-7 1.5e-7 -1e-7 5e-324 4.9e-324 1e-400 2.2250738585072014e-308 1.7976931348623157e308
    9007199254740991 9007199254740992 9007199254740993 9007199254740993.0 9223372036854775807 9223372036854775808
    18446744073709551615 18446744073709551616 -9223372036854775809 1000000000000000000000
    123456789012345678901234567890123456789012345678901234567890
"""

TEXTS = [
    "null", "true", "false", '""', "[]", "{}", ' { "b" : 1 , "a" : [ 1.5, "é" ] } ', '{"path":"/usr/lib"}',
    '{"":1,"a":{"":null}}', '{"a":1,"a":2}', '{"a":{"x":1},"a":{"y":2}}', '{"10":1,"9":2,"A":3,"a":4,"_":5}',
    '{"€":1,"\\ud83d\\ude00":2,"דּ":3,"a":4}', '{"\\u0061":1,"\\u00e9":2}', '"\\ud83d\\ude00"', '"\\/\\u002f/"',
    '"\\u0000\\u0001\\b\\t\\n\\u000b\\f\\r\\u001f \\u007f\\u0080\\u2028\\u2029\\"\\\\"', '"<>&\'"', '"e\\u0301 and é"',
    '"1.0 1e21 null"', "[" * 100 + "]" * 100, '[1,"1",1.0,[1e2],{"x":1e2}]',
]  # fmt: skip

JOB = {
    "$ref": "#/$defs/Job",
    "$defs": {
        "Job": {
            "type": "object",
            "properties": {
                "path": {"type": "string"},
                "ratio": {"type": "number", "default": 1},
                "priority": {"type": "integer", "default": 0},
                "tags": {"type": "array", "items": {"type": "string"}, "default": []},
                "note": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
                "limits": {"$ref": "#/$defs/Limits", "default": {}},
                "strict": {"$ref": "#/$defs/Limits", "default": {"cpu": 4}},
                "next": {"anyOf": [{"$ref": "#/$defs/Job"}, {"type": "null"}], "default": None},
            },
            "required": ["path"],
        },
        "Limits": {"type": "object", "properties": {"cpu": {"type": "number", "default": 0.5}}},
    },
}
PET = {
    "oneOf": [
        {
            "type": "object",
            "properties": {"kind": {"const": kind, "default": kind}, "age": {"type": "number", "default": 1}},
        }
        for kind in ("cat", "dog")
    ]
}
UNTAGGED = {
    "anyOf": [
        {"type": "object", "properties": {"x": {"type": "number", "default": 0}}},
        {"type": "object", "properties": {"y": {"type": "number", "default": 0}}},
    ]
}
POINT = {
    "type": "array",
    "prefixItems": [{"type": "number"}, {"type": "number", "default": 0}, {"type": "number", "default": 0}],
}
LARGE = "1000000000000000000000"
TYPED: list[tuple[Any, list[str]]] = [
    ({"type": "number"}, ["1", "1.0", "9007199254740993", LARGE, "-0"]),
    ({"type": "integer"}, ["1", "9007199254740993", LARGE]),
    ({"anyOf": [{"type": "number"}, {"type": "null"}]}, [LARGE, "null"]),
    ({"anyOf": [{"type": "number"}, {"type": "integer"}]}, [LARGE, "1.0"]),
    ({"type": ["number", "null"]}, [LARGE]),
    ({}, [LARGE, "1e21", "1.0"]),
    ({"type": "array", "items": {"type": "number"}}, [f"[1,1.0,{LARGE}]"]),
    ({"type": "object", "additionalProperties": {"type": "number"}}, [f'{{"b":{LARGE},"a":1.0}}']),
    (
        JOB,
        [
            '{"path":"a"}',
            '{"path":"a","ratio":1.0,"priority":0,"tags":[],"note":null,"limits":{"cpu":0.5},"strict":{"cpu":4.0},"next":null}',
            '{"path":"a","ratio":2,"priority":1,"tags":["x"],"note":"n","limits":{"cpu":1},"strict":{"cpu":5}}',
            '{"path":"a","strict":{}}',
            '{"path":"a","strict":{"cpu":0.5}}',
            '{"path":"a","next":{"path":"b","priority":0,"next":{"path":"c","tags":[],"limits":{}}}}',
            '{"path":"a","unknown":0,"nothing":null}',
            '{"path":"a","priority":null,"ratio":"1"}',
            '"no object"',
        ],
    ),
    (PET, ['{"kind":"cat","age":1}', '{"kind":"dog","age":1.0}', '{"kind":"dog","age":2}', '{"kind":"cow","age":1.0}']),
    (UNTAGGED, ['{"x":0}', '{"y":0.0}']),
    ({"type": "array", "uniqueItems": True, "items": {"type": "number"}}, ["[10,9,1.0,1]"]),
    ({"type": "array", "uniqueItems": True, "items": {"type": "string"}}, ['["b","a","b","é","A"]']),
    (POINT, ["[1]", "[1,0]", "[1,0,0.0]", "[1,2,0]", "[1,0,3]", "[0,0,0]", "[1,0,0,0]"]),
]

REFUSED = [
    '"\\ud800"', '"\\udc00\\ud800"', '{"\\udfff":1}', "1e400", "-1e400", "[1e309]", "NaN", "Infinity", "-Infinity",
    "nan", "01", "1.", ".5", "+1", "0x1", "1e", "[1,]", '{"a":1,}', "{'a':1}", '"\t"', '"\\x"', "tru", "1 2", "[", '"',
    "\ufeff1", "// 1", "[" * 101 + "]" * 101, '{"a":' * 101 + "1" + "}" * 101,
]  # fmt: skip

KEYS = ["nightly-2026-11-22", "", " ", "/usr/lib", "Zoë ☃ 日本 😀", "line\r\nbreak: x", "\u0000", "k" * 200, "k" * 201,
        "😀" * 201, 'quote " and \\']  # fmt: skip


def groups() -> dict[str, list[Any]]:
    """Return the groups by their names."""
    root = keyed_root_id("index-tree", "nightly-2026-11-22")
    ids = [child_id(root, "index-file", key=key, digest="") for key in KEYS]
    lib = _canonical('{"path":"/usr/lib"}', {})["digest"]
    return {
        "canonical": [_canonical(text, None) for text in [*NUMBERS.split(), *TEXTS]]
        + [_canonical(text, schema) for schema, texts in TYPED for text in texts],
        "refused": list(REFUSED),
        "root_ids": [{"workflow": "index-tree", "key": key, "id": keyed_root_id("index-tree", key)} for key in KEYS],
        "child_ids": [
            {
                "parent": root,
                "workflow": "index-file",
                "input": '{"path":"/usr/lib"}',
                "id": child_id(root, "index-file", key=None, digest=lib),
            },
            *(
                {"parent": root, "workflow": "index-file", "key": key, "id": one}
                for key, one in zip([*KEYS, lib], [*ids, child_id(root, "index-file", key=lib, digest="")], strict=True)
            ),
        ],
        "refused_keys": ["\ud800", "a\udcff", "\ude00\ud83d"],
        "id_sums": [_sum([]), _sum(ids[:1]), _sum(ids), _sum(["f" * 32, f"{2:032x}"]), _sum(["f" * 32] * 3)],
        "shown_keys": [{"key": key, "shown": json.loads(shown_key(key))} for key in KEYS],
        "once_tokens": [
            {"name": name, "token": once_token(name)}
            for name in [
                "started-at",
                "_mine",
                "-mine",
                "two words",
                "a.b",
                "",
                "é",
                "a" * 64,
                "_" + "a" * 64,
                "a" * 65,
            ]
        ],
        "value_refs": [
            _value("x", 262_145, 1_048_576),
            _value("x", 262_145, 8_388_608),
            _value("0123456789", 30_000, 400_000),
            _value('{"é":1}', 9_000, 65_536),
        ],
    }


def _canonical(text: str, schema: Any) -> dict[str, Any]:
    codec = Codec(Any, "vector", schema=json.dumps(schema or {}).encode())
    body = codec.encode(codec.decode(text.encode()))
    known = {} if schema is None else {"schema": schema}
    return {"text": text, **known, "canonical": codec.canonical(body).decode(), "digest": codec.digest(body)}


def _sum(ids: list[str]) -> dict[str, Any]:
    return {"ids": ids, "sum": f"{id_sum(bytes.fromhex(''.join(ids))):032x}"}


def _value(unit: str, times: int, max_payload: int) -> dict[str, Any]:
    """Return the vector of ``unit`` written ``times`` times; ``chunks`` are the sizes of the chunks."""
    reference, chunks = chunks_of(unit.encode() * times, chunk_size(max_payload))
    return {
        "bytes": {"repeat": unit, "times": times},
        "max_payload": max_payload,
        "ref": reference,
        "chunks": [len(chunk) for chunk in chunks],
    }


if __name__ == "__main__":
    stored = json.loads(FILE.read_text()) if FILE.exists() else {}
    FILE.write_text(json.dumps({**stored, **groups()}, ensure_ascii=True, indent=1) + "\n")
