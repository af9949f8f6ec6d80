"""The cases, one module a family."""

from conformance.cases import worker

__all__ = ["worker"]
