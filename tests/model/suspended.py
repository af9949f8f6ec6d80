"""Where a suspended generator stands, as a value: two that stand alike go on alike.

Two deliveries that have had different results often stand at the same effect with the same future: a counter's value
that was compared and is read no more makes no difference. Telling them apart would multiply the states. A generator
is determined by where it is suspended, by the locals that it may still read, by the iterators of the loops that it is
in, and by the same of the generator that it delegates to. Nothing else lives on the value stack of a rule that is
suspended: a rule must not yield in the middle of an expression such as ``x + (yield effect)``.
"""

from __future__ import annotations

import dis
import gc
from collections.abc import Generator, Hashable, Iterator
from dataclasses import is_dataclass
from functools import cache
from types import BuiltinFunctionType, CodeType, FunctionType, GeneratorType, MethodType
from typing import Any

import msgspec


def standpoint(generator: Generator[Any, Any, Any]) -> Hashable:
    """Return what determines the future of a suspended generator."""
    assert isinstance(generator, GeneratorType)
    frame = generator.gi_frame
    if frame is None:
        return "ended"
    code, at = frame.f_code, frame.f_lasti
    alive = _alive(code, at)
    local = tuple((name, freeze(value)) for name, value in frame.f_locals.items() if name in alive)
    del frame
    loops = tuple(freeze(held) for held in gc.get_referents(generator) if _is_loop(held))
    inner = generator.gi_yieldfrom
    return id(code), at, local, loops, None if inner is None else freeze(inner)


def _is_loop(held: object) -> bool:
    return isinstance(held, Iterator) and not isinstance(held, Generator)


def freeze(value: Any) -> Hashable:
    """Return a hashable stand-in for a local variable's value.

    Raises:
        TypeError: it is of a kind that is not known to be comparable.
    """
    frozen: Hashable
    match value:
        case None | bool() | int() | float() | str() | bytes():
            frozen = value
        case msgspec.Raw():
            frozen = bytes(value)
        case msgspec.Struct():
            fields = tuple(freeze(getattr(value, name)) for name in type(value).__struct_fields__)
            frozen = type(value).__name__, fields
        case tuple() | list():
            frozen = tuple(freeze(item) for item in value)
        case dict():
            frozen = tuple((freeze(key), freeze(item)) for key, item in value.items())
        case set() | frozenset():
            frozen = frozenset(freeze(item) for item in value)
        case GeneratorType():
            frozen = standpoint(value)
        case _:
            frozen = _freeze_other(value)
    return frozen


def _freeze_other(value: Any) -> Hashable:
    if isinstance(value, MethodType):
        return id(value.__func__), id(value.__self__)
    if isinstance(value, Iterator):
        return type(value).__name__, freeze(value.__reduce__()[1:])
    if is_dataclass(value):
        return repr(value)
    if isinstance(value, type | FunctionType | BuiltinFunctionType) or hasattr(value, "compared_by_identity"):
        return id(value)
    raise TypeError(f"a suspended rule holds {type(value).__name__}: teach freeze() what makes it equal")


@cache
def _alive(code: CodeType, at: int) -> frozenset[str]:
    """Return the locals that may be read after ``at``. Without branches into handlers, that is what is reachable."""
    always = frozenset(code.co_cellvars + code.co_freevars)
    instructions = list(dis.get_instructions(code))
    if code.co_exceptiontable.strip(b"\0") and _has_handlers(code):
        return always.union(code.co_varnames)
    position = {instruction.offset: index for index, instruction in enumerate(instructions)}
    names: set[str] = set(always)
    seen: set[int] = set()
    waiting = [position[at] + 1]
    while waiting:
        index = waiting.pop()
        if index in seen or index >= len(instructions):
            continue
        seen.add(index)
        instruction = instructions[index]
        names.update(_reads(instruction))
        if instruction.opcode in dis.hasjrel or instruction.opcode in dis.hasjabs:
            waiting.append(position[instruction.argval])
        if not _leaves(instruction.opname):
            waiting.append(index + 1)
    return frozenset(names)


def _reads(instruction: dis.Instruction) -> tuple[str, ...]:
    if "FAST" not in instruction.opname or instruction.opname in ("STORE_FAST", "DELETE_FAST"):
        return ()
    return instruction.argval if isinstance(instruction.argval, tuple) else (instruction.argval,)


def _leaves(name: str) -> bool:
    return name.startswith(("RETURN_VALUE", "RETURN_CONST", "RERAISE", "RAISE")) or name in (
        "JUMP_FORWARD",
        "JUMP_BACKWARD",
        "JUMP_BACKWARD_NO_INTERRUPT",
    )


def _has_handlers(code: CodeType) -> bool:
    return any(instruction.opname == "PUSH_EXC_INFO" for instruction in dis.get_instructions(code))
