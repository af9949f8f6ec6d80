"""Steps in processes: what they depend on, what their log records tell, and which trace they are in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import jetflow.telemetry
from jetflow import Client, Worker, WorkerOptions
from tests.endings.shared_in_processes import NOTES, SPANNED, shared, spanned, traced
from tests.endings.stored import PATIENCE

MakeWorker = Callable[..., Worker]
ONE = WorkerOptions(processes=1)


async def test_a_process_has_its_own_and_closes_it(
    client: Client,
    worker: MakeWorker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What is per worker is opened once in the process. Records of its steps tell of them, like all others."""
    monkeypatch.setenv(NOTES, str(tmp_path / "notes"))
    async with worker([shared], options=ONE):
        runs = [await client.trigger(shared, number) for number in range(2)]
        assert [await run.result(PATIENCE) for run in runs] == ["session of True"] * 2
    notes = (tmp_path / "notes").read_text().splitlines()
    assert [line.partition(" for ")[0] for line in notes] == [
        "pool opened",
        *["session opened", "session closed"] * 2,
        "pool closed",
    ]
    told: list[Any] = [record for record in caplog.records if record.name == "in.a.process"]
    assert {(one.run, one.root, one.workflow, one.step, one.attempt, one.n) for one in told} == {
        (run.id, run.id, "shared", "run", 1, number) for number, run in enumerate(runs)
    }
    assert all("_jetflow_step" not in vars(one) for one in told)


async def test_it_is_in_the_trace_of_its_trigger(
    client: Client, worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it spawns is below it, too."""
    monkeypatch.setenv(SPANNED, "1")
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    end = jetflow.telemetry.instrument(tracer_provider=provider, metrics=False)
    try:
        async with worker([spanned, traced], options=ONE):
            in_process, in_child = await (await client.trigger(spanned, 1)).result(PATIENCE)
    finally:
        end()
    spans = {span.name: span for span in exporter.get_finished_spans()}
    assert {f"{span.context.trace_id:032x}" for span in spans.values() if span.context is not None} == {in_process}
    assert in_child == in_process
    of_step, of_spawn = spans["spanned run"].context, spans["spawn traced"].parent
    assert of_step is not None
    assert of_spawn is not None
    assert of_spawn.span_id == of_step.span_id
