"""The workflow of the chaos run that fails and is run again, and what the checker asks of it.

In its first run some of its children break for good; in the run that is made of it they do not. All else is taken over:
nothing that has succeeded is run again, however deep, and the sum is of both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jetflow import ChildrenFailed, Context, InvalidInput, NonRetryable, Workflow, workflow
from tests.chaos.leaves import PATIENT, leaf, work
from tests.chaos.plan import BRITTLE, MENDS, Leaf, Node, broken, kept, leaf_value, mended_below

if TYPE_CHECKING:
    from tests.chaos.checker import Streams, Verdict

SHOWN = 200


@workflow(BRITTLE, retry=PATIENT)
async def brittle(one: Leaf, ctx: Context) -> int:
    """Breaks, and holds when it is run again: what it has recorded is of another run then."""
    await work()
    if await ctx.once("first", lambda: ctx.run_id) == ctx.run_id:
        raise NonRetryable(f"{one.seed} breaks")
    return leaf_value(one.seed)


mends = Workflow(MENDS, input=Node, output=int, retry=PATIENT)


@mends.step
async def mend_all(node: Node, ctx: Context) -> int:
    children = [
        *await ctx.spawn_workflows(leaf, [Leaf(seed) for seed in kept(node.seed)], key=lambda one: f"leaf {one.seed}"),
        *await ctx.spawn_workflows(brittle, [Leaf(seed) for seed in broken(node.seed)]),
        *await ctx.spawn_workflows(mends, mended_below(node)),
    ]
    try:
        return sum(await ctx.join(children))
    except ChildrenFailed as error:
        raise InvalidInput(f"a child failed: {error}") from None


MENDING: dict[str, Workflow[Any, Any]] = {one.name: one for one in (mends, brittle)}


def check_reruns(verdict: Verdict, streams: Streams) -> None:
    """Nothing may run again whose elder has succeeded, and all of that is adopted.

    A child may have a task all the same, and be adopted by its own step: whoever spawned it read before its elder had
    ended, or from a replica that had not heard of that.
    """
    for run, task in streams.runs.items():
        verdict.reruns += task.is_again and task.parent == "-"
        if task.is_again and task.parent != "-" and not {run, task.elder} & verdict.not_permitted:
            verdict.run_again += 1
            if any(one.outcome["status"] == "succeeded" for one in streams.ended.get(task.elder, [])):
                verdict.needlessly.append(f"run {run} of {task.workflow} is run again, and {task.elder} has succeeded")
    for run, endings in streams.ended.items():
        adopted = endings[0].outcome.get("adopted")
        if not adopted:
            continue
        verdict.adopted += 1
        elder = streams.ended.get(adopted.rpartition(".")[2], [])
        told = [(one.outcome["status"], one.outcome.get("output")) for one in elder]
        if told != [("succeeded", endings[0].outcome.get("output"))]:
            verdict.wrong.append(f"run {run} is adopted of {adopted}, which ended as {str(told)[:SHOWN]}")
