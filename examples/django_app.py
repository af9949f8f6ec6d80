"""A Django service in one file: views of both kinds, and a worker inside whose step uses the database.

    uvicorn --app-dir examples django_app:app

Plain views use one client of ``jetflow.sync`` for the process; asynchronous ones the client of the event loop, which
`jetflow.embedding.asgi` opens, since Django has no lifespan. Below a WSGI server only the plain ones are left, and the
worker is a process of its own: ``jetflow worker django_app``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Annotated

import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.db import close_old_connections, connection
from django.http import HttpRequest, JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from web_flows import Order, price, price_item

import jetflow.sync
from jetflow import Depends, workflow
from jetflow.embedding import asgi, client_of, lifespan
from jetflow.errors import UnknownRun

settings.configure(
    ALLOWED_HOSTS=["127.0.0.1", "localhost"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ.get("DATABASE", "orders.db")}},
    ROOT_URLCONF=__name__,
    SECRET_KEY=os.environ.get("SECRET_KEY", "for this example alone"),
)
django.setup()

plain = jetflow.sync.connect(lazy=True)


def database() -> Iterator[None]:
    """What Django does around a request: a connection that has gone stale is not used again."""
    close_old_connections()
    try:
        yield
    finally:
        close_old_connections()


@workflow("ask-database")
def ask_database(number: int, _: Annotated[None, Depends(database, per="attempt")]) -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT %s + 1", [number])
        return cursor.fetchone()[0]


@csrf_exempt
def order(request: HttpRequest) -> JsonResponse:
    asked = json.loads(request.body)
    run = plain.trigger(price, Order(asked["items"]), key=asked.get("id"))
    return JsonResponse({"run": run.id, "created": run.created}, status=202)


async def show(request: HttpRequest, run_id: str) -> JsonResponse:
    try:
        run = client_of(request).run(run_id, price)
        status = await run.status()
    except UnknownRun as error:
        return JsonResponse({"error": str(error)}, status=404)
    return JsonResponse({"status": status, "total": await run.result() if status == "succeeded" else None})


async def count(request: HttpRequest, number: int) -> JsonResponse:
    run = await client_of(request).trigger(ask_database, number)
    return JsonResponse({"next": await run.result(timeout=30)})


urlpatterns = [path("orders", order), path("orders/<str:run_id>", show), path("next/<int:number>", count)]

app = asgi(get_asgi_application(), lifespan([price, price_item, ask_database]))  # at NATS_URL
