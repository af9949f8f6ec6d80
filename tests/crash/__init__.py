"""Killing a worker at every named point between receiving a task and acknowledging it."""
