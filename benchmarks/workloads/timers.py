"""N runs wait for a time of their own within one minute: is each woken, none before its time, and how late at most?

The first attempt of each fails until a planned time, far enough ahead that all are armed before the first is due; the
second says when it began. With ``--kill-server`` the server is killed in the middle of the minute, and started again
on the same port and store.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import time
from typing import Any, Final

import msgspec
import nats

from benchmarks import flows, machine
from benchmarks.bare.wire import ask
from benchmarks.lab import NAMESPACE, Bench, Sample, jetflow_bench
from benchmarks.measuring import middle, percentile
from benchmarks.options import Options
from benchmarks.report import Goal, Report, Row
from benchmarks.workloads.chain import UNDER_WAY, ended_runs
from benchmarks.workloads.workload import Workload
from jetflow import Client
from jetflow.broker.session import Session
from jetflow.engine.tasks import NONE, Outcome
from jetflow.wire.records import decode_outcome
from jetflow.wire.subjects import Subjects

WARM_UP: Final = 100
MINUTE: Final = 60.0
"""Seconds over which the times are spread; of few runs less, see `_spread`."""

LEAD: Final = 5.0
"""Seconds, beside those for the arming, from the start to the first time."""

ARMED_PER_S: Final = 2000
"""Timers that are armed in a second even on a busy machine."""

DOWN: Final = 2.0
"""Seconds between the server's end and its start."""

LATE: Final = 2.0
"""Seconds that p99 may be late."""

_LOOK_AGAIN: Final = 0.5
_PATIENCE: Final = 60.0


class _Round(msgspec.Struct, kw_only=True):
    """What one minute gave. Times are seconds since the epoch; ``late`` is by planned time."""

    sample: Sample
    memory_before: float
    memory_armed: float
    armed: int
    armed_in: float
    late: list[tuple[float, float]]
    wrong: int
    killed: float = 0.0
    back: float = 0.0

    def lateness(self, *, away: bool) -> list[float]:
        """Return by how many seconds those were late that were due while the server was away, or the others."""
        return [late for planned, late in self.late if self._was_away(planned) is away]

    def _was_away(self, planned: float) -> bool:
        return self.killed <= planned <= self.back


async def run(options: Options) -> Report:
    """Measure."""
    rounds = [await _one(options, f"round {number} of {options.rounds}") for number in range(1, options.rounds + 1)]
    return _report(options, rounds)


async def _one(options: Options, label: str) -> _Round:
    async with jetflow_bench("timers", options) as (bench, client):
        await ended_runs(bench, client, flows.failing_short, WARM_UP)
        before = machine.rss_mb(bench.server_pid)
        began = time()
        first = began + LEAD + options.n / ARMED_PER_S
        spread = _spread(options.n)
        plan = [first + spread * number / options.n for number in range(options.n)]
        async with bench.timed(
            f"{label}: {options.n:,} times from {first - began:.0f} s on, for {spread:.0f} s"
        ) as timing:
            await _trigger(client, plan)
            armed, at = await _armed(bench, options.n, first)
            memory = machine.rss_mb(bench.server_pid)
            killed, back = await _kill(bench, first + spread / 2) if options.kill_server else (0.0, 0.0)
            await asyncio.sleep(plan[-1] - time())
            await _ended(bench, options.n + WARM_UP)
        outcomes = [outcome async for outcome in _outcomes(bench)]
    late = _lateness(outcomes, plan)
    return _Round(
        sample=timing.sample,
        memory_before=before,
        memory_armed=memory,
        armed=armed,
        armed_in=at - began,
        late=late,
        wrong=options.n - len(late),
        killed=killed,
        back=back,
    )


def _spread(count: int) -> float:
    """Return over how many seconds the times of so many runs are spread: some hundreds a second, or a minute."""
    return min(MINUTE, max(2.0, count / 500))


async def _trigger(client: Client, plan: list[float]) -> None:
    async def some(start: int) -> None:
        for number in range(start, len(plan), UNDER_WAY):
            await client.trigger(flows.timed, flows.Planned(number, plan[number]))

    async with asyncio.TaskGroup() as group:
        for start in range(min(UNDER_WAY, len(plan))):
            group.create_task(some(start))


async def _armed(bench: Bench, count: int, first: float) -> tuple[int, float]:
    """Wait until all timers are armed, until the first is due at most; return how many are, and when it was."""
    async with _api(bench) as connection:
        while True:
            stored = await _messages(connection, Subjects(NAMESPACE).timers_stream)
            if stored >= count or time() + _LOOK_AGAIN > first:
                return stored, time()
            await asyncio.sleep(_LOOK_AGAIN)


async def _kill(bench: Bench, at: float) -> tuple[float, float]:
    """Kill the server at a time, and start it again; return when it went and when it was back."""
    await asyncio.sleep(at - time())
    killed = time()
    await bench.kill_server()
    await asyncio.sleep(DOWN)
    await bench.server.start()
    return killed, time()


async def _ended(bench: Bench, count: int) -> None:
    """Wait until all runs have ended, or until nothing has for a long while."""
    ends = {"subjects_filter": Subjects(NAMESPACE).run("*", NONE, NONE, "*"), "offset": 2**31}
    async with _api(bench) as connection:
        ended, since = 0, time()
        while ended < count and time() - since < _PATIENCE:
            await asyncio.sleep(_LOOK_AGAIN)
            found = int((await ask(connection, f"STREAM.INFO.{bench.records_stream}", ends)).get("total", 0))
            if found > ended:
                ended, since = found, time()


