"""A FastAPI service with a client and a worker inside, for as long as it runs.

uvicorn --app-dir examples fastapi_app:app
"""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Request
from pydantic import BaseModel
from web_flows import Order, price, price_item

from jetflow import Client
from jetflow.embedding import client_of, lifespan
from jetflow.errors import UnknownRun

app = FastAPI(lifespan=lifespan([price, price_item]))  # at NATS_URL; leave the workflows out for no worker


def jetflow_client(request: Request) -> Client:
    return client_of(request)


Jetflow = Annotated[Client, Depends(jetflow_client)]


class Asked(BaseModel):
    items: list[str]
    id: str | None = None


@app.post("/orders", status_code=202)
async def order(asked: Asked, jetflow: Jetflow) -> dict[str, object]:
    run = await jetflow.trigger(price, Order(asked.items), key=asked.id)
    return {"run": run.id, "created": run.created}


@app.get("/orders/{run_id}")
async def show(run_id: str, jetflow: Jetflow) -> dict[str, object]:
    try:
        run = jetflow.run(run_id, price)
        status = await run.status()
    except UnknownRun as error:
        raise HTTPException(404, str(error)) from error
    return {"status": status, "total": await run.result() if status == "succeeded" else None}
