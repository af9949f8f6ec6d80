"""The shape of a workflow."""

import pytest

from jetflow.engine.graph import START, Graph, Node
from jetflow.errors import InvalidDeclaration


def graph(**after: str) -> Graph:
    """Build a graph from ``step="the steps before it"``."""
    return Graph.checked("w", [Node(name, tuple(before.split())) for name, before in after.items()])


DIAMOND = graph(a="", b="a", c="a", d="b c")


def test_one_step() -> None:
    one = graph(run="")
    assert (one.first, one.roots, one.sinks) == ("run", ("run",), ("run",))
    assert one.downstream["run"] == ()


def test_diamond() -> None:
    assert DIAMOND.first == "a"
    assert DIAMOND.sinks == ("d",)
    assert DIAMOND.downstream["a"] == ("b", "c")
    assert DIAMOND.upstream["d"] == ("b", "c")
    assert DIAMOND.ancestors["d"] == {"a", "b", "c"}
    assert DIAMOND.beside["b"] == ("c", "d")
    assert DIAMOND.beside["a"] == ("b", "c", "d")
    assert DIAMOND.beside["d"] == ()


def test_several_first_steps_begin_with_an_implied_one() -> None:
    two = graph(a="", b="", c="a b")
    assert two.first == START
    assert two.downstream[START] == ("a", "b")
    assert two.ancestors["c"] == {"a", "b"}
    assert two.has(START)
    assert not DIAMOND.has(START)
    assert not DIAMOND.has("other")


def test_steps_stand_behind_those_they_come_after() -> None:
    declared = Graph.checked("w", [Node("b", ("a",)), Node("c", ("b",)), Node("a")])
    assert [node.name for node in declared.nodes] == ["a", "b", "c"]


def test_the_version_is_of_the_shape() -> None:
    assert graph(a="", b="a").version == graph(b="a", a="").version
    assert len({DIAMOND.version, graph(a="").version, graph(a="", b="a").version, graph(a="", b="").version}) == 4
    assert Graph.checked("other", DIAMOND.nodes).version != DIAMOND.version


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([], "has no step"),
        ([Node("a"), Node("a")], "twice"),
        ([Node("a", ("b",))], "'a' of workflow 'w' comes after 'b', which is not declared"),
        ([Node("a", ("a",))], "'a' of workflow 'w' wait for one another in a cycle"),
        ([Node("s"), Node("a", ("s", "b")), Node("b", ("a",))], "'a', 'b' .* in a cycle"),
    ],
)
def test_what_is_no_graph(nodes: list[Node], message: str) -> None:
    with pytest.raises(InvalidDeclaration, match=message):
        Graph.checked("w", nodes)
