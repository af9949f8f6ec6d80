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


# --- schemas


class Options(msgspec.Struct, tag="options"):
    depth: int = 0


class Settings(msgspec.Struct):
    options: Options = msgspec.field(default_factory=Options)
    names: list[str] = msgspec.field(default_factory=list)
    pair: tuple[str, ...] = msgspec.field(default_factory=tuple)
    token: str = msgspec.field(default_factory=lambda: "drawn anew")
    color: Color = Color.RED
    price: Decimal = Decimal("1.50")
    when: datetime = datetime(2026, 11, 22, tzinfo=UTC)


@dataclasses.dataclass
class DataSettings:
    data: Data | None = None
    names: list[str] = dataclasses.field(default_factory=list)


class Sealed(pydantic.BaseModel):
    secret: str

    @pydantic.field_serializer("secret")
    def _stored_or_shown(self, value: str, info: pydantic.FieldSerializationInfo) -> str:
        return value if info.context == {"jetflow": True} else "***"


def test_a_model_can_tell_that_it_is_stored() -> None:
    codec = Codec(Sealed, "a secret")
    sealed = Sealed(secret="word")
    assert sealed.model_dump() == {"secret": "***"}
    assert codec.decode(codec.encode(sealed)) == sealed


def test_object_is_taken_for_any() -> None:
    for kind in (object, dict[str, object], list[object]):
        codec = Codec(kind, "anything")
        value: Any = [1, None] if kind == list[object] else {"a": [1, None]}
        assert codec.decode(codec.encode(value)) == value


class Inner(pydantic.BaseModel):
    names: list[str] = pydantic.Field(default_factory=list)


class Outer(pydantic.BaseModel):
    inner: Inner = pydantic.Field(default_factory=Inner)
    other: Inner = Inner(names=["a"])
    token: str = pydantic.Field(default_factory=lambda: "drawn anew")
    color: Color = Color.RED
    price: Decimal = Decimal("1.50")


def properties(kind: Any, name: str) -> dict[str, Any]:
    return msgspec.json.decode(Codec(kind, "").schema)["$defs"][name]["properties"]


def test_schemas_tell_the_defaults() -> None:
    """Those of factories, too, if what they make is known; the identity of an input depends on it."""
    told = {name: schema.get("default", "none") for name, schema in properties(Settings, "Settings").items()}
    assert told == {
        "options": {"type": "options"},
        "names": [],
        "pair": [],
        "token": "none",
        "color": "red",
        "price": "1.50",
        "when": "2026-11-22T00:00:00Z",
    }
    told = {name: schema.get("default", "none") for name, schema in properties(DataSettings, "DataSettings").items()}
    assert told == {"data": None, "names": []}
    told = {name: schema.get("default", "none") for name, schema in properties(Outer, "pydantic.Outer").items()}
    assert told == {"inner": {}, "other": {"names": ["a"]}, "token": "none", "color": "red", "price": "1.50"}


def test_models_inside_other_types_are_defined_once() -> None:
    schema = msgspec.json.decode(Codec(dict[str, list[Outer] | Wrapped], "").schema)
    assert schema["$defs"].keys() == {"pydantic.Outer", "pydantic.Inner", "pydantic.Model", "Color", "Wrapped"} - {
        "Color"
    } | ({"pydantic.Color"} & schema["$defs"].keys())


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


class Maybe(msgspec.Struct):
    count: int | None = None
    ratio: float | None = None


class Measured(pydantic.BaseModel):
    ratios: list[float | None] = []


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        (float, NAN, r"nan cannot be written as JSON - at `\$`"),
        (Any, {"a": [None, -INF]}, r"-inf cannot be written as JSON - at `\$\.a\[1\]`"),
        (Maybe, Maybe(ratio=INF), r"inf cannot be written as JSON - at `\$\.ratio`"),
        (Maybe, Maybe(count=NAN), r"nan cannot be written as JSON - at `\$\.count`"),  # pyright: ignore
        (Measured, Measured(ratios=[1, NAN]), r"nan cannot be written as JSON - at `\$\.ratios\[1\]`"),
        (list[Measured], [Measured(ratios=[NAN])], r"nan cannot be written as JSON - at `\$\[0\]\.ratios\[0\]`"),
        (Any, {"a": "\ud800"}, r"'\\ud800' holds surrogates.* at `\$\.a`"),
        (Any, [{"\ud800": 1}], r"'\\ud800' holds surrogates.* at `key of \$\[0\]`"),
    ],
    ids=range(8),
)
def test_what_json_cannot_hold_is_named_with_its_path(kind: Any, value: object, message: str) -> None:
    with pytest.raises(InvalidInput, match=rf"^input of w: {message}"):
        Codec(kind, "input of w").encode(value)
    with pytest.raises(InvalidOutput, match=rf"^input of w: {message}"):
        Codec(kind, "input of w").encode_output(value)


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


def test_an_input_has_a_greatest_depth() -> None:
    assert ANY.encode({"wide": [[], {}] * 200, "deep": nested(99)})
    for value in (nested(101), {"deep": nested(100)}):
        with pytest.raises(InvalidInput, match=r"^value: more than 100 arrays and objects stand in one another"):
            ANY.encode(value)
    with pytest.raises(InvalidInput, match="recursion"):
        ANY.decode(b"[" * 5000 + b"]" * 5000)


def test_integers_keep_all_their_digits() -> None:
    for value in (2**64, -(2**64), 10**300):
        assert ANY.decode(ANY.encode(value)) == value
        assert ANY.canonical(ANY.encode(value)).decode() == str(value)
    assert Codec(int, "").encode(2**64) == b"18446744073709551616"
    with pytest.raises(InvalidInput, match="Number out of range"):
        Codec(float, "").encode(10**400)
    by_name = Codec(Any, "n", schema=Codec(float, "").schema)
    with pytest.raises(InvalidInput, match=r"^n: int too large"):
        by_name.digest(by_name.encode(10**400))


class Aliased(pydantic.BaseModel):
    day: str = pydantic.Field(default="mon", alias="Day")


class TwoNames(pydantic.BaseModel):
    day: str = pydantic.Field(default="mon", serialization_alias="Day")


class Computed(pydantic.BaseModel, extra="forbid"):
    width: int

    @pydantic.computed_field
    @property
    def area(self) -> int:
        return self.width**2


def test_a_pydantic_model_is_read_as_it_was_written() -> None:
    assert Codec(Aliased, "").encode(Aliased(Day="tue")) == b'{"Day":"tue"}'
    assert Codec(Computed, "").encode(Computed(width=2)) == b'{"width":2}'
    assert Codec(Computed, "").decode(b'{"width":2}').area == 4
    with pytest.raises(InvalidInput, match=r"^w: it is another value when it is read again"):
        Codec(TwoNames, "w").encode(TwoNames(day="tue"))


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
