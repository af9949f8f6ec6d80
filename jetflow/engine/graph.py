"""The shape of a workflow: steps and the edges between them.

A graph is what a run is pinned to: it is stored in the registry under its version, and a run goes on with the graph
that it started with, whatever is declared later.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from functools import cached_property
from hashlib import sha256
from typing import Final

import msgspec

from jetflow.errors import InvalidDeclaration

START: Final = "_start"
"""The step that stands before several first steps, so that every run begins with one task."""

ADMIT: Final = "_admit"
"""The step that stands before the first ones of a workflow with limits or levels: there a run gets its places, and its
level becomes that of its tasks."""

IMPLIED: Final = (START, ADMIT)
"""The steps of which one stands before the others, and that nobody declares."""

END: Final = "_end"
"""The gate behind several last steps."""


class Node(msgspec.Struct, frozen=True):
    """One step of a graph and the steps that it comes after."""

    name: str
    after: tuple[str, ...] = ()


class Graph(msgspec.Struct, frozen=True, dict=True, omit_defaults=True):
    """The steps of one workflow, each behind the steps that it comes after.

    ``on_failure`` is the step that runs when a run has failed, ``on_success`` the one when it has succeeded. With
    ``fail_fast`` the first step that fails ends it.
    One that is ``gated`` has limits: its runs are admitted before their first steps begin.
    ``conditional`` are the steps whose conditions decide whether they run: each is asked in its own task.
    ``levels`` are how urgent its runs may be, the most urgent first, and ``level`` is how urgent those are of which
    nothing is said.
    ``limited`` are the steps with limits of their own: each waits for its places in its own task.
    """

    workflow: str
    nodes: tuple[Node, ...]
    on_failure: str | None = None
    fail_fast: bool = False
    gated: bool = False
    conditional: tuple[str, ...] = ()
    levels: tuple[str, ...] = ()
    level: str | None = None
    on_success: str | None = None
    limited: tuple[str, ...] = ()

    @classmethod
    def checked(
        cls,
        workflow: str,
        nodes: Iterable[Node],
        on_failure: str | None = None,
        *,
        fail_fast: bool = False,
        gated: bool = False,
        conditional: Iterable[str] = (),
        levels: tuple[str, ...] = (),
        level: str | None = None,
        on_success: str | None = None,
        limited: Iterable[str] = (),
    ) -> Graph:
        """Build a graph in an order in which every step follows its upstream steps.

        Raises:
            InvalidDeclaration: no step, a name twice, an unknown upstream step, or a cycle.
        """
        declared = list(nodes)
        names = {node.name for node in declared} - {on_failure, on_success}
        if not declared:
            raise InvalidDeclaration(f"workflow {workflow!r} has no step: declare at least one with .step")
        if len(names) < len(declared):
            raise InvalidDeclaration(f"workflow {workflow!r} declares a step name twice: step names are unique")
        for node in declared:
            for upstream in node.after:
                if upstream not in names:
                    near = get_close_matches(upstream, names, 1)
                    hint = f"; did you mean {near[0]!r}?" if near else ""
                    step = f"step {node.name!r} of workflow {workflow!r}"
                    raise InvalidDeclaration(f"{step} comes after {upstream!r}, which is not declared{hint}")
        nodes = tuple(_in_order(workflow, declared))
        return cls(
            workflow,
            nodes,
            on_failure,
            fail_fast,
            gated,
            tuple(conditional),
            levels,
            level,
            on_success,
            tuple(limited),
        )

    @cached_property
    def version(self) -> str:
        """The digest of the graph, 16 hexadecimal digits."""
        return sha256(msgspec.json.encode(self)).hexdigest()[:16]

    @cached_property
    def upstream(self) -> dict[str, tuple[str, ...]]:
        """The steps that each step waits for."""
        return {node.name: node.after for node in self.nodes}

    @cached_property
    def downstream(self) -> dict[str, tuple[str, ...]]:
        """The steps that wait for each step."""
        return {
            name: tuple(node.name for node in self.nodes if name in node.after) for name in (START, *self.upstream)
        } | {START: self.roots}

    @cached_property
    def roots(self) -> tuple[str, ...]:
        """The steps that wait for none."""
        return tuple(node.name for node in self.nodes if not node.after)

    @cached_property
    def sinks(self) -> tuple[str, ...]:
        """The steps that none waits for; their outputs are the run's output."""
        waited_for = {name for node in self.nodes for name in node.after}
        return tuple(node.name for node in self.nodes if node.name not in waited_for)

    @cached_property
    def first(self) -> str:
        """The step whose task is a run's first message."""
        if self.gated or self.levels:
            return ADMIT
        return self.roots[0] if len(self.roots) == 1 else START

    @property
    def implied(self) -> tuple[str, ...]:
        """The steps that nobody has declared."""
        return () if self.first in self.upstream else (self.first,)

    @cached_property
    def sequels(self) -> tuple[str, ...]:
        """The steps that run when a run has ended, and change it no more."""
        return tuple(step for step in (self.on_failure, self.on_success) if step is not None)

    @cached_property
    def ancestors(self) -> dict[str, frozenset[str]]:
        """For each step, all the steps that end before it begins."""
        found: dict[str, frozenset[str]] = {START: frozenset()}
        for node in self.nodes:
            found[node.name] = frozenset(node.after).union(*(found[name] for name in node.after))
        return found

    @cached_property
    def beside(self) -> dict[str, tuple[str, ...]]:
        """For each step, the steps that may wait for children of it: all that do not end before it begins.

        Those after it are among them: they may have found a child of an attempt that failed, and of which the step
        that went on knows nothing.
        """
        return {START: ()} | {
            one.name: tuple(
                other.name
                for other in self.nodes
                if other.name != one.name and other.name not in self.ancestors[one.name]
            )
            for one in self.nodes
        }

    @cached_property
    def in_line(self) -> frozenset[str]:
        """The steps beside which no other of the same run can run: each other ends before them, or begins after."""
        before = self.ancestors
        return frozenset(step for step in self.upstream if all(step in before[other] for other in self.beside[step]))

    def has(self, step: str) -> bool:
        """Tell whether ``step`` is one of the graph's steps, the implied start included."""
        return step in self.upstream or step == self.first or step in self.sequels


def _in_order(workflow: str, nodes: list[Node]) -> list[Node]:
    ordered: list[Node] = []
    placed: set[str] = set()
    waiting = nodes
    while waiting:
        ready = [node for node in waiting if placed.issuperset(node.after)]
        if not ready:
            names = ", ".join(repr(node.name) for node in waiting)
            raise InvalidDeclaration(f"the steps {names} of workflow {workflow!r} wait for one another in a cycle")
        ordered += ready
        placed.update(node.name for node in ready)
        waiting = [node for node in waiting if node.name not in placed]
    return ordered
