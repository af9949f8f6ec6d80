"""The rules of jetflow: identity, graphs, joins, what follows an outcome, backoff.

Everything here is pure: no asyncio, no NATS, no clock, no randomness. The rules take what has happened and say
what to do; the shell (``jetflow.worker``, ``jetflow.client``) does it.
"""
