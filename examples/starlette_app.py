"""A Starlette service with a client and a worker inside, for as long as it runs.

uvicorn --app-dir examples starlette_app:app
"""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from web_flows import Order, price, price_item

from jetflow.embedding import client_of, lifespan
from jetflow.errors import UnknownRun


async def order(request: Request) -> JSONResponse:
    asked = await request.json()
    run = await client_of(request).trigger(price, Order(asked["items"]), key=asked.get("id"))
    return JSONResponse({"run": run.id, "created": run.created}, status_code=202)


async def show(request: Request) -> JSONResponse:
    try:
        run = client_of(request).run(request.path_params["run_id"], price)
        status = await run.status()
    except UnknownRun as error:
        return JSONResponse({"error": str(error)}, status_code=404)
    return JSONResponse({"status": status, "total": await run.result() if status == "succeeded" else None})


app = Starlette(
    routes=[Route("/orders", order, methods=["POST"]), Route("/orders/{run_id}", show)],
    lifespan=lifespan([price, price_item]),  # at NATS_URL; leave the workflows out for no worker
)
