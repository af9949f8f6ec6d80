"""Where the steps of a workflow stand in a drawing: in layers from left to right, edges always forward.

Pure: the same graph is always drawn alike, whatever the names are and in whatever order unrelated steps are declared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

WIDTH: Final = 200
HEIGHT: Final = 72
"""Size of a node."""

BETWEEN: Final = 64
"""Room between two layers, for the edges."""

BESIDE: Final = 24
"""Room between two nodes of a layer."""


class PlacedNode(msgspec.Struct, frozen=True, kw_only=True):
    """One step: the layer that it is in, from 0, and its upper left corner."""

    name: str
    layer: int
    x: float
    y: float
    width: float = WIDTH
    height: float = HEIGHT


class PlacedEdge(msgspec.Struct, frozen=True, kw_only=True):
    """What leads from one step to another, through points from left to right."""

    source: str = msgspec.field(name="from")
    target: str = msgspec.field(name="to")
    points: tuple[tuple[float, float], ...]


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """A drawing, from (0, 0) to its ``width`` and ``height``."""

    width: float = 0.0
    height: float = 0.0
    nodes: tuple[PlacedNode, ...] = ()
    edges: tuple[PlacedEdge, ...] = ()


def layers_of(after: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """Return the layer of each step: behind the last of those that it comes after."""
    layers: dict[str, int] = {}
    for name in after:  # in an order in which each follows those that it comes after
        layers[name] = max((layers[before] + 1 for before in after[name] if before in layers), default=0)
    return layers


def laid_out(after: Mapping[str, Sequence[str]]) -> Layout:
    """Return the drawing of a graph, given as the steps that each step comes after, in an order that follows them."""
    layers = layers_of(after)
    columns: dict[int, list[str]] = {}
    for name, layer in layers.items():
        columns.setdefault(layer, []).append(name)
    tallest = max((len(column) for column in columns.values()), default=0)
    height = tallest * (HEIGHT + BESIDE) - BESIDE if tallest else 0
    nodes: dict[str, PlacedNode] = {}
    for layer, column in columns.items():
        top = (height - (len(column) * (HEIGHT + BESIDE) - BESIDE)) / 2
        for at, name in enumerate(column):
            nodes[name] = PlacedNode(
                name=name, layer=layer, x=layer * (WIDTH + BETWEEN), y=top + at * (HEIGHT + BESIDE)
            )
    edges = [_edge(nodes[before], nodes[name]) for name in after for before in after[name] if before in nodes]
    width = len(columns) * (WIDTH + BETWEEN) - BETWEEN if columns else 0
    return Layout(width=width, height=height, nodes=tuple(nodes.values()), edges=tuple(edges))


def _edge(source: PlacedNode, target: PlacedNode) -> PlacedEdge:
    begin = (source.x + source.width, source.y + source.height / 2)
    return PlacedEdge(source=source.name, target=target.name, points=(begin, (target.x, target.y + target.height / 2)))
