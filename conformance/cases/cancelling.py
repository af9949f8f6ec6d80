"""C: runs that are cancelled, and trees that are deleted. A *child* worker may ignore cancelling."""

from __future__ import annotations

import asyncio

from conformance.expected import (
    Expected,
    Run,
    ack,
    cancel_mark,
    counted,
    delivered,
    mark,
    message,
    outcome,
    purged,
    told,
)
from conformance.lab import Lab, encode
from conformance.suite import case
from conformance.wire import new_id


@case("C01", "parent")
async def its_parent_is_cancelled(lab: Lab) -> None:
    """A child of a cancelled run is not run: a mark of its own, for it may have children; then it ends (Cancelling)."""
    parent = await lab.parent(deep=True)
    await lab.cancel(parent.root, parent.run)
    child = await lab.spawn(parent, "square", 3)
    await lab.expect(
        parent, cancel_mark(child), mark(child, "cancelled"), outcome(child, "cancelled"), counted(parent), ack(child)
    )


@case("C07", "parent")
async def its_root_is_cancelled(lab: Lab) -> None:
    """A task of a cancelled tree is not run: its run ends as cancelled, and is counted (Cancelling)."""
    parent = await lab.parent(deep=True)
    await lab.cancel(parent.root, parent.root)
    child = await lab.spawn(parent, "square", 3)
    await lab.expect(parent, mark(child, "cancelled"), outcome(child, "cancelled"), counted(parent), ack(child))


@case("C02", "parent")
async def only_its_parent_is_cancelled(lab: Lab) -> None:
    """A parent's, or a root's, mark that says "alone" does not cover a child: it runs (Cancelling)."""
    parent = await lab.parent(deep=True)
    await lab.cancel(parent.root, parent.run, b'"alone"')
    await lab.cancel(parent.root, parent.root, b'"alone"')
    child = await lab.spawn(parent, "square", 3)
    await lab.expect(parent, outcome(child, "succeeded", output=9), counted(parent), ack(child))


@case("C12", "parent")
async def its_parent_failed_fast(lab: Lab) -> None:
    """A mark "rest" covers the run's children, "rest but x" not those of its step x; neither covers a tree."""
    for body, step, status in (
        ('"rest"', "scatter", "cancelled"),
        ('"rest but undo"', "scatter", "cancelled"),
        ('"rest but undo"', "undo", "succeeded"),
    ):
        parent = (await lab.parent(deep=True)).at(step)
        await lab.cancel(parent.root, parent.run, body.encode())
        child = await lab.spawn(parent, "square", 3)
        await lab.expect(parent, outcome(child, status), counted(parent), ack(child))
    parent = await lab.parent(deep=True)
    await lab.cancel(parent.root, parent.root, b'"rest"')
    child = await lab.spawn(parent, "square", 3)
    await lab.expect(parent, outcome(child, "succeeded"), counted(parent), ack(child))


@case("C03", "parent")
async def its_tree_is_deleted(lab: Lab) -> None:
    """Of a deleted tree nothing is stored any more: its tasks are only acknowledged (Cancelling)."""
    parent = await lab.parent(deep=True)
    await lab.cancel(parent.root, parent.root, b'"deleted"')
    child = await lab.spawn(parent, "square", 3)
    await lab.expect(parent, ack(child))
    lab.never(parent, message("run"), message("mark"), message("count"), message("cancel"), told(child))


@case("C13", "parent")
async def its_tree_is_deleted_with_others(lab: Lab) -> None:
    """A mark "deleted" may name many root runs at once (Deleting)."""
    parent = await lab.parent(deep=True)
    await lab.cancel("-", new_id(), encode([new_id(), parent.root]))
    child = await lab.spawn(parent, "square", 3)
    await lab.expect(parent, ack(child))
    lab.never(parent, message("run"), message("mark"), message("count"), message("cancel"), told(child))


@case("C04", "parent")
async def it_is_cancelled_while_it_runs(lab: Lab) -> None:
    """A step that is running when its mark comes is told to stop, and its run ends as cancelled (Cancelling)."""
    parent = await lab.parent(deep=True)
    child = await lab.spawn(parent, "slow", 30)
    await lab.expect(parent, delivered(child))
    await asyncio.sleep(0.5)  # so that its body is running
    await lab.cancel(parent.root, child.run)
    await lab.expect(parent, mark(child, "cancelled"), outcome(child, "cancelled"), counted(parent), ack(child))


@case("C08", "parent", alone=True)
async def it_is_cancelled_while_away(lab: Lab) -> None:
    """After a reconnect a worker reads the marks that it has not heard (Cancelling)."""
    parent = await lab.parent(deep=True)
    child = await lab.spawn(parent, "slow", 30)
    await lab.expect(parent, delivered(child))
    lab.proxy.closed = True
    await lab.proxy.cut()
    await lab.cancel(parent.root, child.run)
    lab.proxy.closed = False
    await lab.expect(parent, mark(child, "cancelled"), outcome(child, "cancelled"), counted(parent), within=20)


