"""The workflows of the web services beside this file: an order is priced by a child run an item."""

from __future__ import annotations

import msgspec

from jetflow import Context, workflow

PRICES = {"apple": 3, "pear": 4, "plum": 5}


class Order(msgspec.Struct):
    items: list[str]


@workflow("price-item")
async def price_item(item: str) -> int:
    return PRICES[item]


@workflow("price")
async def price(order: Order, ctx: Context) -> int:
    children = await ctx.spawn_workflows(price_item, order.items)  # equal items are one child, joined as often
    return sum(await ctx.join(children))
