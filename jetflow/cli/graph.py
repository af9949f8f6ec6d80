"""`jetflow workflows` and `jetflow graph`: what is declared, and how its steps hang together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Final, Literal

import msgspec
from cyclopts import Parameter
from rich.text import Text

from jetflow.cli.console import printable, stdout
from jetflow.cli.json_text import print_json
from jetflow.cli.options import AsJson
from jetflow.cli.place import Place
from jetflow.cli.tables import table_of
from jetflow.drawing.layout import laid_out, layers_of
from jetflow.drawing.svg import svg_of
from jetflow.engine.graph import Graph
from jetflow.wire.records import Declaration, DeclaredStep

_NO_STEP: Final = DeclaredStep()


def workflows(*, as_json: AsJson = False, place: Place = Place()) -> int:  # noqa: B008 - frozen
    """List the workflows that are declared: their steps, newest version, and where their code is.

    ```
    jetflow workflows --namespace billing
    ```
    """
    found = place.ask(lambda client: client.declarations())
    if as_json:
        print_json([_shown(name, declaration) for name, declaration in found.items()])
        return 0
    if not found:
        stdout().print(Text("no workflow: none was declared here yet", "dim"))
        return 0
    table = table_of("workflow", "version", "steps", "deadline", "about")
    for name, declaration in found.items():
        steps = declaration.graph.nodes
        first = declaration.steps.get(steps[0].name, _NO_STEP) if steps else _NO_STEP
        table.add_row(
            Text(name),
            Text(declaration.version),
            Text(", ".join(node.name for node in steps)),
            Text("" if declaration.deadline is None else f"{declaration.deadline:g} s"),
            Text(printable(first.doc) or first.source, "dim"),
        )
    stdout().print(table)
    return 0


def _shown(name: str, declaration: Declaration) -> dict[str, object]:
    told: dict[str, object] = msgspec.json.decode(msgspec.json.encode(declaration))
    return {"workflow": name, **told}


def graph(
    workflow: Annotated[str, Parameter(help="The workflow's name.")],
    /,
    *,
    form: Annotated[Literal["text", "mermaid", "svg"], Parameter(name="--format", help="How to draw it.")] = "text",
    as_json: AsJson = False,
    place: Place = Place(),  # noqa: B008 - frozen
) -> int:
    """Draw the steps of a workflow: as text, for Mermaid, or as an SVG file.

    ```
    jetflow graph count-tree --format svg > count-tree.svg
    ```
    """
    declaration = place.ask(lambda client: client.declaration(workflow))
    if as_json:
        print_json(_shown(workflow, declaration))
    else:
        print(_DRAW[form](declaration), end="")
    return 0


def drawing_of(declaration: Declaration) -> str:
    """Return a graph as an SVG file. What runs behind the end stands by itself, with a dashed border."""
    graph = declaration.graph
    after: dict[str, tuple[str, ...]] = {node.name: node.after for node in graph.nodes}
    after.update((step, ()) for step in graph.sequels)
    return svg_of(laid_out(after), f"{graph.workflow} @ {declaration.version}", graph.sequels)


def mermaid_of(graph: Graph) -> str:
    """Return a graph as Mermaid draws it."""
    number = {node.name: f"s{at}" for at, node in enumerate(graph.nodes)}
    lines = ["flowchart LR", *(f'    {number[node.name]}["{node.name}"]' for node in graph.nodes)]
    lines += [f"    {number[before]} --> {number[node.name]}" for node in graph.nodes for before in node.after]
    if graph.on_failure is not None:
        lines.append(f'    f["{graph.on_failure} (on failure)"]:::failure')
    if graph.on_success is not None:
        lines.append(f'    g["{graph.on_success} (on success)"]:::failure')
    if graph.sequels:
        lines.append("    classDef failure stroke-dasharray: 4")
    return "\n".join(lines) + "\n"


def text_of(declaration: Declaration) -> str:
    """Return a graph as lines: each step below those that it comes after, as deep as its longest way from the start."""
    graph = declaration.graph
    depth = layers_of({node.name: node.after for node in graph.nodes})
    lines = [f"{graph.workflow} @ {declaration.version}"]
    for node in graph.nodes:
        after = f"  after {', '.join(node.after)}" if node.after else ""
        told = _told(declaration.steps.get(node.name, _NO_STEP))
        lines.append(f"{'   ' * depth[node.name]}{'└─ ' if node.after else '── '}{node.name}{after}{told}")
    if graph.on_failure is not None:
        lines.append(f"── {graph.on_failure}  on failure")
    if graph.on_success is not None:
        lines.append(f"── {graph.on_success}  on success")
    return "\n".join(lines) + "\n"


def _told(step: DeclaredStep) -> str:
    facts = [
        f"{step.attempts} attempts" if step.attempts != 1 else "",
        "" if step.timeout is None else f"timeout {step.timeout:g} s",
        "" if step.max_running is None else f"at most {step.max_running} at once",
        *(f"{name} {operator} {value}" for name, operator, value in step.requires),
        "" if step.batch is None else f"batches of {step.batch.size}, within {step.batch.wait:g} s",
    ]
    return "".join(f"  [{fact}]" for fact in facts if fact)


_DRAW: Final[dict[str, Callable[[Declaration], str]]] = {
    "text": text_of,
    "mermaid": lambda declaration: mermaid_of(declaration.graph),
    "svg": drawing_of,
}
