"""JSON of typed values."""

import dataclasses
import enum
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict
from uuid import UUID

import msgspec
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jetflow.errors import InvalidDeclaration, InvalidInput, InvalidOutput
from jetflow.wire.codec import ANY, Codec


class Point(msgspec.Struct):
    x: int
    y: int = 0


class Swapped(msgspec.Struct):
    y: int
    x: int


class Nested(msgspec.Struct):
    points: list[Point]


@dataclasses.dataclass
class Data:
    x: int
    when: datetime


class Typed(TypedDict):
    x: int
    tags: list[str]


class Model(pydantic.BaseModel):
    x: int
    name: str = "n"


class Wrapped(msgspec.Struct):
    model: Model


class Color(enum.Enum):
    RED = "red"


class Custom:
    pass


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        (Point, Point(1), '{"x":1,"y":0}'),
        (Data, Data(1, datetime(2026, 11, 22, tzinfo=UTC)), '{"when":"2026-11-22T00:00:00Z","x":1}'),
        (Typed, {"x": 1, "tags": ["é"]}, '{"tags":["é"],"x":1}'),
        (Model, Model(x=1), '{"name":"n","x":1}'),
        (Wrapped, Wrapped(Model(x=2)), '{"model":{"name":"n","x":2}}'),
        (list[Point], [Point(1)], '[{"x":1,"y":0}]'),
        (dict[str, list[Model]], {"a": [Model(x=1)]}, '{"a":[{"name":"n","x":1}]}'),
        (tuple[int, str], (1, "a"), '[1,"a"]'),
        (Point | None, None, "null"),
        (Literal["a", "b"], "a", '"a"'),
        (Color, Color.RED, '"red"'),
        (bytes, b"\xff", '"/w=="'),
        (Decimal, Decimal("1.50"), '"1.50"'),
        (UUID, UUID(int=1), '"00000000-0000-0000-0000-000000000001"'),
        (set[int], {3, 1, 2}, "[1,2,3]"),
        (None, None, "null"),
        (Any, {"b": [1, None], "a": 1.5}, '{"a":1.5,"b":[1,null]}'),
    ],
    ids=str,
)
def test_types_that_travel(kind: Any, value: Any, text: str) -> None:
    codec = Codec(kind, "value")
    assert codec.encode(value) == text.encode()
    assert codec.encode_output(value) == text.encode()
    assert codec.decode(text.encode()) == value
    assert codec.decode(msgspec.Raw(text.encode())) == value
    assert isinstance(msgspec.json.decode(codec.schema), dict)


@pytest.mark.parametrize(
    "kind",
    [Custom, list[Custom], dict[str, Custom], Path, Callable[[], int], complex, Point | Swapped, "Unknown"],
    ids=str,
)
def test_types_that_cannot_travel_are_refused_when_declared(kind: Any) -> None:
    with pytest.raises(InvalidDeclaration, match=r"^input of w: the type .* cannot travel as JSON"):
        Codec(kind, "input of w")


# --- identity


def test_the_order_of_fields_is_not_part_of_the_identity() -> None:
    assert Codec(Swapped, "").encode(Swapped(y=2, x=1)) == Codec(Point, "").encode(Point(1, 2))
    assert ANY.encode({"y": 2, "x": 1}) == ANY.encode({"x": 1, "y": 2}) == Codec(Point, "").encode(Point(1, 2))


def test_a_value_that_fits_is_brought_to_the_declared_type() -> None:
    assert Codec(Point, "").encode({"x": 1}) == Codec(Point, "").encode(Point(1))
    assert Codec(Model, "").encode({"x": 1}) == Codec(Model, "").encode(Model(x=1))
    assert Codec(Point, "").encode(Model(x=1)) == b'{"x":1,"y":0}'


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=30)
@given(json_values)
def test_canonical_json_is_stable(value: object) -> None:
    once = ANY.encode(value)
    assert ANY.decode(once) == value
    assert ANY.encode(ANY.decode(once)) == once


# --- errors


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        (
            Nested,
            b'{"points":[{"x":1},{"x":"a"}]}',
            r"^input of w: Expected `int`, got `str` - at `\$\.points\[1\]\.x`$",
        ),
        (Nested, b'{"points":[{}]}', r"missing required field `x` - at `\$\.points\[0\]`"),
        (Wrapped, b'{"model":{"x":"a"}}', r"x\n.* valid integer(.|\n)* at `\$\.model`"),
        (Point, b"not json", r"^input of w: JSON is malformed"),
        (Point, b"", r"^input of w: Input data was truncated"),
        (str, b'"\xff"', r"^input of w: "),
        (int, b"1 2", r"^input of w: JSON is malformed: trailing characters"),
    ],
)
def test_input_that_does_not_fit_is_named_by_its_path(kind: Any, text: bytes, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        Codec(kind, "input of w").decode(text)


def test_input_is_checked_before_it_leaves() -> None:
    with pytest.raises(InvalidInput, match=r"Expected `int`, got `str` - at `\$\.x`"):
        Codec(Point, "input of w").encode({"x": "1"})
    with pytest.raises(InvalidInput, match="Custom cannot be written as JSON"):
        ANY.encode([Custom()])
    with pytest.raises(InvalidInput, match="surrogates"):
        ANY.encode("\udcff")
    with pytest.raises(InvalidInput):
        Codec(Annotated[int, msgspec.Meta(ge=0)], "n").encode(-1)
    circle: list[Any] = []
    circle.append(circle)
    with pytest.raises(InvalidInput, match="recursion"):
        ANY.encode(circle)


@pytest.mark.parametrize("value", [Custom(), "\udcff", {"x": "1"}, float], ids=["class", "surrogate", "type", "float"])
def test_output_that_does_not_fit_is_refused(value: object) -> None:
    with pytest.raises(InvalidOutput, match=r"^output of w: "):
        Codec(Point, "output of w").encode_output(value)
