"""Checking an input against the schema of its workflow before a run is begun, so that a form can say what is wrong."""

from __future__ import annotations

from itertools import islice
from typing import Any, Final

import msgspec
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError
from referencing import Registry
from referencing.exceptions import Unresolvable

from jetflow.client import Client
from jetflow.dashboard.problems import Problem

MOST_ERRORS: Final = 50
LONGEST: Final = 300
"""Letters of a message: it may repeat the value."""

LARGEST: Final = 1024 * 1024
"""Bytes of JSON up to which an input is checked here; its worker checks every one."""


class SchemaMismatch(msgspec.Struct, frozen=True):
    """What does not fit, and where: a JSON pointer into the input, empty for all of it."""

    pointer: str
    message: str


async def check_input(client: Client, workflow: str, value: Any) -> None:
    """Refuse an input that its workflow's newest schema does not allow.

    Raises:
        UnknownWorkflow: nobody has declared it.
        Problem: the input does not fit.
    """
    declared = await client.declaration(workflow)
    schema: Any = msgspec.json.decode(declared.input)
    if not schema or len(msgspec.json.encode(value)) > LARGEST:
        return
    found = mismatches(schema, value)
    if found:
        raise Problem(
            *(422, "invalid-input", f"the input of {workflow!r} does not fit: {found[0].message}"),
            "change what the pointers name, in the form of the workflow's schema",
            errors=[msgspec.to_builtins(one) for one in found],
        )


def mismatches(schema: Any, value: Any) -> list[SchemaMismatch]:
    """Return where a value does not fit a schema; nothing for a schema that cannot be understood."""
    validator: Any = Draft202012Validator(schema, registry=Registry())  # which fetches nothing from elsewhere
    try:
        found: list[ValidationError] = list(islice(validator.iter_errors(value), MOST_ERRORS))
    except (SchemaError, Unresolvable, LookupError, TypeError):
        return []  # any language may have declared it: the worker knows better
    return [SchemaMismatch(_pointer(error), _cut(error.message)) for error in found]


def _pointer(error: ValidationError) -> str:
    parts = [str(part).replace("~", "~0").replace("/", "~1") for part in error.absolute_path]
    return "".join(f"/{part}" for part in parts)


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
