"""Rate limits as they are stored: taking a run's turn, over one session.

Runs of this process that ask for the same windows in one moment share one write, and what was written last is
remembered: so a turn costs a part of a message. The write is refused if another process has written meanwhile; then
what is there is read, and all of them ask again. A run whose turn comes within a second is held here until then.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import OrderedDict
from collections.abc import Callable, Sequence
from math import ceil
from time import time
from typing import Any, Final

import msgspec

from jetflow.broker.item import Item
from jetflow.broker.session import Session
from jetflow.engine.effects import TakeTurn
from jetflow.engine.rates import NEAR, Ask, Rate, RateSettings, Turn, Window, share
from jetflow.errors import BrokerTimeout
from jetflow.runs import points
from jetflow.wire.headers import Header
from jetflow.wire.limits import LimitNames, decode_rate, decode_window
from jetflow.wire.records import encode, header_block

LINES_KEPT: Final = 10_000
"""Keys whose windows are remembered."""

TOGETHER: Final = 1000
"""Runs that share one write, at most."""

SETTINGS_KNOWN: Final = 5.0
"""Seconds for which is remembered what is stored of a rate limit."""

LONGER: Final = 60.0
"""Seconds for which a window is kept when it has no meaning any more: clocks differ."""

LONGEST_LEAD: Final = 2.0
"""Seconds that it is thought to take to store a window, at most: for so much longer does who begins count."""

_log = logging.getLogger("jetflow.worker")


class _Line:
    """Who of this process asks for some windows, and what those held when they were stored or read last."""

    def __init__(self) -> None:
        self.asking: list[tuple[Ask, asyncio.Future[Turn]]] = []
        self.known: list[tuple[int, Window]] | None = None
        self.lead = 0.0
        self.serving: asyncio.Task[None] | None = None


class Rates:
    """Performs what the rules ask of rate limits. ``on_holding`` is told +1 and -1: runs are held until their turn."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._names = LimitNames(session.names)
        self._lines: OrderedDict[tuple[Rate, ...], _Line] = OrderedDict()
        self._settings: dict[str, tuple[float, RateSettings]] = {}
        self.on_holding: Callable[[int], None] = lambda _: None
        session.connection.on_reconnect(self._forget)  # a server that was away may have lost some

    def _forget(self) -> None:
        for line in self._lines.values():
            line.known = None

    def performed(self) -> dict[type[Any], Callable[[Any], Any]]:
        """Return what performs each kind of effect."""
        return {TakeTurn: self.take}

    async def take(self, effect: TakeTurn) -> Turn:
        """See `TakeTurn`."""
        units = tuple(rate.units for rate in effect.rates)
        turn = Turn(at=effect.booked or 0.0)
        booked = effect.booked is not None
        while (left := turn.at - time()) <= NEAR:
            if left > 0:
                await self._hold(left)
            turn = await self._ask(effect.rates, Ask(units, booked))
            if turn.begins or turn.never:
                break
            booked = True
        return turn

    async def _hold(self, seconds: float) -> None:
        self.on_holding(1)
        try:
            await asyncio.sleep(seconds)
        finally:
            self.on_holding(-1)

    async def _ask(self, rates: tuple[Rate, ...], ask: Ask) -> Turn:
        of = tuple(msgspec.structs.replace(rate, units=1) for rate in rates)
        line = self._lines.setdefault(of, _Line())
        self._lines.move_to_end(of)
        told: asyncio.Future[Turn] = asyncio.get_running_loop().create_future()
        line.asking.append((ask, told))
        if line.serving is None:
            line.serving = asyncio.get_running_loop().create_task(self._serve(of, line))
            self._keep_few()
        return await told

    def _keep_few(self) -> None:
        if len(self._lines) > LINES_KEPT:
            oldest, line = self._lines.popitem(last=False)
            if line.serving is not None:
                self._lines[oldest] = line

    async def _serve(self, rates: tuple[Rate, ...], line: _Line) -> None:
        """Tell all who ask for some windows, those that ask meanwhile in another go."""
        try:
            while line.asking:
                asking, line.asking = line.asking[:TOGETHER], line.asking[TOGETHER:]
                try:
                    turns = await self._turns(rates, line, [ask for ask, _ in asking])
                except Exception as error:  # whatever it is, those that ask are told
                    line.known = None
                    for _, told in asking:
                        if not told.done():
                            told.set_exception(error)
                else:
                    for (_, told), turn in zip(asking, turns, strict=True):
                        if not told.done():
                            told.set_result(turn)
        finally:
            line.serving = None

    async def _turns(self, rates: tuple[Rate, ...], line: _Line, asks: list[Ask]) -> list[Turn]:
        """Return what runs are told that ask together, when it is stored."""
        while True:
            settings = await asyncio.gather(*(self._settings_of(rate.limit) for rate in rates))
            never = [_never(ask, rates, settings) for ask in asks]
            if line.known is None:
                line.known = await asyncio.gather(*map(self._read, rates))
            known, now = line.known, time()
            before = tuple(window for _, window in known)
            able = [ask for ask, refused in zip(asks, never, strict=True) if not refused]
            told, after = share(able, before, settings, now, line.lead)
            if after != before:
                points.before("store_window")
                stored = await self._store(rates, line, known, after, settings, now)
                points.after("store_window")
                if not stored:
                    line.known = None
                    await asyncio.sleep(random.random() * 0.01)  # whoever writes at the same time comes elsewhere
                    continue
                if self._is_late(line, time() - now, settings):
                    told = [turn if not turn.begins else Turn(at=time()) for turn in told]
            given = iter(told)
            return [Turn(never=refused) if refused else next(given) for refused in never]

    @staticmethod
    def _is_late(line: _Line, took: float, settings: Sequence[RateSettings]) -> bool:
        """Tell whether to store took longer than was thought: then those who begin would do so too late."""
        spare = min(one.spare for one in settings)
        late = took > line.lead + spare
        line.lead = min(2 * took, LONGEST_LEAD) if late else took if took > spare else 0.0
        return late

    async def _store(
        self,
        rates: tuple[Rate, ...],
        line: _Line,
        known: list[tuple[int, Window]],
        after: tuple[Window, ...],
        settings: Sequence[RateSettings],
        now: float,
    ) -> bool:
        """Store windows in the place of those that were read, all or none; tell whether they are."""
        items: list[Item] = []
        for rate, (sequence, _), window, one in zip(rates, known, after, settings, strict=True):
            subject = self._names.window(rate)
            newest = max(taken[-1][0] for taken in (window.booked, window.begun) if taken)
            headers = {
                Header.EXPECTED_LAST: str(sequence),
                Header.EXPECTED_LAST_OF: subject,
                Header.TTL: f"{ceil(max(0.0, newest - now) + one.span + LONGER)}s",
            }
            items.append(Item(subject, header_block(headers), encode(window)))
        if len(items) > 1:
            line.known = None
            return await self._session.store_together(items)
        receipt = await self._session.publisher.store(items[0].subject, items[0].body, items[0].headers)
        line.known = [(receipt.sequence, after[0])] if receipt.stored else None
        return receipt.stored

    async def _read(self, rate: Rate) -> tuple[int, Window]:
        stored = await self._session.store.leader_last(self._names.limits_stream, self._names.window(rate))
        return (0, Window(key=rate.shown)) if stored is None else (stored.sequence, decode_window(stored.body))

    async def _settings_of(self, limit: str) -> RateSettings:
        asked, settings = self._settings.get(limit, (0.0, None))
        now = asyncio.get_running_loop().time()
        if settings is None or now - asked > SETTINGS_KNOWN:
            stored = await self._session.store.leader_last(self._names.limits_stream, self._names.rate(limit))
            if stored is None:
                raise BrokerTimeout(f"nobody has declared rate limit {limit!r}: runs wait at it until a worker does")
            settings = decode_rate(stored.body)
            self._settings[limit] = now, settings
        return settings


def _never(ask: Ask, rates: Sequence[Rate], settings: Sequence[RateSettings]) -> str:
    """Return the first rate limit that never has as many units as a run needs; empty if there is none."""
    short = (rate.limit for rate, units, one in zip(rates, ask.units, settings, strict=True) if units > one.max)
    return next(short, "")
