"""What a configuration says: which runs there can be, what their step bodies do, and which faults may happen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

from jetflow.engine.graph import Graph, Node
from jetflow.engine.policies import ALL_SUCCEED, JoinPolicy


@dataclass(frozen=True)
class Body:
    """One execution of a step's function, as a script: spawn, perhaps wait warm, then end.

    One that ends ``later`` has failed, and is parked until it is tried again in the next turn. One that ends in a
    ``sleep`` is parked until a time, whatever its children do. A parked one with ``bounded`` goes on at a time, too.
    ``needed`` is how many of the spawned children a parked body waits for (None: all). ``excused`` are children whose
    failure the body has seen, as after ``join(return_exceptions=True)``, and ``policy`` decides over those of a sealed
    body.
    """

    spawns: tuple[str, ...] = ()
    ends: Literal["return", "park", "fail", "retry", "later", "sleep"] = "return"
    waits: bool = False
    needed: int | None = None
    excused: tuple[str, ...] = ()
    policy: JoinPolicy = ALL_SUCCEED
    bounded: bool = False

    @property
    def until(self) -> float | None:
        """The time at which the step goes on, whatever has ended."""
        return 1.0 if self.bounded or self.ends in ("later", "sleep") else None


Turns = tuple[tuple[Body, ...], ...]
"""The bodies of one step: by turn, then by attempt; the last attempt stands for all later ones."""

LEAF: Turns = ((Body(),),)


Elder = Literal["", "succeeded", "failed", "late"]
"""What a rerun finds of a run or a step in the run that it is made of: ``late`` is something now and nothing then, for
it ends only now, is deleted meanwhile, or is read from a replica that lags."""


@dataclass(frozen=True)
class RunScript:
    """One run that can exist: its graph, its parent, and the bodies of its steps. Unnamed steps just return.

    In a ``rerun`` those that spawn this run find its ``elder``; ``elders`` are those of its steps.
    """

    graph: Graph
    parent: str = ""
    bodies: Mapping[str, Turns] = field(default_factory=dict)
    rerun: bool = False
    elder: Elder = ""
    elders: Mapping[str, Elder] = field(default_factory=dict)


class Faults(NamedTuple):
    """How many faults of each kind a history may have.

    ``crashes``   a worker loses all that it is doing, a task is lost as it arrives, or an ack is lost
    ``zombies``   a task is delivered again while an earlier delivery runs, or is about to
    ``repeats``   the answer to an increment is lost, and it is sent again
    ``batches``   two increments of one worker leave as one, and only one of them is told the value
    ``forgeries`` an outcome appears of a child that nobody spawned
    """

    crashes: int = 0
    zombies: int = 0
    repeats: int = 0
    batches: int = 0
    forgeries: int = 0


NO_FAULTS: Final = Faults()


@dataclass(frozen=True)
class Configuration:
    """A small world. The first run is the root; ``forged`` are steps ``(run, step)`` that a forged child names.

    With ``split_looks`` a look is two effects, so that others may act between the reading of the join record and the
    counting of the outcomes. Without ``timers_fire`` no timer does: its time is far away.
    """

    name: str
    runs: Mapping[str, RunScript]
    faults: Faults = NO_FAULTS
    workers: int = 2
    forged: tuple[tuple[str, str], ...] = ()
    split_looks: bool = False
    timers_fire: bool = True

    @property
    def root(self) -> str:
        """The name of the root run."""
        return next(iter(self.runs))


ONE_STEP = Graph.checked("one-step", [Node("s")])


def parent(*turns: tuple[Body, ...]) -> RunScript:
    """Return a root run of one step ``s`` with these bodies, by turn and attempt."""
    return RunScript(ONE_STEP, bodies={"s": turns})


def leaf(parent: str = "root", ends: Literal["return", "fail"] = "return") -> RunScript:
    """Return a child run of one step that spawns nothing."""
    return RunScript(ONE_STEP, parent, {"s": ((Body(ends=ends),),)})


def leaves(names: str, parent: str = "root") -> dict[str, RunScript]:
    """Return one leaf for each letter of ``names``."""
    return {name: leaf(parent) for name in names}
