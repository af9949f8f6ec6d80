"""Measures for Prometheus, by its client."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from jetflow import hooks
from jetflow.telemetry.catalogue import CATALOGUE


class PrometheusMeter:
    """See `jetflow.hooks.Meter`. What is live is read by each scrape. `close` it to have its names free again."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self._registry = registry or REGISTRY
        self._counters: dict[str, Counter] = {}
        self._histograms: dict[str, Histogram] = {}
        self._live = _Live()
        for one in CATALOGUE:
            if one.live:
                continue
            name = one.prometheus_name
            if one.kind == "counter":
                self._counters[one.name] = Counter(name, one.help, one.labels, registry=self._registry)
            else:
                self._histograms[one.name] = Histogram(
                    name, one.help, one.labels, buckets=one.bounds, registry=self._registry
                )
        self._registry.register(self._live)

    def add(self, name: str, number: int, labels: dict[str, str]) -> None:
        """Add to a counter."""
        self._counters[name].labels(**labels).inc(number)

    def observe(self, name: str, value: float, labels: dict[str, str]) -> None:
        """Add a value to a histogram."""
        self._histograms[name].labels(**labels).observe(value)

    def exposition(self) -> tuple[str, bytes]:
        """Return the registry as Prometheus reads it: the content type, and the text."""
        return CONTENT_TYPE_LATEST, generate_latest(self._registry)

    def close(self) -> None:
        """Take all of it out of the registry."""
        for one in (*self._counters.values(), *self._histograms.values(), self._live):
            self._registry.unregister(one)


class _Live(Collector):
    """Reads the workers that run."""

    def collect(self) -> Iterable[Metric]:
        for one in CATALOGUE:
            if not one.live:
                continue
            family = CounterMetricFamily if one.kind == "counter" else GaugeMetricFamily
            metric = family(one.prometheus_name, one.help, labels=one.labels)
            for labels, value in hooks.totals(one.name):
                metric.add_metric([label for _, label in labels], value)
            yield metric
