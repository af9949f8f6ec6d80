"""Random JSON texts, one a line, with a random schema and jetflow's canonical form: ``texts.py COUNT SEED``.

Each line is an object of ``text``, ``schema`` and ``canonical``, which is null for what jetflow refuses.
"""

from __future__ import annotations

import json
import random
import sys
from typing import Any, Final

from jetflow.errors import InvalidInput
from jetflow.wire.codec import Codec

KEYS: Final = ("a", "b", "B", "kind", "ä", "￿", "\U0001d11e", "", "10", "9", "\x7f", "</>")
STRINGS: Final = (*KEYS, '"', "\\", "\b\f\n\r\t", "\x00\x1f", "\u2028\u2029", "é", "e\u0301")
ODD: Final = (
    '"\\ud834\\udd1e"',
    '"\\uD834"',
    '"\\udd1e\\ud834"',
    '"\\/"',
    "1e400",
    "-1e400",
    "01",
    "tru",
    "1.",
    "[1,]",
    '"\t"',
)
EDGES: Final = (
    "0",
    "-0",
    "-0.0",
    "1.0",
    "1e0",
    "100e-2",
    "1e21",
    "1e-7",
    "9007199254740993",
    "5e-324",
    "1e-400",
    "0.1e1",
)


class Maker:
    """Makes texts and schemas by chance."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)

    def _pick(self, some: Any) -> Any:
        return self._chance.choice(some)

    def number(self) -> str:
        """A number, as many writers would write it."""
        chance = self._chance
        match chance.randrange(6):
            case 0:
                return self._pick(EDGES)
            case 1:
                return str(chance.randrange(-(10**25), 10**25))
            case 2:
                return repr(chance.uniform(-1, 1) * 10 ** chance.randrange(-300, 300))
            case 3:
                return f"{chance.randrange(-999, 999)}.{chance.randrange(10**6)}{self._pick(('', 'e5', 'E-9', 'e+20'))}"
            case _:
                return str(chance.randrange(-3, 12))

    def string(self, some: Any = STRINGS) -> str:
        """A string, escaped or not."""
        return json.dumps(
            "".join(self._pick(some) for _ in range(self._chance.randrange(4))), ensure_ascii=self._pick((True, False))
        )

    def text(self, depth: int) -> str:
        """A text, rarely one that is refused."""
        kind = self._chance.randrange(9 if depth else 5)
        if self._chance.random() < 0.01:
            return self._pick(ODD)
        if kind < 2:
            return self.number()
        if kind < 4:
            return self.string()
        if kind == 4:
            return self._pick(("null", "true", "false"))
        space = self._pick(("", " ", "\n\t"))
        inner = [self.text(depth - 1) for _ in range(self._chance.randrange(4))]
        if kind < 7:
            return "[" + space + (space + "," + space).join(inner) + space + "]"
        return "{" + ",".join(f"{json.dumps(self._pick(KEYS))}{space}:{one}" for one in inner) + space + "}"

    def schema(self, depth: int) -> dict[str, Any]:
        """A schema of what text() makes."""
        plain = (
            {},
            {"type": "number"},
            {"type": "integer"},
            {"type": "string"},
            {"type": ["number", "null"]},
            {"const": 1},
        )
        match self._chance.randrange(9 if depth else 3):
            case 0 | 1 | 2:
                return dict(self._pick(plain))
            case 3:
                return {"anyOf": [self.schema(depth - 1), self.schema(depth - 1)]}
            case 4:
                return {"type": "array", "items": self.schema(depth - 1), "uniqueItems": self._pick((True, False))}
            case 5:
                return {"type": "array", "prefixItems": [self._held(depth), self._held(depth)]}
            case 6:
                return {"type": "object", "additionalProperties": self.schema(depth - 1)}
            case _:
                return {
                    "type": "object",
                    "properties": {name: self._held(depth) for name in self._chance.sample(KEYS, 4)},
                }

    def _held(self, depth: int) -> dict[str, Any]:
        made = self.schema(depth - 1)
        return (
            made | {"default": self._pick((0, 1, 1.0, None, "", "a", [], {}))} if self._chance.random() < 0.6 else made
        )


def main(count: int, seed: int) -> None:
    """Print so many lines."""
    maker = Maker(seed)
    for _ in range(count):
        text, schema = maker.text(4), maker.schema(3)
        codec = Codec(Any, "text", schema=json.dumps(schema).encode())
        try:
            canonical = codec.canonical(codec.encode(codec.decode(text.encode()))).decode()
        except InvalidInput:
            canonical = None
        print(json.dumps({"text": text, "schema": schema, "canonical": canonical}))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
