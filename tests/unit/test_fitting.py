"""What is certain not to fit a schema, and what may."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Literal

import msgspec
import pydantic
import pytest

from jetflow.errors import InvalidInput
from jetflow.wire.codec import Codec
from jetflow.wire.fitting import misfit


class Cat(msgspec.Struct, tag="cat"):
    lives: int = 9


class Dog(msgspec.Struct, tag="dog"):
    name: str


class Order(msgspec.Struct, forbid_unknown_fields=True):
    id: str
    amount: float
    kind: Literal["a", "b"] = "a"
    items: list[int] = []
    pet: Cat | Dog | None = None
    notes: dict[str, int] | None = None
    pair: tuple[int, str] = (1, "x")
    price: Decimal = Decimal(1)
    next: Order | None = None


class Lax(pydantic.BaseModel):
    number: int


def schema_of(kind: Any) -> Any:
    return msgspec.json.decode(Codec(kind, "here").schema)


@pytest.mark.parametrize(
    "value",
    [
        {"id": "1", "amount": 1},
        {"id": "1", "amount": 1.5, "kind": "b", "items": [1, 2], "pet": {"type": "cat"}, "notes": {"a": 1}},
        {"id": "1", "amount": 1, "pair": [1, "y"], "price": 1.5, "next": {"id": "2", "amount": 2}},
        {"id": "1", "amount": 1, "pet": None, "price": "1.5"},
    ],
)
def test_what_a_worker_reads_fits(value: Any) -> None:
    Codec(Order, "here").decode(msgspec.json.encode(value))
    assert misfit(value, schema_of(Order)) is None


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (None, "expected object, got null - at $"),
        ({"id": "1"}, "required field 'amount' is missing - at $"),
        ({"id": 1, "amount": 1}, "expected string, got integer - at $.id"),
        ({"id": "1", "amount": True}, "expected number, got boolean - at $.amount"),
        ({"id": "1", "amount": 1, "more": 2}, "unknown field 'more' - at $"),
        ({"id": "1", "amount": 1, "kind": "c"}, "'c' is none of ['a', 'b'] - at $.kind"),
        ({"id": "1", "amount": 1, "items": [1, "2"]}, "expected integer, got string - at $.items[1]"),
        ({"id": "1", "amount": 1, "pet": {"type": "dog"}}, "required field 'name' is missing - at $.pet"),
        ({"id": "1", "amount": 1, "notes": {"a": "b"}}, "expected integer, got string - at $.notes.a"),
        ({"id": "1", "amount": 1, "pair": [1]}, "expected 2 items at least, got 1 - at $.pair"),
        ({"id": "1", "amount": 1, "next": {"id": "2"}}, "required field 'amount' is missing - at $.next"),
    ],
)
def test_what_no_worker_reads_does_not(value: Any, why: str) -> None:
    with pytest.raises(InvalidInput):
        Codec(Order, "here").decode(msgspec.json.encode(value))
    assert misfit(value, schema_of(Order)) == why


@pytest.mark.parametrize("schema", [{}, True, {"type": "unheard-of"}, {"$ref": "#/elsewhere"}, {"not": {}}])
def test_what_is_not_known_fits(schema: Any) -> None:
    assert misfit({"a": 1}, schema) is None


def test_what_a_model_of_pydantic_takes_is_its_own_affair() -> None:
    """It reads numbers from text, fields by other names, and whatever its validators make of it."""
    assert misfit({"number": "1"}, schema_of(Lax)) is None
    assert misfit([{"number": "1"}, "anything"], schema_of(list[Lax])) is None
    assert misfit("no list", schema_of(list[Lax])) == "expected array, got string - at $"


@pytest.mark.parametrize(
    ("schema", "value", "fits"),
    [
        ({"type": "integer"}, 2.0, True),
        ({"type": "integer"}, 2.5, False),
        ({"minimum": 1}, 0, False),
        ({"exclusiveMinimum": 1}, 1, False),
        ({"maximum": 1}, 1, True),
        ({"exclusiveMaximum": 1}, 1, False),
        ({"minLength": 2}, "a", False),
        ({"maxLength": 2}, "abc", False),
        ({"maxItems": 1}, [1, 2], False),
        ({"const": True}, 1, False),
        ({"oneOf": [{"type": "null"}, {"type": "string"}]}, 1, False),
        ({"allOf": [{"type": "string"}]}, 1, False),
        ({"additionalProperties": {"type": "string"}}, {"a": 1}, False),
    ],
)
def test_bounds_are_kept(schema: Any, value: Any, fits: bool) -> None:
    assert (misfit(value, schema) is None) is fits
