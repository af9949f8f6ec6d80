"""What subjects, task headers, message ids and graphs are to every implementation: ``conformance/vectors``.

Held against this implementation, and against the conformance suite's own knowledge of subjects.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, cast

import msgspec
import pytest

from conformance import wire
from conformance.wire import Names
from jetflow.engine.effects import Start
from jetflow.engine.endings import decide
from jetflow.engine.graph import END, Graph
from jetflow.engine.tasks import StepAddress, Task
from jetflow.runs.performer import Performer
from jetflow.runs.targets import Target
from jetflow.wire.codec import ANY
from jetflow.wire.records import MalformedTask, decode_graph, header_block, parse_task, task_headers
from jetflow.wire.subjects import Subjects
from jetflow.worker.spawning import _Planner

VECTORS: Final = Path(__file__).parents[2] / "conformance" / "vectors"


def group(name: str) -> list[dict[str, Any]]:
    return json.loads((VECTORS / f"{name}.json").read_text())


# --- subjects

Fields = dict[str, str]


def join_of(fields: Fields) -> StepAddress:
    return StepAddress(fields["root"], fields["run"], fields["step"])


def task_of(fields: Fields) -> Task:
    given: Fields = {"workflow": "w", "step": "run", "parent": "-", "parent_step": "-", "turn": "0"} | fields
    names = ("workflow", "step", "root", "parent", "run", "parent_step")
    own: dict[str, Any] = {name: given[name] for name in names}
    return Task(**own, turn=int(given["turn"]), version="", depth=0, digest="", input=b"")


BUILT: Final[dict[str, Callable[[Subjects, Fields], str]]] = {
    "task": lambda names, fields: names.task_of(task_of(fields)),
    "cancel": lambda names, fields: names.cancelled(fields["root"], fields["run"]),
    "run": lambda names, fields: names.run_of(task_of(fields)),
    "step": lambda names, fields: names.step(join_of(fields)),
    "join": lambda names, fields: names.join(join_of(fields), int(fields["turn"])),
    "mark": lambda names, fields: names.mark_of(task_of(fields), fields["status"]),
    "try": lambda names, fields: names.attempt(join_of(fields), int(fields["turn"]), int(fields["delivery"])),
    "once": lambda names, fields: names.once(join_of(fields), fields["name"]),
    "value": lambda names, fields: names.value(fields["root"], fields["digest"], int(fields["chunk"])),
    "timer": lambda names, fields: names.timer_of(task_of(fields)),
    "due": lambda names, fields: names.due_of(task_of(fields)),
    "live.run": lambda names, fields: names.live_run(names.run_of(task_of(fields))),
    "live.cancel": lambda names, fields: names.live_cancelled.replace("*.*", f"{fields['root']}.{fields['run']}"),
    "in.trigger": lambda names, fields: names.inbox_trigger(fields["workflow"]),
    "in.look": lambda names, fields: names.inbox_look(join_of(fields)),
    "count": lambda names, fields: names.counter("join", join_of(fields)),
    "gate": lambda names, fields: names.counter("gate", join_of(fields)),
    "tree": lambda names, fields: names.counter("tree", join_of(fields)),
    "workflow": lambda names, fields: names.workflow(fields["workflow"]),
    "version": lambda names, fields: names.workflow_version(fields["workflow"], fields["version"]),
}


@pytest.mark.parametrize("vector", group("subjects"), ids=lambda vector: vector["kind"])
def test_subjects(vector: dict[str, Any]) -> None:
    fields = vector["fields"]
    assert BUILT[vector["kind"]](Subjects(vector["namespace"]), fields) == vector["subject"]
    assert Names(vector["namespace"]).parse(vector["subject"]) == (vector["kind"], fields)


def test_there_is_a_vector_for_every_kind_of_subject() -> None:
    assert {vector["kind"] for vector in group("subjects")} == BUILT.keys()


@pytest.mark.parametrize("vector", group("refused_subjects"), ids=lambda vector: vector["why"])
def test_refused_subjects(vector: dict[str, Any]) -> None:
    with pytest.raises(MalformedTask):
        parse_task(vector["subject"], vector["headers"], b"1")


# --- tasks


FULL = ("places", "held", "elder", "rerun", "level", "leveled", "twin")
"""What only workers of level *full* read."""


def written(task: Task) -> dict[str, Any]:
    fields = {name: getattr(task, name) for name in task.__struct_fields__ if name not in FULL}
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in fields.items()}


@pytest.mark.parametrize("vector", group("task_headers"), ids=range(len(group("task_headers"))))
def test_task_headers(vector: dict[str, Any]) -> None:
    task = parse_task(vector["subject"], vector["headers"], vector["body"].encode())
    told = {name: value for name, value in written(task).items() if name not in ("elder", "rerun") or value is not None}
    assert told == vector["task"]
    assert Subjects("default").task_of(task) == vector["subject"]
    if vector["written"]:
        assert task_headers(task, vector["headers"]["Nats-Msg-Id"]) == vector["headers"]


def message_id(block: bytes) -> str:
    lines = dict(line.split(": ", 1) for line in block.decode().split("\r\n")[1:-2])
    return lines["Nats-Msg-Id"]


def spawned(vector: dict[str, Any]) -> str:
    """Return the message id of a child that jetflow spawns."""
    key = "/usr/lib" if "digest" in vector else None
    session: Any = SimpleNamespace(names=Subjects("default"))
    parent = task_of({"root": "b" * 32, "run": "b" * 32, "step": vector["parent_step"]})
    target = Target("index-file", "run", "v1", ANY, ANY)
    planned = _Planner(session, parent, target, {}, keyed=key is not None).plan({"path": "/usr/lib"}, key)
    assert planned.id.hex() == vector["run"]
    return message_id(planned.item.headers)


def started(vector: dict[str, Any]) -> str:
    """Return the message id of a later task of a run that jetflow starts."""
    sent: list[Any] = []
    performer = SimpleNamespace(
        _names=Subjects("default"),
        _session=SimpleNamespace(tasks=None),
        _publish=lambda _, item, *rest: sent.append(item),
        _woken=lambda *_: None,
    )
    task = task_of({"root": vector["run"], "run": vector["run"]})
    effect = Start(task, vector["step"], vector["turn"])
    Performer._start(cast(Performer, performer), effect, cast(Any, None), cast(Any, None))
    return message_id(sent[0].headers)


@pytest.mark.parametrize("vector", group("message_ids"), ids=lambda vector: vector["of"])
def test_message_ids(vector: dict[str, Any]) -> None:
    if "parent_step" in vector:
        found = spawned(vector)
    elif "step" in vector:
        found = started(vector)
    else:
        found = message_id(header_block(task_headers(task_of({"root": "r", "run": "r"}), vector["id"])))
        assert vector["id"] == f"{vector['run']}.{vector['digest']}"
    assert found == vector["id"]


# --- graphs


def before(graph: Graph, step: str) -> set[str]:
    upstream = graph.upstream[step]
    return set(upstream).union(*(before(graph, other) for other in upstream))


@pytest.mark.parametrize("vector", group("graphs"), ids=range(len(group("graphs"))))
def test_graphs(vector: dict[str, Any]) -> None:
    graph = decode_graph(msgspec.json.encode(vector["graph"]))
    assert graph.first == vector["first"]
    assert {step: list(behind) for step, behind in graph.downstream.items()} == vector["behind"]
    assert list(graph.sinks) == vector["lasts"]
    gates = [step for step, upstream in graph.upstream.items() if len(upstream) > 1]
    assert gates + ([END] if len(graph.sinks) > 1 else []) == vector["gates"]
    assert {step: list(graph.beside[step]) for step in graph.upstream} == vector["beside"]
    for step, beside in vector["beside"].items():
        assert set(beside) == graph.upstream.keys() - before(graph, step) - {step}


@pytest.mark.parametrize("vector", group("decide"), ids=str)
def test_decide(vector: dict[str, Any]) -> None:
    assert decide(vector["before"], conditional=vector.get("conditional", False)) == vector["verdict"]


# --- the suite's own knowledge of identity


def identity(name: str) -> list[dict[str, Any]]:
    return json.loads((VECTORS.parent / "vectors.json").read_text())[name]


@pytest.mark.parametrize("vector", identity("root_ids"), ids=lambda vector: vector["id"])
def test_the_suite_derives_root_ids(vector: dict[str, str]) -> None:
    assert wire.root_id(vector["workflow"], vector["key"]) == vector["id"]


@pytest.mark.parametrize("vector", identity("child_ids"), ids=lambda vector: vector["id"])
def test_the_suite_derives_child_ids(vector: dict[str, str]) -> None:
    value = json.loads(vector.get("input", "null"))
    assert wire.child_id(vector["parent"], vector["workflow"], value=value, key=vector.get("key")) == vector["id"]


@pytest.mark.parametrize("vector", identity("id_sums"), ids=lambda vector: vector["sum"])
def test_the_suite_adds_ids(vector: dict[str, Any]) -> None:
    assert wire.id_sum(vector["ids"]) == vector["sum"]
