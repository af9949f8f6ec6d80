"""Which of the server's refusals pass, which are final for the one message, and which somebody has to permit.

One table for all error codes of JetStream; `docs/guarantees.md` says what jetflow does about each class. What the
server adds later is told by its status: what it calls a state of its own (409, 429, 5xx) passes.
"""

from __future__ import annotations

from enum import Enum
from typing import Final


class Refusal(Enum):
    """What a refusal means for the message, or the request, that was refused."""

    TAKEN = "taken"
    """A message with this subject is stored already: nothing is wrong."""

    PASSING = "passing"
    """A state of the server, of its disk or of the account that ends: the same message is sent again until it does."""

    FINAL = "final"
    """This message, or this request, will never be taken as it is."""

    NOT_PERMITTED = "not permitted"
    """This account may not, or has no room left by its settings: only an administrator ends that."""


WRONG_LAST_SEQUENCE: Final = 10071
STORE_FAILED: Final = 10077
"""A message was not stored, for a reason that only the description tells."""

_STORE_FAILED_BY: Final = {
    "maximum messages per subject exceeded": Refusal.TAKEN,
    "message too large": Refusal.FINAL,
}

PASSING: Final = frozenset(
    {
        10002,  # the account's storage is full
        10023,  # the server's is
        10028,  # its memory
        10047,  # its disk
        STORE_FAILED,  # the stream is full, if it is nothing else
        10004,  # not all of a cluster has answered
        10005,  # no peers for the stream at this moment
        10006,  # not in cluster mode (yet)
        10007,  # the stream is assigned to another server
        10008,  # no quorum
        10009,  # the leader is lost, or another
        10041,  # an error of the consensus
        10048,  # a stream is being assigned
        10051,  # an error of a stream that has no code of its own
        10057,  # a message could not be deleted
        10063,  # replicas disagree on the next sequence
        10075,  # a peer is being replaced
        10104,  # the store of a consumer cannot be made: the disk
        10110,  # a purge failed: the disk
        10118,  # the stream is offline
        10119,  # the consumer is
        10194,  # the same, with the reason
        10195,
        10124,  # the stream is being moved
        10129,  # or reconfigured
        10226,
        10202,  # members of the cluster change
        10158,  # the same message is being stored just now
        10163,  # one on the same subject is: what was expected cannot be told
        10164,
        10167,  # too much at once
        10210,
        10211,
        10208,  # the server has lost track of a batch
        10206,  # of which only the middle has arrived
    }
)
"""Codes that end by themselves, or when there is space again."""

NOT_PERMITTED: Final = frozenset(
    {
        10035,  # there is no such account
        10039,  # JetStream is not for this account
        10076,  # nor on this server
        10120,  # the account has no limits, and so nothing
        10026,  # consumers that a stream or an account may have
        10027,  # streams that an account may have
        10113,  # streams need a bound in bytes
        10122,  # bytes that a stream may reserve
        10121,  # unacknowledged messages that a consumer may have
        10125,  # messages that a pull may ask for
        10153,  # seconds that a consumer may be idle
        10109,  # the stream is sealed
    }
)
"""Codes of what the account's settings do not allow."""

KNOWN: Final = range(10002, 10228)
"""The codes of nats-server 2.15. What is in neither table is final."""

_A_STATE_FROM: Final = 500
_STATES: Final = frozenset({409, 429})


def refusal_of(code: int, err_code: int, description: str = "") -> Refusal:
    """Return what a refusal means. ``code`` is the status, ``err_code`` the server's number of the error."""
    if err_code == STORE_FAILED:
        return _STORE_FAILED_BY.get(description, Refusal.PASSING)
    if err_code == WRONG_LAST_SEQUENCE:
        return Refusal.TAKEN
    if err_code in PASSING:
        return Refusal.PASSING
    if err_code in NOT_PERMITTED:
        return Refusal.NOT_PERMITTED
    if err_code in KNOWN:
        return Refusal.FINAL
    return Refusal.PASSING if code >= _A_STATE_FROM or code in _STATES else Refusal.FINAL
