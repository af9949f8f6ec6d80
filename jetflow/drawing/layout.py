"""Where the steps of a workflow stand in a drawing: in layers from left to right, edges always forward.

Pure, and in three passes. A step stands in the layer behind the last of those that it comes after; an edge that skips
layers gets a place in each of them, so that it passes beside nodes and not through them. Then each layer is ordered by
where its neighbours stand, forth and back, so that few edges cross. Last, each layer is moved as near to its neighbours
as the room between its nodes allows. Names play no part: the same graph with other names is drawn alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Final, TypeAlias

import msgspec

WIDTH: Final = 200.0
HEIGHT: Final = 72.0
"""Size of a node."""

BETWEEN: Final = 64.0
"""Room between two layers, for the edges."""

BESIDE: Final = 24.0
"""Room between two nodes of a layer, and the height that an edge has which passes through it."""

SWEEPS: Final = 8
"""How often the layers are ordered, and then moved, forth and back."""

Place: TypeAlias = tuple[int, int]
"""A node or an edge's place in a layer: the number of the node, or of the edge, and the layer of the latter or -1."""


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
    """Return the layer of each step, given as for `laid_out`: behind the last of those that it comes after."""
    layers: dict[str, int] = {}
    for name, befores in after.items():
        layers[name] = max((layers[before] + 1 for before in befores if before in layers), default=0)
    return layers


def laid_out(after: Mapping[str, Sequence[str]]) -> Layout:
    """Return the drawing of a graph, given as the steps that each step comes after, each behind those.

    What comes after a step that is not there is drawn without that edge.
    """
    names = list(after)
    number = {name: at for at, name in enumerate(names)}
    edges = [
        (number[before], at) for name, at in number.items() for before in dict.fromkeys(after[name]) if before in number
    ]
    drawing = _Drawing(list(layers_of(after).values()), [edge for edge in edges if edge[0] < edge[1]])
    return drawing.layout(names)


class _Drawing:
    """A graph of numbered nodes, while it is laid out."""

    def __init__(self, layer_of: Sequence[int], edges: Sequence[tuple[int, int]]) -> None:
        self._edges = edges
        self._layer_of = layer_of
        self._layers: list[list[Place]] = [[] for _ in range(max(self._layer_of, default=-1) + 1)]
        for node, layer in enumerate(self._layer_of):
            self._layers[layer].append((node, -1))
        self._ways = [self._way(at) for at in range(len(edges))]
        self._before: dict[Place, list[Place]] = {place: [] for layer in self._layers for place in layer}
        self._behind: dict[Place, list[Place]] = {place: [] for layer in self._layers for place in layer}
        for way in self._ways:
            for one, other in pairwise(way):
                self._behind[one].append(other)
                self._before[other].append(one)
        self._order()
        self._middle = self._middles()

    def _way(self, edge: int) -> list[Place]:
        """Return the places of an edge, one in each layer from its source to its target."""
        source, target = self._edges[edge]
        passing = [(edge, layer) for layer in range(self._layer_of[source] + 1, self._layer_of[target])]
        for place in passing:
            self._layers[place[1]].append(place)
        return [(source, -1), *passing, (target, -1)]

    def _order(self) -> None:
        """Order each layer by the middle of its neighbours in the layer before it, then behind it; keep the best."""
        best, fewest = [list(layer) for layer in self._layers], self._crossings()
        for sweep in range(SWEEPS):
            if not fewest:
                break
            forth = sweep % 2 == 0
            neighbours = self._before if forth else self._behind
            for layer in self._layers if forth else reversed(self._layers):
                position = {place: at for other in self._layers for at, place in enumerate(other)}
                kept = {place: float(at) for at, place in enumerate(layer)}
                layer.sort(key=lambda place: _mean([float(position[one]) for one in neighbours[place]], kept[place]))
            crossings = self._crossings()
            if crossings < fewest:
                best, fewest = [list(layer) for layer in self._layers], crossings
        self._layers = best

    def _crossings(self) -> int:
        """Count the pairs of edges between two layers that cross."""
        position = {place: at for layer in self._layers for at, place in enumerate(layer)}
        count = 0
        for layer in self._layers:
            ends = [position[one] for place in layer for one in sorted(self._behind[place], key=position.__getitem__)]
            count += sum(earlier > later for at, later in enumerate(ends) for earlier in ends[:at])
        return count

    def _middles(self) -> dict[Place, float]:
        """Return the height of the middle of each place."""
        middle = {place: 0.0 for layer in self._layers for place in layer}
        for layer in self._layers:
            _spread(layer, dict.fromkeys(layer, 0.0), middle)
        for sweep in range(SWEEPS):
            neighbours = self._before if sweep % 2 == 0 else self._behind
            for layer in self._layers if sweep % 2 == 0 else reversed(self._layers):
                wanted = {place: _mean([middle[one] for one in neighbours[place]], middle[place]) for place in layer}
                _spread(layer, wanted, middle)
        top = min((middle[place] - _height(place) / 2 for place in middle), default=0.0)
        return {place: at - top for place, at in middle.items()}

    def layout(self, names: Sequence[str]) -> Layout:
        """Return the drawing, with the nodes' names."""
        middle = self._middle
        nodes = [
            PlacedNode(name=name, layer=layer, x=layer * (WIDTH + BETWEEN), y=round(middle[at, -1] - HEIGHT / 2, 1))
            for at, (name, layer) in enumerate(zip(names, self._layer_of, strict=True))
        ]
        edges = [
            PlacedEdge(source=names[source], target=names[target], points=tuple(self._points(way)))
            for (source, target), way in zip(self._edges, self._ways, strict=True)
        ]
        height = max((at + _height(place) / 2 for place, at in middle.items()), default=0.0)
        width = len(self._layers) * (WIDTH + BETWEEN) - BETWEEN if self._layers else 0.0
        return Layout(width=width, height=round(height, 1), nodes=tuple(nodes), edges=tuple(edges))

    def _points(self, way: Sequence[Place]) -> list[tuple[float, float]]:
        points: list[tuple[float, float]] = []
        for at, place in enumerate(way):
            layer, y = (self._layer_of[place[0]] if place[1] < 0 else place[1]), round(self._middle[place], 1)
            left = layer * (WIDTH + BETWEEN)
            points += [(left, y)] if at else []
            points += [(left + WIDTH, y)] if at < len(way) - 1 else []
        return points


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def _height(place: Place) -> float:
    return HEIGHT if place[1] < 0 else 0.0


def _spread(layer: Sequence[Place], wanted: Mapping[Place, float], middle: dict[Place, float]) -> None:
    """Put the places of a layer, in their order, as near as can be to where they are wanted, with room between them.

    Taken as offsets from a column without gaps, the wanted heights must not fall from one to the next; where they do,
    the ones in a row share their mean.
    """
    offsets, offset = list[float](), 0.0
    for before, place in zip([None, *layer], layer, strict=False):
        offset += 0.0 if before is None else (_height(before) + _height(place)) / 2 + BESIDE
        offsets.append(offset)
    groups: list[tuple[float, int]] = []
    for place, begin in zip(layer, offsets, strict=True):
        mean, count = wanted[place] - begin, 1
        while groups and groups[-1][0] > mean:
            before, many = groups.pop()
            mean, count = (before * many + mean * count) / (many + count), many + count
        groups.append((mean, count))
    means = [mean for mean, count in groups for _ in range(count)]
    for place, begin, mean in zip(layer, offsets, means, strict=True):
        middle[place] = mean + begin
