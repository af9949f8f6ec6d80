"""What comes out is what went in, or it is refused with the path where it stands."""

# pyright: reportArgumentType=false

from __future__ import annotations

import dataclasses
import enum
import re
import string
from collections import Counter, OrderedDict, defaultdict, namedtuple
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from functools import reduce
from math import isnan
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, NamedTuple, NotRequired, TypedDict, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jetflow.errors import InvalidDeclaration, InvalidInput, InvalidOutput, JetflowError
from jetflow.wire.codec import ANY, Codec

T = TypeVar("T")
BERLIN = ZoneInfo("Europe/Berlin")


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Point(msgspec.Struct):
    x: int
    y: float = 0.0


class Solid(Point):
    z: int = 0


class Renamed(msgspec.Struct, rename="camel", omit_defaults=True):
    file_name: str = ""
    when_made: datetime | None = None


class Row(msgspec.Struct, array_like=True):
    name: str
    rest: list[int] = []


class Cat(msgspec.Struct, tag="cat"):
    lives: int


class Dog(msgspec.Struct, tag="dog"):
    tricks: set[str]


class Page(msgspec.Struct, Generic[T]):
    items: list[T]


class Event(msgspec.Struct):
    payload: object = None
    extra: dict[str, Any] = {}


@dataclasses.dataclass
class Made:
    width: int
    area: int = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.area = self.width * 2


@dataclasses.dataclass
class Doubling:
    width: int

    def __post_init__(self) -> None:
        self.width *= 2


class Pair(NamedTuple):
    left: int
    right: Any = None


class Settings(TypedDict):
    name: str
    depth: NotRequired[int]


