"""Spans and measures, for those who ask for them: `instrument` for OpenTelemetry, `prometheus` for Prometheus.

Both are of a process, and need their extra. What is not asked for costs nothing.
"""

from jetflow.telemetry.instrumenting import instrument, prometheus

__all__ = ["instrument", "prometheus"]
