"""How messages to the workers at large are answered whose handling has failed.

Only what the message itself makes impossible is ended. Whatever else went wrong, another time or another worker may do
better: a message that is ended is lost for ever, and with it a step that sleeps, or a chain of ticks. So it comes
again, ever later, and is told of ever more seldom.
"""

from __future__ import annotations

import logging
from typing import Final

from jetflow.broker.puller import Delivery
from jetflow.broker.times import SECOND
from jetflow.errors import BrokerError
from jetflow.worker.counts import Counts

ACK: Final = b"+ACK"
TERM: Final = b"+TERM"

LATER: Final = b'-NAK {"delay":1000000000}'
"""Has a message delivered again after a second."""

LONGEST: Final = 60.0
"""Seconds up to which the pause before the next delivery grows, from one, while a message cannot be handled."""

_log = logging.getLogger("jetflow.worker")


class Impossible(Exception):
    """What a message asks for can never be done, whoever is given it, and when: it is ended."""


class Answers:
    """Answers what could not be handled. ``kind`` is what such a message is called in the log."""

    def __init__(self, counts: Counts, kind: str) -> None:
        self._counts = counts
        self._kind = kind

    def to(self, delivery: Delivery, error: Exception) -> bytes:
        """Return the answer to a message whose handling has raised an error."""
        if isinstance(error, Impossible):
            return self.reject(delivery, error)
        if delivery.count & (delivery.count - 1) == 0:  # the first time, the second, the fourth, the eighth
            trace = None if isinstance(error, BrokerError) else error
            _log.log(
                logging.WARNING if trace is None else logging.ERROR,
                "%s on %s is left to a later delivery, after %d: %s: %s",
                self._kind,
                delivery.subject,
                delivery.count,
                type(error).__name__,
                error,
                exc_info=trace,
            )
        delay = min(2.0 ** min(delivery.count - 1, 16), LONGEST)
        return b'-NAK {"delay":%d}' % int(delay * SECOND)

    def reject(self, delivery: Delivery, reason: object) -> bytes:
        """Return the answer to a message that nothing can come of."""
        self._counts.rejected += 1
        _log.error("%s on %r is rejected: %s", self._kind, delivery.subject, reason)
        return TERM
