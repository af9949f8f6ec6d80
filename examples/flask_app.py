"""A Flask service that triggers runs and shows them. The worker is a process of its own.

    jetflow dev examples/web_flows.py          # a server, and a worker
    gunicorn --preload --workers 2 --chdir examples flask_app:app

One client serves all threads; each forked process connects by itself.
"""

from __future__ import annotations

from flask import Flask, request
from web_flows import Order, price

import jetflow.sync
from jetflow.errors import UnknownRun

app = Flask(__name__)
client = jetflow.sync.connect(lazy=True)  # at NATS_URL, when it is first used


@app.post("/orders")
def order() -> tuple[dict[str, object], int]:
    asked = request.get_json()
    run = client.trigger(price, Order(items=asked["items"]), key=asked.get("id"))
    return {"run": run.id, "created": run.created}, 202 if run.created else 200


@app.get("/orders/<run_id>")
def show(run_id: str) -> tuple[dict[str, object], int]:
    try:
        run = client.run(run_id, price)
        status = run.status()
    except UnknownRun as error:
        return {"error": str(error)}, 404
    total = run.result() if status == "succeeded" else None
    return {"status": status, "total": total}, 200
