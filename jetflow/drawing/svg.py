"""The drawing of a workflow as SVG: one file that needs nothing else, in the colours of whoever shows it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final
from xml.sax.saxutils import escape

from jetflow.drawing.layout import HEIGHT, WIDTH, Layout, PlacedEdge, PlacedNode

MARGIN: Final = 16.0

SHOWN: Final = 24
"""Letters of a name that fit into a node."""

_STYLE: Final = (
    "text{font:13px ui-sans-serif,system-ui,sans-serif;fill:#1b1f24;text-anchor:middle;dominant-baseline:central}"
    "rect{fill:#fff;stroke:#6e7781}path{fill:none;stroke:#6e7781}.failure{stroke-dasharray:4}"
    "@media(prefers-color-scheme:dark){text{fill:#e6edf3}rect{fill:#161b22;stroke:#8b949e}path{stroke:#8b949e}}"
)


def svg_of(layout: Layout, title: str, dashed: Collection[str] = ()) -> str:
    """Return a drawing as an SVG file. The nodes that are ``dashed`` have such a border."""
    width, height = layout.width + 2 * MARGIN, layout.height + 2 * MARGIN
    size = f'width="{width:g}" height="{height:g}" viewBox="{-MARGIN:g} {-MARGIN:g} {width:g} {height:g}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">',
        f"<title>{_text(title)}</title><style>{_STYLE}</style>",
        *(_edge(edge) for edge in layout.edges),
        *(_node(node, is_dashed=node.name in dashed) for node in layout.nodes),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _node(node: PlacedNode, *, is_dashed: bool) -> str:
    kind = ' class="failure"' if is_dashed else ""
    shown = node.name if len(node.name) <= SHOWN else f"{node.name[: SHOWN - 1]}…"
    x, y = node.x + WIDTH / 2, node.y + HEIGHT / 2
    return (
        f'<g><title>{_text(node.name)}</title><rect{kind} x="{node.x:g}" y="{node.y:g}" width="{WIDTH:g}" '
        f'height="{HEIGHT:g}" rx="8"/><text x="{x:g}" y="{y:g}">{_text(shown)}</text></g>'
    )


def _edge(edge: PlacedEdge) -> str:
    """Draw straight lines through nodes' layers, and curves between them."""
    (x, y), *rest = edge.points
    path = [f"M{x:g} {y:g}"]
    for at, (to_x, to_y) in enumerate(rest):
        middle = (x + to_x) / 2
        path.append(f"H{to_x:g}" if at % 2 or y == to_y else f"C{middle:g} {y:g} {middle:g} {to_y:g} {to_x:g} {to_y:g}")
        x, y = to_x, to_y
    return f'<path d="{" ".join(path)}"/>'


def _text(text: str) -> str:
    return escape("".join(letter if letter.isprintable() else "·" for letter in text))
