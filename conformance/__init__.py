"""A conformance suite for workers and clients of jetflow's wire format, in any language. See ``README.md``.

The suite is independent of jetflow: it knows ``docs/wire.md``, nats-py, and from jetflow no more than how to start a
nats-server. What is tested is a command. It runs as a process of its own and talks to the server through a proxy,
which writes down every message of it, in order; a case plays the other side and says what must stand in that log.
"""
