"""What a run has spawned, rolled up, as lines of a terminal: one for each step and workflow, never for each run."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from jetflow.cli.tables import STYLES, took
from jetflow.runs.query.rows import Tree, TreeNode


def tree_of(tree: Tree) -> RenderableType:
    """Return a tree, a line a node."""
    if not tree.children:
        return Text("nothing spawned", "dim")
    lines = [line for node in tree.children for line in _lines(node, "  ")]
    if not tree.searched.complete:
        lines.append(Text(f"the first {tree.searched.runs:,} runs of the tree", "dim"))
    for line in lines:
        line.no_wrap, line.overflow = True, "ellipsis"
    return Group(*lines)


def _lines(node: TreeNode, indent: str) -> list[Text]:
    text = Text.assemble(f"{indent}{node.step} → ", (node.workflow, "bold"), f"  {node.totals.spawned:,}")
    for status in ("open", "succeeded", "failed", "timed_out", "cancelled"):
        count: int = getattr(node.totals, status)
        if count:
            text.append(f"  {count:,} {status.replace('_', ' ')}", STYLES[status])
    if node.took is not None:
        text.append(f"  p50 {took(0.0, node.took.p50)}  p95 {took(0.0, node.took.p95)}", "dim")
    below = [line for child in node.children for line in _lines(child, f"{indent}  ")]
    if node.deeper:
        below.append(Text(f"{indent}  …", "dim"))
    return [text, *below]