class Aliased(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(populate_by_name=True)
    day: str = pydantic.Field(default="mon", alias="Day")
    count: int = 0

    @pydantic.computed_field
    @property
    def twice(self) -> int:
        return 2 * self.count


class WithHidden(pydantic.BaseModel):
    shown: int
    hidden: int = pydantic.Field(default=0, exclude=True)


class WithJson(pydantic.BaseModel):
    numbers: pydantic.Json[list[int]]


class WithBytes(pydantic.BaseModel):
    data: bytes


class Login(pydantic.BaseModel):
    user: str
    password: pydantic.SecretStr


class OpenLogin(Login):
    @pydantic.field_serializer("password", when_used="json")
    def _whole(self, password: pydantic.SecretStr) -> str:
        return password.get_secret_value()


class Account(pydantic.BaseModel):
    login: OpenLogin | None = None
    logins: list[Login] = []


floats = st.floats()
text = st.text(max_size=5)
ints = st.integers(-(2**70), 2**70)
zones = st.sampled_from([None, UTC, BERLIN, timezone(timedelta(hours=-3, minutes=30)), timezone(timedelta(seconds=61))])
points = st.builds(Point, ints, floats)
plain = st.recursive(
    st.none() | st.booleans() | ints | floats | text,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(text, inner, max_size=2),
    max_leaves=4,
)
odd = st.sampled_from(
    [
        (1, "a"),
        {1, 2},
        b"\xff",
        date(2026, 1, 1),
        Decimal("1.10"),
        UUID(int=5),
        Color.RED,
        Level.HIGH,
        Point(1),
        Made(3),
        Pair(1),
        Aliased(Day="tue"),
        Login(user="u", password="hunter2"),
        pydantic.SecretStr("hunter2"),
        {1: "a"},
        {(1, 2): "a"},
        OrderedDict(b=1, a=2),
        defaultdict(int, a=1),
        Counter("aab"),
        namedtuple("P", "x")(1),
        Path("/x"),
        object(),
        "\udcff",
        float("nan"),
    ]
)
anything = st.recursive(
    plain | odd,
    lambda inner: st.lists(inner, max_size=2) | st.tuples(inner) | st.dictionaries(text, inner, max_size=2),
    max_leaves=4,
)

SCALARS: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (int, ints),
    (str, text | st.just("\udcff")),
    (bool, st.booleans()),
    (float, floats),
    (float | None, floats | st.none()),
    (bytes, st.binary(max_size=5)),
    (WithBytes, st.builds(WithBytes, data=st.binary(max_size=3))),
    (frozenset, st.frozensets(ints | text | st.binary(max_size=2), max_size=3)),
    (Decimal, st.decimals() | st.just(Decimal("sNaN"))),
    (UUID, st.uuids()),
    (datetime, st.datetimes(timezones=zones)),
    (date, st.dates()),
    (time, st.times(timezones=zones)),
    (timedelta, st.timedeltas()),
    (Color, st.sampled_from(Color)),
    (Level, st.sampled_from(Level)),
    (Literal["a", 1], st.sampled_from(["a", 1])),
    (Annotated[int, msgspec.Meta(ge=0)], ints),
    (int | str, ints | text),
    (object, anything),
    (Any, anything),
    (None, st.none()),
    (Point, points | st.builds(Solid, ints)),
    (Renamed, st.builds(Renamed, text, st.datetimes() | st.none())),
    (Row, st.builds(Row, text, st.lists(ints, max_size=2))),
    (Cat | Dog, st.builds(Cat, ints) | st.builds(Dog, st.sets(text, max_size=2))),
    (Page[int], st.builds(Page, st.lists(ints, max_size=2))),
    (Page[Point], st.builds(Page, st.lists(points, max_size=2))),
    (Event, st.builds(Event, anything, st.dictionaries(text, anything, max_size=1))),
    (Made, st.builds(Made, ints)),
    (Doubling, st.builds(Doubling, ints)),
    (Pair, st.builds(Pair, ints, anything)),
    (Settings, st.fixed_dictionaries({"name": text}, optional={"depth": ints, "unknown": ints})),
    (Aliased, st.builds(Aliased, day=text, count=ints)),
    (WithHidden, st.builds(WithHidden, shown=ints, hidden=st.integers(0, 1))),
    (WithJson, st.builds(WithJson, numbers=st.just("[1,2]"))),
    (Login, st.builds(Login, user=text, password=text)),
    (OpenLogin, st.builds(OpenLogin, user=text, password=text)),
    (
        Account,
        st.builds(
            Account,
            login=st.none() | st.builds(OpenLogin, user=text, password=text),
            logins=st.lists(st.builds(Login, user=text, password=text), max_size=1),
        ),
    ),
]
KEYS: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (str, text),
    (int, ints),
    (float, floats),
    (Color, st.sampled_from(Color)),
    (Level, st.sampled_from(Level)),
    (UUID, st.uuids()),
    (date, st.dates()),
    (datetime, st.datetimes(timezones=zones)),
    (timedelta, st.timedeltas()),
    (Decimal, st.decimals(allow_nan=False)),
    (bytes, st.binary(max_size=3)),
    (int | str, ints | text | st.sampled_from(["1", 1])),
    (Literal[1, 2], st.sampled_from([1, 2])),
    (Any, text | ints),
]


def containers(kind: Any, values: st.SearchStrategy[Any]) -> Iterator[tuple[Any, st.SearchStrategy[Any]]]:
    yield kind, values
    yield list[kind], st.lists(values, max_size=3)
    yield tuple[kind, int], st.tuples(values, ints)
    yield dict[str, kind], st.dictionaries(text, values, max_size=2)
    for key, keys in KEYS:
        yield dict[key, kind], st.dictionaries(keys, values, max_size=2)


CASES = [case for kind, values in SCALARS for case in containers(kind, values)]
CODECS: dict[int, Codec[Any]] = {at: Codec(kind, "value of w") for at, (kind, _) in enumerate(CASES)}
values_of_types = st.integers(0, len(CASES) - 1).flatmap(lambda at: st.tuples(st.just(at), CASES[at][1]))


