"""One run, as its page shows it."""

from __future__ import annotations

import msgspec

from jetflow.client import Client
from jetflow.drawing.layout import Layout, laid_out
from jetflow.runs.query.lineage import Lineage
from jetflow.runs.query.rows import RunTotals
from jetflow.runs.trace import RunTrace


class RunDetail(msgspec.Struct, frozen=True, kw_only=True):
    """One run. Its trace has no values (ask for them by themselves) and no children.

    ``graph`` is empty where the graph of its version is not stored.
    """

    run: RunTrace
    totals: RunTotals
    graph: Layout
    lineage: Lineage


async def read_trace(client: Client, run_id: str) -> RunTrace:
    """Return where a run and its steps stand, without any value."""
    trace = await client.describe(run_id, children=0, values=False)
    steps = tuple(msgspec.structs.replace(step, output=None) for step in trace.steps)
    return msgspec.structs.replace(trace, input=None, output=None, steps=steps)


def graph_of(trace: RunTrace) -> Layout:
    """Return where its steps are drawn."""
    return laid_out({step.name: step.after for step in trace.steps})
