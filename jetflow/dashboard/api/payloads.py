"""Inputs, outputs and recorded values: the JSON as it is stored, in pieces, whole or only its head."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from starlette.responses import Response, StreamingResponse

from jetflow.dashboard.endpoints import Ask, Endpoints
from jetflow.dashboard.problems import Problem
from jetflow.runs.query.payloads import Payload

ENDPOINTS = Endpoints()


class PayloadQuery(msgspec.Struct, forbid_unknown_fields=True):
    """``head`` is how many bytes are sent at most. A ``download`` is an attachment."""

    head: Annotated[int, Meta(ge=1)] | None = None
    download: bool = False


@ENDPOINTS.get("runs/{id}/input")
async def input(ask: Ask, query: PayloadQuery) -> Response:
    """Return the input of a run."""
    return await _sent(ask, query, "input", await ask.client.input(ask.run))


@ENDPOINTS.get("runs/{id}/output")
async def output(ask: Ask, query: PayloadQuery) -> Response:
    """Return the output of a run."""
    return await _sent(ask, query, "output", await ask.client.output(ask.run))


@ENDPOINTS.get("runs/{id}/steps/{step}/output")
async def output_of_step(ask: Ask, query: PayloadQuery) -> Response:
    """Return the output of a step."""
    return await _sent(ask, query, "output", await ask.client.output(ask.run, ask.path["step"]))


@ENDPOINTS.get("runs/{id}/steps/{step}/once/{name}")
async def once(ask: Ask, query: PayloadQuery) -> Response:
    """Return a value that a step has recorded with ``ctx.once``."""
    return await _sent(ask, query, "once", await ask.client.once(ask.run, ask.path["step"], ask.path["name"]))


async def _sent(ask: Ask, query: PayloadQuery, kind: str, payload: Payload | None) -> Response:
    if not ask.access.payloads:
        raise Problem(403, "no-payloads", "you may not see inputs, outputs and recorded values", "ask who runs it")
    if payload is None:
        raise Problem(404, "no-value", f"the run {ask.run} has no such {kind}, or has none yet", "see its status")
    headers = {"X-Size": str(payload.size), "X-Digest": payload.digest}
    if query.download:
        headers["Content-Disposition"] = f'attachment; filename="{ask.run}-{kind}.json"'
    content = payload.chunks()
    if ask.dashboard.redact is not None:
        shown = await _redacted(ask, kind, payload)
        headers |= {"X-Size": str(len(shown)), "X-Digest": "", "X-Redacted": "1"}
        content = _whole(shown)
    if query.head is not None:
        content = _head(content, query.head)
    return StreamingResponse(content, 200, headers, "application/json; charset=utf-8")


async def _redacted(ask: Ask, kind: str, payload: Payload) -> bytes:
    async with aclosing(payload.chunks()) as chunks:
        body = b"".join([chunk async for chunk in chunks])
    assert ask.dashboard.redact is not None
    value: Any = msgspec.json.decode(body) if body else None
    return msgspec.json.encode(ask.dashboard.redact(payload.workflow, kind, value))


async def _whole(body: bytes) -> AsyncGenerator[bytes]:
    yield body


async def _head(content: AsyncGenerator[bytes], size: int) -> AsyncGenerator[bytes]:
    async with aclosing(content) as chunks:
        async for chunk in chunks:
            yield chunk[:size]
            size -= len(chunk)
            if size <= 0:
                return
