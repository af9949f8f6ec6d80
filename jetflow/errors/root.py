"""The root of jetflow's errors."""

from __future__ import annotations


class JetflowError(Exception):
    """The root of all errors raised by jetflow."""
