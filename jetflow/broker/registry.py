"""The declared workflows of a namespace, in a KV bucket: for triggering, drawing and going on without the code.

A bucket key ``<workflow>`` holds the newest declaration; ``<workflow>.<version>`` holds each graph that runs may be
pinned to. Graphs never change under their version, so they are cached for ever.
"""

from __future__ import annotations

import difflib
import logging
from time import monotonic
from typing import Final

from jetflow.broker.publisher import Publisher
from jetflow.broker.store import Store, Stored
from jetflow.engine.graph import Graph
from jetflow.errors import MalformedRecord, UnknownWorkflow
from jetflow.wire.records import Declaration, decode_declaration, decode_graph, encode
from jetflow.wire.subjects import Subjects

FRESH: Final = 5.0
"""Seconds for which a declaration that was read is used without reading it again."""

_log = logging.getLogger("jetflow.broker")


class Registry:
    """Reads and writes the declarations of one namespace."""

    def __init__(self, store: Store, publisher: Publisher, names: Subjects) -> None:
        self._store = store
        self._publisher = publisher
        self._names = names
        self._graphs: dict[tuple[str, str], Graph] = {}
        self._found: dict[str, tuple[float, Declaration]] = {}
        self._known: set[tuple[str, str]] = set()

    def _know(self, declaration: Declaration) -> None:
        """Remember a graph under the version that its declaration gives: only jetflow's own are digests of it."""
        self._graphs[declaration.graph.workflow, declaration.version] = declaration.graph

    async def declare(self, declaration: Declaration) -> bool:
        """Make a declaration the newest of its workflow, if it differs from the one that is.

        Returns whether the one before had events start runs, and this one has none do so.
        """
        name = declaration.graph.workflow
        await self._store_version(declaration)
        stored = await self._store.leader_last(self._names.workflows_stream, self._names.workflow(name))
        body = encode(declaration)
        if stored is None or stored.body != body:
            before = self._replaced(declaration, stored)
            await self._publisher.store(self._names.workflow(name), body)
            return before is not None and bool(before.on) and not declaration.on
        return False

    def _replaced(self, declaration: Declaration, stored: Stored | None) -> Declaration | None:
        """Return the declaration that is replaced, if it can be read.

        Log that another version is the newest from now on: new runs begin with it, on every worker that has it.
        """
        try:
            before = None if stored is None else decode_declaration(stored.body)
        except MalformedRecord:
            return None
        if before is not None and before.version != declaration.version:
            name = declaration.graph.workflow
            _log.info("workflow %r: version %s replaces %s", name, declaration.version, before.version)
        return before

    async def ensure(self, declaration: Declaration, *, timeout: float | None = None) -> None:
        """Store a graph for a run to be pinned to. What the newest declaration is stays for workers to say.

        Only a workflow that nobody has declared is declared here, so that a run may be triggered before any worker.
        ``timeout`` is seconds for each message.

        Raises:
            BrokerTimeout: the server did not take one in time.
        """
        key = declaration.graph.workflow, declaration.version
        if key in self._known:
            return
        stream = self._names.workflows_stream
        if await self._store.leader_last(stream, self._names.workflow_version(*key)) is None:
            await self._store_version(declaration, timeout=timeout)
            newest = self._names.workflow(declaration.graph.workflow)
            if await self._store.leader_last(stream, newest) is None:
                await self._publisher.store(newest, encode(declaration), timeout=timeout)
        self._graphs[key] = declaration.graph
        self._known.add(key)

    async def _store_version(self, declaration: Declaration, *, timeout: float | None = None) -> None:
        name = declaration.graph.workflow
        subject = self._names.workflow_version(name, declaration.version)
        await self._publisher.store(subject, encode(declaration.graph), timeout=timeout)
        self._know(declaration)
        self._known.add((name, declaration.version))

    async def find(self, name: str) -> Declaration:
        """Return the newest declaration of a workflow.

        Raises:
            UnknownWorkflow: nobody has declared one of this name.
            MalformedRecord: what is declared cannot be read.
        """
        at, declaration = self._found.get(name, (0.0, None))
        if declaration is not None and monotonic() - at < FRESH:
            return declaration
        stored = None
        if is_subject_token(name):
            stored = await self._store.leader_last(self._names.workflows_stream, self._names.workflow(name))
        if stored is None:
            declared = await self.workflows()
            raise UnknownWorkflow(name, difflib.get_close_matches(name, declared, 3), len(declared))
        declaration = decode_declaration(stored.body)
        if not is_subject_token(declaration.version):
            raise MalformedRecord("declaration", f"its version {declaration.version!r} is no token")
        self._found[name] = monotonic(), declaration
        self._know(declaration)
        return declaration

    def cached_graph(self, workflow: str, version: str) -> Graph | None:
        """Return a graph that is at hand."""
        return self._graphs.get((workflow, version))

    async def graph(self, workflow: str, version: str) -> Graph | None:
        """Return the graph of a version, or the newest for no version; None if nobody has declared it.

        Raises:
            MalformedRecord: it cannot be read.
        """
        graph = self._graphs.get((workflow, version))
        if graph is not None:
            return graph
        if not version:
            try:
                return (await self.find(workflow)).graph
            except UnknownWorkflow:
                return None
        if not (is_subject_token(workflow) and is_subject_token(version)):
            return None
        subject = self._names.workflow_version(workflow, version)
        stored = await self._store.leader_last(self._names.workflows_stream, subject)
        if stored is None:
            return None
        graph = self._graphs[workflow, version] = decode_graph(stored.body)
        return graph

    async def workflows(self) -> list[str]:
        """Return the names of all declared workflows."""
        prefix = self._names.all_workflows[:-1]
        names: set[str] = set()
        async for page in self._store.leader_subjects(self._names.workflows_stream, self._names.all_workflows):
            names.update(subject.removeprefix(prefix).partition(".")[0] for subject in page)
        return sorted(names)


def is_subject_token(text: str) -> bool:
    """Tell whether ``text`` can stand in a subject as one token without a wildcard."""
    return text.replace("-", "").replace("_", "").isalnum() and text.isascii() and len(text) <= 64
