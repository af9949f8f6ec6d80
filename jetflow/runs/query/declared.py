"""What is declared in a namespace, kept at hand: which workflows there are, and which step each of them begins with.

The first task of a run asks for its workflow's first step. So "one message for each run" is a filter with that step in
it; without it a run of five steps would count five times.
"""

from __future__ import annotations

from collections.abc import Iterable
from time import monotonic
from typing import Final

from jetflow.broker.session import Session
from jetflow.engine.graph import Graph
from jetflow.errors import MalformedRecord
from jetflow.wire.records import Declaration, decode_declaration, decode_graph

FRESH: Final = 5.0
"""Seconds for which what was read is taken as it is."""


class Declared:
    """The declarations of one namespace. Only what is new is read again."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._newest: dict[str, Declaration] = {}
        self._firsts: dict[str, set[str]] = {}
        self._several: set[str] = set()
        self._behind = 0
        self._read_at = -FRESH

    async def all(self) -> dict[str, Declaration]:
        """Return the newest declaration of each workflow that can be read, by name."""
        await self._refresh()
        return dict(sorted(self._newest.items()))

    async def firsts(self, workflow: str | None = None) -> list[tuple[str, str]]:
        """Return the first steps of all workflows, or of one: pairs of workflow and step, of all versions."""
        await self._refresh()
        chosen = sorted(self._firsts) if workflow is None else [workflow]
        return [(name, step) for name in chosen for step in sorted(self._firsts.get(name, ()))]

    async def is_first(self, workflow: str, step: str) -> bool:
        """Tell whether runs of a workflow begin with a step. Of one that nobody has declared, each counts as first."""
        await self._refresh()
        firsts = self._firsts.get(workflow)
        return firsts is None or step in firsts

    async def have_one_step(self, firsts: Iterable[tuple[str, str]]) -> bool:
        """Tell whether all those workflows have one step each, in all versions."""
        await self._refresh()
        return all(workflow not in self._several for workflow, _ in firsts)

    async def _refresh(self) -> None:
        if monotonic() - self._read_at < FRESH:
            return
        names, store = self._session.names, self._session.store
        prefix = names.all_workflows[:-1]
        pages = store.pages(names.workflows_stream, names.all_workflows, after=self._behind)
        async for page in pages:
            for stored in page:
                self._behind = stored.sequence
                name, _, version = stored.subject.removeprefix(prefix).partition(".")
                self._learn(name, stored.body, is_newest=not version)
        self._read_at = monotonic()

    def _learn(self, name: str, body: bytes, *, is_newest: bool) -> None:
        try:
            graph = self._declaration(name, body) if is_newest else decode_graph(body)
        except MalformedRecord:
            return  # whoever runs it ends its runs by that name
        if graph.nodes:
            self._firsts.setdefault(name, set()).add(graph.first)
        if len(graph.nodes) > 1 or graph.sequels:
            self._several.add(name)

    def _declaration(self, name: str, body: bytes) -> Graph:
        declaration = self._newest[name] = decode_declaration(body)
        return declaration.graph
