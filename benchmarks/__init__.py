"""Benchmarks of jetflow against a bare nats-py program on the same broker. See ``python -m benchmarks --help``."""