@case("C09", "parent", start=False)
async def it_was_cancelled_before(lab: Lab) -> None:
    """When it starts, a worker reads the marks of the last hour (Cancelling)."""
    await lab.start()
    await lab.tested.stop()
    parent = await lab.parent(deep=True)
    await lab.cancel(parent.root, parent.run)
    child = await lab.spawn(parent, "square", 3)
    await lab.start()
    await lab.expect(parent, mark(child, "cancelled"), outcome(child, "cancelled"), counted(parent), ack(child))


@case("C05", "parent")
async def it_ended_under_another_step(lab: Lab) -> None:
    """A task of a cancelled run that was put back under another step, and has ended there, is only acknowledged."""
    parent = await lab.parent(deep=True)
    await lab.cancel(parent.root, parent.run)
    child = lab.child(parent, "square")
    elsewhere = Run(child.workflow, "run", child.root, child.parent, "another", child.run)
    await lab.broker.store(lab.subject("run", **elsewhere.tokens), encode({"status": "cancelled"}))
    await lab.spawn_as(child, 3)
    await lab.expect(parent, ack(child))
    lab.never(parent, message("run"), message("mark"), counted(parent))


async def family(lab: Lab) -> tuple[Run, list[Run]]:
    """Play a root run with two queued children, none of which anybody runs, and whose first has a child too."""
    root = await lab.parent()
    await lab.declare(other := f"raw-{new_id()[:8]}")
    children = [Run(other, "run", root.root, root.run, "scatter", new_id()) for _ in range(2)]
    for child in children:
        await lab.store_task(child, 1, {"Jf-Parent-Step": "scatter", "Jf-Depth": "1", "Jf-Version": "v1"})
    below = Run(other, "run", root.root, children[0].run, "run", new_id())
    await lab.store_task(below, 1, {"Jf-Parent-Step": "run", "Jf-Depth": "2", "Jf-Version": "v1"})
    return root, [*children, below]


@case("C06", "client")
async def a_client_cancels_a_root(lab: Lab) -> None:
    """Cancelling a root: marks, outcome; then its tree's tasks are purged, and its first put back (Cancelling)."""
    root, _ = await family(lab)
    await lab.tested.ask("cancel", run=root.run)
    *_, kept = await lab.expect(
        root,
        cancel_mark(root),
        mark(root, "cancelled"),
        outcome(root, "cancelled"),
        purged("task", root.root),
        task_again(root),
    )
    await lab.expect(root, outcome(root, "cancelled"), purged("timer", root.root))
    lab.check(".kept" in kept.headers["Nats-Msg-Id"], "the first task is put back by another message id", root)
    left = await lab.broker.subjects(lab.names.tasks, f"jf.*.task.*.*.{root.root}.>")
    lab.check(left == [lab.subject("task", **root.tokens, turn=0)], f"only the root's first task stays: {left}", root)


@case("C10", "client")
async def a_client_cancels_a_run_in_the_middle(lab: Lab) -> None:
    """Cancelling a run that is no root marks it and its descendants that have children, and counts it (Cancelling)."""
    root, (child, other, below) = await family(lab)
    await lab.tested.ask("cancel", run=child.run)
    await lab.expect(root, cancel_mark(child), mark(child, "cancelled"), outcome(child, "cancelled"), counted(root))
    subjects = await lab.broker.subjects(lab.names.tasks, f"jf.*.task.*.*.{root.root}.>")
    left = {subject.split(".")[-2] for subject in subjects}
    lab.check(below.run not in left, "the queued tasks of its descendants must be purged", root)
    lab.check({root.run, other.run} <= left, "its sister, and its root, must stay", root)


def task_again(run: Run) -> Expected:
    """Expect that a first task is put back."""
    return message("task", workflow=run.workflow, step=run.step, run=run.run, turn=0)


@case("C11", "client")
async def a_client_deletes_a_tree(lab: Lab) -> None:
    """Deleting a tree: a mark "deleted" first, then nothing of the tree stays but that (Cancelling)."""
    root, _ = await family(lab)
    await lab.end(root, count=False)
    await lab.tested.ask("delete", run=root.run)
    (marked,) = await lab.expect(root, cancel_mark(root))
    lab.check(marked.body == b'"deleted"', f"the mark's body is {marked.body!r}", root)
    for stream in (lab.names.tasks, lab.names.records, lab.names.counters, lab.names.values, lab.names.timers):
        subjects = await lab.broker.subjects(stream, ">")
        left = [one for one in subjects if root.root in one and ".cancel." not in one]
        lab.check(not left, f"{stream} still holds {left}", root)
