"""A Litestar service with a client and a worker inside, for as long as it runs.

uvicorn --app-dir examples litestar_app:app
"""

from __future__ import annotations

from typing import Any

from litestar import Litestar, Request, get, post
from litestar.exceptions import NotFoundException
from web_flows import Order, price, price_item

from jetflow.embedding import client_of, lifespan
from jetflow.errors import UnknownRun


@post("/orders", status_code=202)
async def order(data: dict[str, Any], request: Request[Any, Any, Any]) -> dict[str, object]:
    run = await client_of(request).trigger(price, Order(data["items"]), key=data.get("id"))
    return {"run": run.id, "created": run.created}


@get("/orders/{run_id:str}")
async def show(run_id: str, request: Request[Any, Any, Any]) -> dict[str, object]:
    try:
        run = client_of(request).run(run_id, price)
        status = await run.status()
    except UnknownRun as error:
        raise NotFoundException(str(error)) from error
    return {"status": status, "total": await run.result() if status == "succeeded" else None}


app = Litestar([order, show], lifespan=[lifespan([price, price_item])])  # at NATS_URL