def same(read: Any, value: Any) -> bool:
    """Tell whether two values are equal, but for what Python calls unequal to itself."""
    if isinstance(value, float | Decimal):
        return type(read) is type(value) and (str(read) == str(value) or read == value)
    if isinstance(value, datetime) and value.tzinfo is not None and value.utcoffset() is not None:
        return bool(read.astimezone(UTC) == value.astimezone(UTC))
    if isinstance(value, dict):
        return len(read) == len(value) and all(
            any(same(again, name) and same(read[again], inner) for again in read) for name, inner in value.items()
        )
    if isinstance(value, list | tuple) and type(read) is type(value):
        return len(read) == len(value) and all(map(same, read, value))
    return bool(read == value)


def written_or_refused(encode: Callable[[Any], bytes], value: Any, refused: type[JetflowError]) -> bytes | None:
    """Return the JSON of a value; None if it is refused as it should be: with a path, and without any secret."""
    error = None
    try:
        return encode(value)
    except JetflowError as caught:
        error = caught
    assert type(error) is refused
    assert re.match(r"value of w: [^`]*(.|\n)* - at `(key of )?\$[^`]*`", str(error)), error
    assert "hunter2" not in str(error)
    return None


@settings(max_examples=3000, deadline=None)
@given(values_of_types)
def test_what_comes_out_is_what_went_in(case: tuple[int, Any]) -> None:
    at, value = case
    codec = CODECS[at]
    for encode, refused in ((codec.encode, InvalidInput), (codec.encode_output, InvalidOutput)):
        body = written_or_refused(encode, value, refused)
        if body is not None:
            assert same(codec.decode(body), value), (CASES[at][0], value, body, codec.decode(body))
            assert same(codec.decode(body), codec.decode(encode(codec.decode(body))))


@settings(max_examples=500, deadline=None)
@given(anything)
def test_by_name_nothing_is_lost_that_no_type_would_bring_back(value: Any) -> None:
    """The type is the reader's: a date travels as its text. A NaN, a secret and one key for two do not."""
    codec: Codec[Any] = Codec(Any, "value of w", schema=b"{}")
    body = written_or_refused(codec.encode, value, InvalidInput)
    if body is not None:
        assert b'"**********"' not in body  # a secret, as it is shown
        assert codec.encode(codec.decode(body)) == body
        assert not any(isinstance(one, float) and isnan(one) for one in flat(value))


def flat(value: Any) -> list[Any]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return reduce(list.__add__, map(flat, inner), [value])


