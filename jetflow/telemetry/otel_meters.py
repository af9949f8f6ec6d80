"""Measures by OpenTelemetry's API."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Observation

from jetflow import hooks
from jetflow.telemetry.catalogue import CATALOGUE, Metric


class OtelMeter:
    """See `jetflow.hooks.Meter`. What is live is observed when the SDK collects."""

    def __init__(self, provider: metrics.MeterProvider | None = None) -> None:
        meter = metrics.get_meter("jetflow", meter_provider=provider)
        self._counters: dict[str, metrics.Counter] = {}
        self._histograms: dict[str, metrics.Histogram] = {}
        for one in CATALOGUE:
            if one.live:
                create = meter.create_observable_counter if one.kind == "counter" else meter.create_observable_gauge
                create(one.name, [_observed(one)], one.unit, one.help)
            elif one.kind == "counter":
                self._counters[one.name] = meter.create_counter(one.name, one.unit, one.help)
            else:
                self._histograms[one.name] = meter.create_histogram(
                    one.name, one.unit, one.help, explicit_bucket_boundaries_advisory=one.bounds
                )

    def add(self, name: str, number: int, labels: dict[str, str]) -> None:
        """Add to a counter."""
        self._counters[name].add(number, labels)

    def observe(self, name: str, value: float, labels: dict[str, str]) -> None:
        """Add a value to a histogram."""
        self._histograms[name].record(value, labels)


def _observed(metric: Metric) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def observe(_: CallbackOptions) -> Iterable[Observation]:
        for labels, value in hooks.totals(metric.name):
            attributes: dict[str, Any] = dict(labels)
            yield Observation(value, attributes)

    return observe
