"""What is stored of limits: declared by workers, and changed by whoever may, at run time."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from jetflow.broker.session import Session
from jetflow.engine.limits import LimitSettings
from jetflow.engine.rates import RateSettings
from jetflow.wire.headers import Header
from jetflow.wire.limits import LimitNames, decode_rate, decode_settings
from jetflow.wire.records import DeclaredLimit, DeclaredRate, encode, header_block

PATIENCE: Final = 30.0
"""Seconds for which the broker may take nothing of a limit."""

_log = logging.getLogger("jetflow.worker")


async def declare_limits(session: Session, limits: Iterable[DeclaredLimit]) -> None:
    """Store what the code of some workflows says of limits, in the place of what was said before.

    What somebody has chosen at run time stays.

    Raises:
        BrokerTimeout, PermissionDenied: the server did not take it.
    """
    names = LimitNames(session.names)
    for limit in {one.name: one for one in limits}.values():
        await session.optional.ensure(names.gates_stream)
        before, after = await change_settings(session, limit.name, lambda there, limit=limit: _declared(limit, there))
        if before is not None and before != after:
            _log.warning(
                "limit %r: max %d, %r replaces max %d, %r",
                limit.name,
                limit.max,
                limit.when_full,
                before.max,
                before.when_full,
            )
            await ask_for_looks(session, limit.name)


async def declare_rates(session: Session, rates: Iterable[DeclaredRate]) -> None:
    """Store what the code of some workflows says of rate limits, in the place of what was said before.

    Raises:
        BrokerTimeout, PermissionDenied: the server did not take it.
    """
    names = LimitNames(session.names)
    for rate in rates:
        await session.optional.ensure(names.limits_stream)
        subject, wanted = names.rate(rate.name), RateSettings(max=rate.max, per=rate.per)
        stored = await session.store.leader_last(names.limits_stream, subject)
        there = None if stored is None else decode_rate(stored.body)
        if there is not None and there != wanted:
            _log.warning(
                "rate limit %r: %d in %g s replaces %d in %g s", rate.name, rate.max, rate.per, there.max, there.per
            )
        if there != wanted:
            await session.publisher.store(subject, encode(wanted), timeout=PATIENCE)


def _declared(limit: DeclaredLimit, there: LimitSettings | None) -> LimitSettings:
    if there is None:
        return LimitSettings(max=limit.max, when_full=limit.when_full)
    return msgspec.structs.replace(there, max=limit.max, when_full=limit.when_full)


async def change_settings(
    session: Session, limit: str, change: Callable[[LimitSettings | None], LimitSettings | None]
) -> tuple[LimitSettings | None, LimitSettings | None]:
    """Replace what is stored of a limit by what a function makes of it; return what was there, and what is now."""
    names = LimitNames(session.names)
    await session.optional.ensure(names.limits_stream)
    subject = names.settings(limit)
    while True:
        stored = await session.store.leader_last(names.limits_stream, subject)
        before = None if stored is None else decode_settings(stored.body)
        after = change(before)
        if after is None or after == before:
            return before, before
        seen = str(0 if stored is None else stored.sequence)
        headers = header_block({Header.EXPECTED_LAST: seen, Header.EXPECTED_LAST_OF: subject})
        if (await session.publisher.store(subject, encode(after), headers, timeout=PATIENCE)).stored:
            return before, after


async def ask_for_looks(session: Session, limit: str) -> None:
    """Have a worker look at all gates of a limit: there may be more places."""
    await session.publisher.store(LimitNames(session.names).asked(limit), b"", timeout=PATIENCE)