# --- what is refused, and how it is told


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        (object, {"a": [(1,)]}, r"a tuple comes back as a list, since no type says what it is: .* - at `\$\.a\[0\]`"),
        (Any, {"at": date(2026, 1, 1)}, r"a date comes back as a str, since no type says .* - at `\$\.at`"),
        (dict[str, Any], {"p": Point(1)}, r"a Point comes back as a dict, .*annotate it.* - at `\$\.p`"),
        (Any, [{1: "a"}], r"the key 1 comes back as text, .* as in dict\[int, \.\.\.\] - at `\$\[0\]`"),
        (dict[int | str, int], {1: 1, "1": 2}, r"two of the keys are one key as JSON - at `\$`"),
        (list[Point], [Point(1), Solid(1)], r"a Solid comes back as a Point - at `\$\[1\]`"),
        (Point, {"x": 1, "Y": 2.0}, r"Point has no field 'Y' - at `\$`"),
        (Settings, {"name": "", "dpeth": 1}, r"Settings has no field 'dpeth' - at `\$`"),
        (Aliased, {"Day": "tue", "dya": 1}, r"Aliased has no field 'dya' - at `\$`"),
        (list[Doubling], [Doubling(1)], r"it is another value when it is read again: .* - at `\$\[0\]\.width`"),
        (WithHidden, WithHidden(shown=1, hidden=2), r"it is another value when it is read again.* - at `\$\.hidden`"),
        (Page[str], Page([b"x"]), r"a bytes comes back as a str - at `\$\.items\[0\]`"),
        (list[Login], [Login(user="u", password="p")], r"a SecretStr is written as asterisks: .* `\$\[0\]\.password`"),
        (
            Account,
            Account(logins=[Login(user="u", password="p")]),
            r".* asterisks: .* - at `\$\.logins\[0\]\.password`",
        ),
        (Any, {"a": {"b": [object()]}}, r"a value of type object cannot be written as JSON - at `\$\.a\.b\[0\]`"),
        (frozenset, frozenset([b"x"]), r"a bytes in it comes back as another value - at `\$`"),
        (list[WithBytes], [WithBytes(data=b"\xff")], r"'utf-8' codec can't decode byte .* - at `\$\[0\]\.data`"),
        (Any, {"f": (n for n in "ab")}, r"generator cannot be written as JSON: collect .* - at `\$\.f`"),
        (datetime, datetime(1850, 1, 1, tzinfo=BERLIN), r"its offset from UTC has seconds, .* - at `\$`"),
        (Any, {"n": [10**5000]}, r"Exceeds the limit \(4300 digits\) .* - at `\$\.n\[0\]`"),
        (Point, None, r"Expected `object`, got `null` - at `\$`"),
        (Sequence[int], (1, 2), r"a tuple comes back as a list: give a list, or annotate it - at `\$`"),
        (Page[int], {"items": (1, 2)}, r"a tuple comes back as a list: .* - at `\$\.items`"),
        (list[int], {1, 2}, r"a set comes back as a list: .* - at `\$`"),
        (set[int], [1, 1], r"two of its items are one as a set - at `\$`"),
    ],
    ids=range(25),
)
def test_what_would_change_is_refused_by_name(kind: Any, value: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=f"^input of w: {message}"):
        Codec(kind, "input of w").encode(value)
    with pytest.raises(InvalidOutput, match=f"^output of w: {message}"):
        Codec(kind, "output of w").encode_output(value)


@dataclasses.dataclass
class Noted:
    number: int
    note: Any = dataclasses.field(default=None, compare=False)


@dataclasses.dataclass
class ByNumber:
    number: int
    note: Any = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ByNumber) and other.number == self.number

    def __hash__(self) -> int:
        return hash(self.number)


class StructByNumber(msgspec.Struct):
    number: int
    note: Any = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StructByNumber) and other.number == self.number

    def __hash__(self) -> int:
        return hash(self.number)


class ModelByNumber(pydantic.BaseModel):
    number: int
    note: Any = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ModelByNumber) and other.number == self.number

    def __hash__(self) -> int:
        return hash(self.number)


@pytest.mark.parametrize("kind", [Noted, ByNumber, StructByNumber, ModelByNumber])
def test_what_equality_does_not_see_is_looked_at(kind: Any) -> None:
    """Fields that a class leaves out when it compares: alone, and wherever such an object may stand."""
    for within, wrapped, path in (
        (kind, lambda one: one, ""),
        (Page[kind], lambda one: Page([one]), r"\.items\[0\]"),
        (dict[str, kind | None], lambda one: {"none": None, "a": one}, r"\.a"),
        (tuple[int, kind], lambda one: (1, one), r"\[1\]"),
    ):
        codec: Codec[Any] = Codec(within, "w")
        assert codec.decode(codec.encode(wrapped(kind(number=1, note=[1])))) == wrapped(kind(number=1, note=[1]))
        with pytest.raises(InvalidInput, match=rf"a tuple comes back as a list.* - at `\${path}\.note`"):
            codec.encode(wrapped(kind(number=1, note=(1,))))


async def test_a_coroutine_is_an_await_that_is_missing() -> None:
    async def later() -> int:
        return 1

    coroutine = later()
    with pytest.raises(InvalidOutput, match=r"^value: a coroutine cannot be written as JSON: an await is missing"):
        ANY.encode_output([coroutine])
    await coroutine


