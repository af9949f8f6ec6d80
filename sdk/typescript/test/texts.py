"""Random JSON texts, a line each, with their canonical form by a random schema: ``texts.py COUNT SEED``.

A line is ``{"text", "schema", "canonical"}``; ``canonical`` is null for what jetflow refuses.
"""

from __future__ import annotations

import json
import random
import sys
from typing import Any

from jetflow.errors import InvalidInput
from jetflow.wire.codec import Codec

WORDS = [
    "a",
    "b",
    "kind",
    "né",
    "\U0001f600",
    "\ue000",
    "\u2028",
    "",
    "__proto__",
    "constructor",
    'q"',
    "\\",
    "\n",
    "\x7f",
    "10",
    "9",
]


def number(draw: random.Random) -> str:
    kind = draw.randrange(9)
    if kind == 0:
        return str(draw.randrange(-5, 20))
    if kind == 1:
        return str(draw.randrange(-(2**70), 2**70))
    if kind == 2:
        return repr(draw.uniform(-1e3, 1e3))
    if kind == 3:
        return f"{draw.randrange(1, 10 ** draw.randrange(1, 19))}e{draw.randrange(-330, 320)}"
    if kind == 4:
        return draw.choice(
            [
                "-0",
                "-0.0",
                "0e5",
                "1E2",
                "1.0",
                "100.00",
                "1e400",
                "9007199254740993",
                "1e21",
                "123456789012345680000.0",
            ]
        )
    if kind == 5:
        return f"{draw.randrange(-99, 99)}.{draw.randrange(10 ** draw.randrange(1, 20))}"
    return str(draw.randrange(3))


def text(draw: random.Random) -> str:
    kind = draw.randrange(12)
    if kind == 0:
        return draw.choice(
            ['"\\ud800"', '"\\udc00x"', '"\\ud83d\\ude00"', '"\\u00e9"', '"\\/"', '"\\u0001"', '"\\u007f"']
        )
    return json.dumps("".join(draw.choices(WORDS, k=draw.randrange(3))), ensure_ascii=draw.random() < 0.5)


def value(draw: random.Random, depth: int) -> str:
    space = draw.choice(["", "", " ", "\n"])
    kind = draw.randrange(8 if depth else 6)
    if kind < 2:
        return number(draw)
    if kind < 4:
        return text(draw)
    if kind < 6:
        return draw.choice(
            ["true", "false", "null", "nul", "01", "1."] if draw.random() < 0.05 else ["true", "false", "null"]
        )
    inner = [value(draw, depth - 1) for _ in range(draw.randrange(4))]
    if kind == 6:
        return f"[{space}{f',{space}'.join(inner)}]"
    members = (
        f"{json.dumps(draw.choice(WORDS), ensure_ascii=draw.random() < 0.5)}{space}:{space}{one}" for one in inner
    )
    return f"{{{space}{','.join(members)}{space}}}"


def schema(draw: random.Random, depth: int) -> dict[str, Any]:
    kind = draw.randrange(9 if depth else 5)
    made: dict[str, Any] = [
        {},
        {"type": "number"},
        {"type": "integer"},
        {"type": "string"},
        {"type": ["number", "null"]},
        {"type": "array"},
        {"type": "object"},
        {"anyOf": []},
        {"type": "object"},
    ][kind]
    if kind == 5:
        made["items"] = schema(draw, depth - 1)
        if draw.random() < 0.3:
            made["uniqueItems"] = True
        elif draw.random() < 0.3:
            made["prefixItems"] = [
                schema(draw, depth - 1) | {"default": draw.choice([0, 1, None, "a"])} for _ in range(2)
            ]
    if kind in (6, 8):
        made["properties"] = {
            draw.choice(WORDS[:6]): schema(draw, depth - 1)
            | ({"default": draw.choice([0, 1.0, None, "a", []])} if draw.random() < 0.5 else {})
            for _ in range(3)
        }
        if draw.random() < 0.3:
            made["properties"]["kind"] = {"const": draw.choice(["a", 1])}
        if draw.random() < 0.4:
            made["additionalProperties"] = schema(draw, depth - 1)
    if kind == 7:
        made["anyOf"] = [schema(draw, depth - 1) for _ in range(2)]
    return made


def main(count: int, seed: int) -> None:
    draw = random.Random(seed)
    for _ in range(count):
        given, said = value(draw, 4), schema(draw, 3) if draw.random() < 0.6 else {}
        codec = Codec(Any, "text", schema=json.dumps(said).encode())
        try:
            found = codec.canonical(codec.encode(codec.decode(given.encode()))).decode()
        except InvalidInput:
            found = None
        print(json.dumps({"text": given, "schema": said, "canonical": found}))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
