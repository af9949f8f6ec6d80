"""Limits at run time: who stands where, and how many may be admitted."""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import Callable

from msgspec.structs import replace

from jetflow.broker.session import Session
from jetflow.engine.identity import check_name
from jetflow.engine.limits import EVERYBODY, LimitSettings
from jetflow.errors import InvalidDeclaration, InvalidInput, UnknownLimit
from jetflow.limits import checked_max
from jetflow.runs.limits import ask_for_looks, change_settings
from jetflow.runs.rate_rows import RateRow, read_rates
from jetflow.runs.standing import LimitRow, StandingRow, read_limits, read_row, read_standing
from jetflow.wire.limits import limit_token


class Limits:
    """What may be done with the limits of a namespace: `Client.limits`. They are declared by workflows: see `Limit`.

    All methods raise `InvalidName` for what is no name, and the `BrokerError`s of a broker that is away.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    async def list(self) -> builtins.list[LimitRow]:
        """Return all limits, by name, with their keys."""
        session = self._session.usable()
        limits = await read_limits(session)
        return builtins.list(await asyncio.gather(*(read_row(session, *one) for one in limits.items())))

    async def get(self, name: str) -> LimitRow:
        """Return one limit.

        Raises:
            UnknownLimit: nobody has declared one of this name.
        """
        return await read_row(self._session, name, await self._read(name))

    async def rates(self) -> builtins.list[RateRow]:
        """Return all rate limits, by name, with their keys of which any was taken of late."""
        return await read_rates(self._session.usable())

    async def standing(self, name: str, key: str | None = None) -> builtins.list[StandingRow]:
        """Return the runs of a key that are admitted or wait, in their order; of a limit without keys, all.

        Of more than a thousand, the first thousand.

        Raises:
            UnknownLimit: nobody has declared one of this name.
        """
        settings = await self._read(name)
        return await read_standing(self._session, name, _token(key), settings)

    async def set(self, name: str, max: int, *, key: str | None = None) -> LimitRow:
        """Admit at most so many runs of a key at once; of all keys that nobody has said otherwise of, without one.

        It counts before what is declared, until it is `reset`, and at once: where there are more places, runs that wait
        begin; where there are fewer, those that are admitted go on, and others begin when enough of them have ended.

        Raises:
            UnknownLimit: nobody has declared one of this name.
            InvalidInput: it is no whole number above 0.
        """
        try:
            checked_max(f"limit {name!r}", max)
        except InvalidDeclaration as error:
            raise InvalidInput(str(error)) from None
        if key is None:
            return await self._change(name, lambda there: replace(there, chosen=max))
        token = _token(key)
        return await self._change(
            name, lambda there: replace(there, keys=there.keys | {token: max}, shown=there.shown | {token: key})
        )

    async def reset(self, name: str, *, key: str | None = None) -> LimitRow:
        """Have what is declared count again: for all keys, or for one what counts for all.

        Raises:
            UnknownLimit: nobody has declared one of this name.
        """
        if key is None:
            return await self._change(name, lambda there: replace(there, chosen=None))
        token = _token(key)

        def without(there: LimitSettings) -> LimitSettings:
            keys = {one: most for one, most in there.keys.items() if one != token}
            return replace(there, keys=keys, shown={one: shown for one, shown in there.shown.items() if one != token})

        return await self._change(name, without)

    async def _read(self, name: str) -> LimitSettings:
        check_name("limit name", name)
        found = (await read_limits(self._session.usable())).get(name)
        if found is None:
            raise UnknownLimit(name)
        return found

    async def _change(self, name: str, change: Callable[[LimitSettings], LimitSettings]) -> LimitRow:
        await self._read(name)
        await change_settings(self._session, name, lambda there: None if there is None else change(there))
        await ask_for_looks(self._session, name)  # also where nothing has changed: who did it before may have died
        return await self.get(name)


def _token(key: str | None) -> str:
    return EVERYBODY if key is None else limit_token(key)
