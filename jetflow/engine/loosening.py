"""The policy of a join that is loosened while its step waits: what is looser, and what the record says then.

What waits for a join is its newest record, so a looser one that is stored behind it is all that a look has to read. It
is stored only if nothing was stored since the record that it is made of, and is the same otherwise. Behind it ``SEAL``
is added to the counter: every child that ends from then on has to look, and no ledger spares it. Then somebody looks,
for the policy may be met by what has ended.

A policy is only loosened: what was met stays met, whoever has seen which record. The code of a parked step is told by
the record that woke it, and the records of its later turns keep telling.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from jetflow.engine.identity import cut_hash
from jetflow.engine.joins import SEAL, JoinRecord, Loosened, split_ids
from jetflow.engine.policies import JoinPolicy

COUNTED: Final = SEAL
"""What is added to the counter of a join whose policy was loosened."""


def name_of(children: Iterable[bytes]) -> str:
    """Return what tells a set of children from the others of its step."""
    return cut_hash(b"".join(sorted(set(children)))).hex()[:16]


def why_not(record: JoinRecord) -> str | None:
    """Return why the policy of a join that is open cannot be loosened; None if it can."""
    if record.status != "succeeded":
        return "it has failed, and waits for no child"
    if record.kind == "parked" and not record.counted:
        return "it waits for a time or an event, and for no child"
    if not record.total or (record.kind == "parked" and not record.loosable):
        return (
            "where it waits its code has given no policy=, and takes an output of every child; or a worker has parked "
            "it that does not know of loosening"
        )
    return None


def tighter(old: JoinPolicy, new: JoinPolicy, total: int) -> str | None:
    """Return in what a policy over so many children is tighter than another; None if what meets the old meets it."""
    if new.seconds is not None:
        return "its time limit stays what it is"
    if old.quorum is not None and new.quorum is None:
        return f"it goes on as soon as {old.quorum} have succeeded, and would wait for all"
    if new.successes(total) > old.successes(total):
        return f"{old.successes(total)} of {total} have to succeed, and would be {new.successes(total)}"
    if new.early and new.quorum is None and not old.early:
        return "it waits for all, and would fail at the first failure"
    return None


def same(old: JoinPolicy, new: JoinPolicy) -> bool:
    """Tell whether a policy is what it would become."""
    return msgspec.structs.replace(new, seconds=old.seconds) == old


def loosened(record: JoinRecord, policy: JoinPolicy, members: bytes | None) -> JoinRecord:
    """Return a join record with a looser policy. ``members`` are the packed ids of its own children.

    They are named, for a record whose policy may be met before all have ended cannot count all that is stored. Without
    them it has to be one that waits for all.
    """
    policy = msgspec.structs.replace(policy, seconds=record.policy.seconds)
    told = record.loosened
    if record.kind == "parked":
        own = b"" if members is None else members
        name = name_of((*split_ids(own), *(bytes.fromhex(child.run) for child in record.borrowed)))
        told = (*(one for one in told if one.children != name), Loosened(name, policy))
    return msgspec.structs.replace(
        record,
        policy=policy,
        needed=policy.threshold(record.total),
        members=members,
        id_sum=record.id_sum if members is None else "",
        looser=record.looser + 1,
        loosened=told,
    )


def policy_of(told: Iterable[Loosened], children: Iterable[bytes]) -> JoinPolicy | None:
    """Return the policy by which a join goes that was loosened; None if it was not."""
    name = name_of(children)
    return next((one.policy for one in told if one.children == name), None)


def is_of_retry(record: JoinRecord) -> bool:
    """Tell whether a record is of an attempt that failed, and so of a body that did not wait: it tells of no joins."""
    return record.kind == "parked" and record.tried > 0
