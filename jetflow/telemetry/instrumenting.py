"""Asking for telemetry, and taking it away again. The libraries are imported by who asks, and by nobody else."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from jetflow import hooks
from jetflow.errors import MissingExtra


def instrument(
    *, tracer_provider: Any = None, meter_provider: Any = None, traces: bool = True, metrics: bool = True
) -> Callable[[], None]:
    """Have this process make spans and measures by OpenTelemetry, from now on. Returns what ends that.

    The providers are those that are set globally, unless others are given. Call it once, where the SDK is set up; for
    ``jetflow worker`` that may be the module that declares the workflows.

    Raises:
        MissingExtra: opentelemetry-api is not installed.
    """
    tracing = _imported("jetflow.telemetry.tracing", "opentelemetry-api", "otel")
    metering = _imported("jetflow.telemetry.otel_meters", "opentelemetry-api", "otel")
    before = hooks.tracer
    if traces:
        hooks.tracer = tracing.SpanTracer(tracer_provider)
    end = _metered(metering.OtelMeter(meter_provider)) if metrics else lambda: None

    def uninstrument() -> None:
        if traces:
            hooks.tracer = before
        end()

    return uninstrument


def prometheus(registry: Any = None) -> Callable[[], None]:
    """Have this process keep measures for Prometheus, in the default registry or another. Returns what ends that.

    A worker with ``health_port`` does this by itself, where prometheus-client is installed.

    Raises:
        MissingExtra: prometheus-client is not installed.
    """
    module = _imported("jetflow.telemetry.prometheus_meters", "prometheus-client", "prometheus")
    meter = module.PrometheusMeter(registry)
    end = _metered(meter)

    def take_away() -> None:
        end()
        meter.close()

    return take_away


def _metered(meter: hooks.Meter) -> Callable[[], None]:
    hooks.meters = (*hooks.meters, meter)

    def end() -> None:
        hooks.meters = tuple(one for one in hooks.meters if one is not meter)

    return end


def _imported(module: str, package: str, extra: str) -> Any:
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("jetflow"):
            raise
        raise MissingExtra(
            f"this needs {package}, which is not installed: run `pip install 'jetflow-nats[{extra}]'`"
        ) from error