def test_an_input_that_is_forgotten() -> None:
    with pytest.raises(InvalidInput, match=r"got `null` - at `\$`: was the input forgotten\?$"):
        Codec(Point, "input of w").encode(None)


def test_what_a_model_is_given_is_not_told() -> None:
    class Strict(pydantic.BaseModel):
        password: pydantic.SecretStr = pydantic.Field(min_length=20)

    with pytest.raises(InvalidInput, match=r"^w: password\n  Value should have at least 20 items") as caught:
        Codec(Strict, "w").decode(b'{"password":"hunter2"}')
    assert "hunter2" not in f"{caught.value!r} {caught.value.__cause__!r}"


def test_a_private_attribute_is_refused_if_it_would_be_lost() -> None:
    class Keeping(pydantic.BaseModel):
        number: int
        _cache: dict[str, int] = pydantic.PrivateAttr(default_factory=dict[str, int])
        _lock: object = pydantic.PrivateAttr(default_factory=object)

    codec, kept = Codec(Keeping, "w"), Keeping(number=1)
    assert codec.encode(kept) == b'{"number":1}'
    kept._cache["a"] = 1
    with pytest.raises(InvalidInput, match=r"a private attribute is not written: .* - at `\$\._cache`"):
        codec.encode(kept)


class Fragile(msgspec.Struct):
    number: int

    def __post_init__(self) -> None:
        if self.number < 0:
            raise KeyError("no such number")


def test_whatever_a_type_raises_is_told_by_name() -> None:
    with pytest.raises(InvalidInput, match=r"^w: 'no such number' - at `\$`"):
        Codec(Fragile, "w").decode(b'{"number":-1}')
    with pytest.raises(InvalidInput, match=r"^w: unhashable type: 'Point' - at `\$`"):
        Codec(set[Point], "w").decode(b'[{"x":1}]')


@pytest.mark.parametrize("key", [tuple[int, int], Point, bool, None, frozenset[int]], ids=str)
def test_keys_that_cannot_be_written_are_refused_when_they_are_declared(key: Any) -> None:
    with pytest.raises(InvalidDeclaration, match="the keys of a dict have to be text or numbers"):
        Codec(dict[str, dict[key, int]], "input of w")


def test_a_path_is_declared_as_text() -> None:
    with pytest.raises(InvalidDeclaration, match=r"cannot travel as JSON: .*Path.*: use str$"):
        Codec(list[Path], "input of w")


def test_a_value_may_be_given_as_its_json() -> None:
    """It is brought to the type, as far as nothing is lost."""
    assert Codec(dict[UUID, Point], "").encode({str(UUID(int=1)): {"x": 1}}) == (
        b'{"00000000-0000-0000-0000-000000000001":{"x":1,"y":0.0}}'
    )
    assert Codec(list[date], "").encode(["2026-01-01"]) == b'["2026-01-01"]'
    assert Codec(Account, "").encode({"login": {"user": "u", "password": "p"}}) == (
        b'{"login":{"password":"p","user":"u"},"logins":[]}'
    )


def test_what_is_given_as_json_comes_back_as_the_type_has_read_it() -> None:
    with pytest.raises(InvalidInput, match=r"a SecretStr is written as asterisks: .* - at `\$\.password`"):
        Codec(Login, "w").encode({"user": "u", "password": "hunter2"})
    with pytest.raises(InvalidInput, match=r"it is another value when it is read again: .* - at `\$\.width`"):
        Codec(Doubling, "w").encode({"width": 1})


@settings(max_examples=200)
@given(st.text(string.printable, max_size=3), st.integers(2, 40))
def test_a_long_path_is_cut(name: str, depth: int) -> None:
    value: Any = object()
    for _ in range(depth):
        value = {f"{name}-{'x' * 10}": value}
    with pytest.raises(InvalidInput) as caught:
        ANY.encode(value)
    assert len(str(caught.value)) < 320
