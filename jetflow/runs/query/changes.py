"""What changes while somebody looks: messages as they are stored, as changes of runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final, NamedTuple

import msgspec

from jetflow.broker.session import Session
from jetflow.broker.tailing import Tail
from jetflow.engine.tasks import NONE
from jetflow.runs.located import locate
from jetflow.runs.query.declared import Declared
from jetflow.runs.query.rows import Change
from jetflow.wire.filters import Filters

NEW_ROOTS_EVERY: Final = 1.0
"""Seconds between two looks for new root runs: nobody who only reads may have a consumer on the tasks."""


def change_of(subject: str, sequence: int) -> Change | None:
    """Return what the storing of a message says; None for what is no change of a run."""
    tokens = subject.split(".")
    kind = _KINDS.get(tokens[2]) if len(tokens) > 2 else None
    if kind is None or len(tokens) != kind.tokens:
        return None
    found = {name: _or_none(tokens[at]) for name, at in kind.places.items()}
    return msgspec.convert({"kind": tokens[2], "sequence": sequence, **found}, Change)


def _or_none(token: str) -> str | None:
    return None if token == NONE else token


class _Kind(NamedTuple):
    tokens: int
    places: dict[str, int]


_KINDS: Final = {
    "run": _Kind(7, {"parent": 4, "step": 5, "run": 6}),
    "mark": _Kind(9, {"parent": 4, "step": 5, "status": 6, "workflow": 7, "run": 8}),
    "step": _Kind(6, {"run": 4, "step": 5}),
    "join": _Kind(7, {"run": 4, "step": 5}),
    "try": _Kind(8, {"run": 4, "step": 5}),
    "task": _Kind(9, {"workflow": 3, "step": 4, "parent": 6, "run": 7}),
}
"""What the subjects of messages tell, by their kind: how many tokens they have, and what stands where."""


async def follow_run(session: Session, run: str, after: int | None) -> AsyncGenerator[Change]:
    """Yield the changes of a run and the ends of its children until it has ended, which is the last one.

    Raises:
        UnknownRun: no run with this id is stored.
    """
    names, store = session.names, session.store
    begin = await store.last_sequence(names.records_stream) if after is None else after
    located = await locate(session, run)
    if located.ended is not None and located.ended.sequence <= begin:
        change = change_of(located.ended.subject, located.ended.sequence)
        if change is not None:
            yield change
        return
    filters = Filters(names).changes_of_run(located.root, run)
    async with aclosing(Tail(session.connection, store, names.records_stream, filters).seen(begin)) as seen:
        async for subject, sequence in seen:
            change = change_of(subject, sequence)
            if change is None:
                continue
            yield change
            if change.kind == "run" and change.run == run:
                return


async def follow_roots(session: Session, declared: Declared) -> AsyncGenerator[Change]:
    """Yield new root runs, and the ends of root runs, for ever."""
    names, store, filters = session.names, session.store, Filters(session.names)
    tasks, records = await asyncio.gather(
        store.last_sequence(names.tasks_stream), store.last_sequence(names.records_stream)
    )
    changes: asyncio.Queue[Change] = asyncio.Queue(maxsize=1000)

    async def look_for_new() -> None:
        after = tasks
        while True:
            async for page in store.pages(names.tasks_stream, filters.first_tasks_of_roots(), after=after):
                for message in page:
                    after = message.sequence
                    _, _, _, workflow, step, *_ = message.subject.split(".")
                    if await declared.is_first(workflow, step):
                        await _put(changes, message.subject, message.sequence)
            await asyncio.sleep(NEW_ROOTS_EVERY)

    async def look_for_ends() -> None:
        tail = Tail(session.connection, store, names.records_stream, filters.changes_of_roots())
        async with aclosing(tail.seen(records)) as seen:
            async for subject, sequence in seen:
                await _put(changes, subject, sequence)

    loop = asyncio.get_running_loop()
    looking = [loop.create_task(look_for_new()), loop.create_task(look_for_ends())]
    try:
        while True:
            getting = loop.create_task(changes.get())
            done, _ = await asyncio.wait([getting, *looking], return_when=asyncio.FIRST_COMPLETED)
            if getting in done:
                yield getting.result()
                continue
            getting.cancel()
            for one in looking:
                if one in done:
                    one.result()  # which raises: they end by an error alone
    finally:
        for one in looking:
            one.cancel()
        await asyncio.gather(*looking, return_exceptions=True)


async def _put(changes: asyncio.Queue[Change], subject: str, sequence: int) -> None:
    change = change_of(subject, sequence)
    if change is not None:
        await changes.put(change)
