"""What a step in a process is given and tells: dependencies, log records and spans there. It notes in a file."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Annotated

from opentelemetry import trace

import jetflow.telemetry
from jetflow import Context, Depends, workflow

NOTES = "JETFLOW_TEST_NOTES"
SPANNED = "JETFLOW_TEST_SPANNED"
log = logging.getLogger("in.a.process")


def note(text: str) -> None:
    with Path(os.environ[NOTES]).open("a") as notes:
        notes.write(f"{text}\n")


async def pool() -> AsyncIterator[int]:
    await asyncio.sleep(0)
    note("pool opened")
    yield os.getpid()
    note("pool closed")


def session(of: Annotated[int, Depends(pool)], ctx: Context) -> Iterator[str]:
    note(f"session opened for {ctx.run_id}")
    yield f"session of {of == os.getpid()}"
    note("session closed")


@workflow("shared", runs_in="process")
def shared(number: int, ctx: Context, session: Annotated[str, Depends(session, per="attempt")]) -> str:
    log.warning("shared %d", number, extra={"n": number})
    return session


@workflow("spanned", runs_in="process")
def spanned(number: int, ctx: Context) -> list[str]:
    """Return the trace that is open here, and that of a child: both are its caller's."""
    here = f"{trace.get_current_span().get_span_context().trace_id:032x}"
    return [here, *ctx.block_on(ctx.join(ctx.block_on(ctx.spawn_workflows(traced, [number]))))]


@workflow("traced")
async def traced(_: int) -> str:
    return f"{trace.get_current_span().get_span_context().trace_id:032x}"


if os.environ.get(SPANNED):  # in a process whose test wants spans
    jetflow.telemetry.instrument(metrics=False)
