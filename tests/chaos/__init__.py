"""Fault injection on real servers and real worker processes: ``python -m tests.chaos``."""