async def _outcomes(bench: Bench) -> AsyncIterator[Outcome]:
    async with await Session.open(bench.server.url, NAMESPACE) as session:
        names = session.names
        async for page in session.store.pages(names.records_stream, names.run("*", NONE, NONE, "*")):
            for stored in page:
                outcome = decode_outcome(stored.body)
                if outcome.workflow == flows.timed.name:
                    yield outcome


def _lateness(outcomes: list[Outcome], plan: list[float]) -> list[tuple[float, float]]:
    """Return the planned time and the lateness of each run that succeeded, each once."""
    found: dict[int, float] = {}
    for outcome in outcomes:
        if outcome.status == "succeeded":
            began = msgspec.convert(msgspec.json.decode(outcome.output), flows.Began)
            found[began.index] = began.at - plan[began.index]
    return [(plan[index], late) for index, late in found.items()]


@asynccontextmanager
async def _api(bench: Bench) -> AsyncIterator[Any]:
    connection = await nats.connect(bench.server.url)
    try:
        yield connection
    finally:
        await connection.close()


async def _messages(connection: Any, stream: str) -> int:
    return int((await ask(connection, f"STREAM.INFO.{stream}"))["state"]["messages"])


def _report(options: Options, rounds: list[_Round]) -> Report:
    lost = sum(each.wrong for each in rounds)
    early = sum(late < 0 for each in rounds for _, late in each.late)
    outside = _Late.of([late for each in rounds for late in each.lateness(away=False)])
    rows = [
        Row("lost", None, lost, ",.0f"),
        Row("begun before their time", None, early, ",.0f"),
        *outside.rows("late" if not options.kill_server else "due while it ran: late"),
    ]
    figures: dict[str, Any] = {"lost": lost, "early": early, **outside.figures("late")}
    if options.kill_server:
        inside = _Late.of([late for each in rounds for late in each.lateness(away=True)])
        away = middle([each.back - each.killed for each in rounds])
        rows += [*inside.rows("due while it was away: late"), Row("server away, s", None, away, ".2f")]
        figures |= {**inside.figures("away_late"), "away_s": away}

    def row(name: str, key: str, values: list[float], form: str = ",.1f") -> None:
        figures[key] = middle(values)
        rows.append(Row(name, None, figures[key], form))

    armed = min(each.armed for each in rounds)
    rows.append(Row("armed before the first was due", None, armed, ",.0f"))
    row("armed in, s", "armed_in_s", [each.armed_in for each in rounds])
    row("server memory before, MB", "server_before_mb", [each.memory_before for each in rounds])
    row("server memory, all armed, MB", "server_armed_mb", [each.memory_armed for each in rounds])
    row("server memory at the end, MB", "server_end_mb", [each.sample.server_rss_mb for each in rounds])
    row("worker memory, peak, MB", "worker_peak_mb", [each.sample.worker_peak_mb for each in rounds])
    row("server CPU, s", "server_cpu_s", [each.sample.server_cpu for each in rounds])
    row("worker CPU, s", "worker_cpu_s", [each.sample.worker_cpu for each in rounds])
    row("from the first trigger to the end, s", "seconds", [each.sample.seconds for each in rounds])
    killed = ", the server killed in the middle" if options.kill_server else ""
    return Report(
        workload="timers",
        title=f"timers: {options.n:,} runs that wait for times within {_spread(options.n):.0f} s{killed}",
        n=options.n,
        options=options,
        worker_rss_mb=middle([each.sample.worker_rss_mb for each in rounds]),
        server_rss_mb=middle([each.sample.server_rss_mb for each in rounds]),
        rows=rows,
        goals=[
            Goal(f"timers: none lost, and {lost} are", lost == 0),
            Goal(f"timers: none early, and {early} are", early == 0),
            Goal(f"timers: p99 late <= {LATE:g} s, and is {outside.p99:.2f} s", outside.p99 <= LATE),
        ],
        figures={**figures, "armed": armed, "kill_server": options.kill_server},
    )


class _Late(msgspec.Struct):
    """Percentiles, in seconds, and of how many."""

    count: int
    p50: float
    p99: float
    most: float

    @classmethod
    def of(cls, late: list[float]) -> _Late:
        if not late:
            return cls(0, 0.0, 0.0, 0.0)
        return cls(len(late), percentile(late, 50), percentile(late, 99), max(late))

    def rows(self, name: str) -> list[Row]:
        """Return lines of the table."""
        times = {"p50": self.p50, "p99": self.p99, "max": self.most}
        return [Row(f"{name}, {which}, s", None, value, ".3f") for which, value in times.items()]

    def figures(self, name: str) -> dict[str, float]:
        """Return what goes into the JSON."""
        return {f"{name}_p50_s": self.p50, f"{name}_p99_s": self.p99, f"{name}_max_s": self.most, name: self.count}


WORKLOAD: Final = Workload(
    name="timers",
    summary="runs that wait for times within one minute: lost, early, late",
    n_is="runs",
    n=100_000,
    run=run,
    rounds=1,
    workers=2,
    slots=1000,
)
