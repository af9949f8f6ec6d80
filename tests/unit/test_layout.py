"""Where steps are drawn: no two in one place, every edge forward and beside the nodes, and names play no part."""

from __future__ import annotations

from itertools import combinations
from xml.etree import ElementTree

from hypothesis import given, settings
from hypothesis import strategies as st

from jetflow.drawing.layout import BESIDE, HEIGHT, WIDTH, Layout, laid_out
from jetflow.drawing.svg import svg_of


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, list[str]]:
    """Steps in an order in which each follows those that it comes after."""
    count = draw(st.integers(0, 14))
    return {
        f"s{at}": [f"s{before}" for before in draw(st.sets(st.integers(0, at - 1), max_size=4))] if at else []
        for at in range(count)
    }


@given(graphs())
@settings(deadline=None)
def test_no_two_steps_overlap_and_all_are_within(after: dict[str, list[str]]) -> None:
    layout = laid_out(after)
    assert [node.name for node in layout.nodes] == list(after)
    for one, other in combinations(layout.nodes, 2):
        assert one.layer != other.layer or abs(one.y - other.y) >= HEIGHT + BESIDE - 0.2
    for node in layout.nodes:
        assert 0 <= node.x <= node.x + WIDTH <= layout.width
        assert 0 <= node.y <= node.y + HEIGHT <= layout.height + 0.1


@given(graphs())
@settings(deadline=None)
def test_every_edge_goes_forward_from_its_source_to_its_target(after: dict[str, list[str]]) -> None:
    layout = laid_out(after)
    nodes = {node.name: node for node in layout.nodes}
    assert {(edge.source, edge.target) for edge in layout.edges} == {
        (before, name) for name, befores in after.items() for before in befores
    }
    for edge in layout.edges:
        source, target = nodes[edge.source], nodes[edge.target]
        assert source.layer < target.layer
        assert edge.points[0] == (source.x + WIDTH, round(source.y + HEIGHT / 2, 1))
        assert edge.points[-1] == (target.x, round(target.y + HEIGHT / 2, 1))
        assert [x for x, _ in edge.points] == sorted(x for x, _ in edge.points)


@given(graphs())
@settings(deadline=None)
def test_no_edge_passes_through_a_step(after: dict[str, list[str]]) -> None:
    layout = laid_out(after)
    for edge in layout.edges:
        for x, y in edge.points[1:-1]:
            for node in layout.nodes:
                inside = node.x <= x <= node.x + WIDTH and node.y < y < node.y + HEIGHT
                assert not inside, (edge, node)


@given(graphs())
@settings(deadline=None)
def test_a_step_stands_right_behind_the_last_one_that_it_waits_for(after: dict[str, list[str]]) -> None:
    layers = {node.name: node.layer for node in laid_out(after).nodes}
    for name, befores in after.items():
        assert layers[name] == max((layers[before] + 1 for before in befores), default=0)


@given(graphs())
@settings(deadline=None)
def test_other_names_are_drawn_alike(after: dict[str, list[str]]) -> None:
    other = {name: f"x{len(after) - at}" for at, name in enumerate(after)}
    renamed = laid_out({other[name]: [other[before] for before in befores] for name, befores in after.items()})
    layout = laid_out(after)
    assert [(node.x, node.y) for node in renamed.nodes] == [(node.x, node.y) for node in layout.nodes]
    assert [edge.points for edge in renamed.edges] == [edge.points for edge in layout.edges]


def test_edges_that_need_not_cross_do_not() -> None:
    layout = laid_out({"a": [], "b": [], "c": ["b"], "d": ["a"]})
    y = {node.name: node.y for node in layout.nodes}
    assert (y["a"] < y["b"]) == (y["d"] < y["c"])


def test_a_chain_is_a_straight_line() -> None:
    layout = laid_out({"a": [], "b": ["a"], "c": ["b"]})
    assert {node.y for node in layout.nodes} == {0}
    assert (layout.width, layout.height) == (3 * WIDTH + 2 * 64, HEIGHT)


def test_what_is_behind_an_unknown_step_is_drawn_without_that_edge() -> None:
    assert laid_out({"a": ["gone"]}).edges == ()
    assert laid_out({}) == Layout()


def test_svg_is_well_formed_whatever_the_names_are() -> None:
    text = svg_of(laid_out({"<&\x1b[31m": [], "b" * 64: ["<&\x1b[31m"]}), 'a "title" & <more>', dashed=["b" * 64])
    root = ElementTree.fromstring(text)
    shown = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert shown == ["<&·[31m", "b" * 23 + "…"]
    assert len(list(root.iter("{http://www.w3.org/2000/svg}path"))) == 1
