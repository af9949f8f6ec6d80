"""The workflows of the example: an order, and a child for each of its items."""

from __future__ import annotations

import msgspec

from jetflow import Context, Retry, Workflow, workflow


class Order(msgspec.Struct):
    """What was ordered: the names of items."""

    items: list[str]


@workflow("pack", retry=Retry(attempts=5), timeout=30)
async def pack(item: str) -> int:
    return len(item)


order = Workflow("order", input=Order, output=str)


@order.step
async def pack_all(order: Order, ctx: Context) -> int:
    parcels = await ctx.spawn_workflows(pack, order.items, key=lambda item: item)
    return sum(await ctx.join(parcels))


@order.step(after=[pack_all])
async def send(order: Order, ctx: Context) -> str:
    return f"{len(order.items)} items, {ctx.output(pack_all)} letters"
