"""Whether all is well with a namespace: what is worth a look, and what to do about it.

`Check`s of what queues, workers and declarations tell are pure; the others ask the server, and fail softly: who may not
know something is told that.
"""

from __future__ import annotations

import asyncio
from time import time
from typing import Any, Final, Literal

import msgspec
import orjson

from jetflow.broker.layout import changes_of
from jetflow.broker.session import Session
from jetflow.broker.times import seconds_of
from jetflow.engine.graph import IMPLIED
from jetflow.engine.levels import parts_of
from jetflow.errors import BrokerError
from jetflow.runs.query.rows import QueueRow, WorkerRow
from jetflow.runs.storage import Storage
from jetflow.wire.records import Declaration

LATE: Final = 0.5
"""Seconds by which a worker's event loop may be late, or a clock differ."""

NEARLY: Final = 0.8
"""Share of a limit that is nearly all of it."""


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at: ``ok``, or worth a ``look``, and then what to do; ``unknown`` to this user."""

    name: str
    state: Literal["ok", "look", "unknown"]
    detail: str
    hint: str = ""


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """What is stored, and what is worth a look."""

    storage: Storage
    checks: tuple[Check, ...]

    @property
    def well(self) -> bool:
        """Whether nothing is worth a look."""
        return all(check.state != "look" for check in self.checks)


async def read_server_checks(session: Session) -> list[Check]:
    """Ask the server about itself, the account and the streams."""
    return [
        _server(session),
        *await asyncio.gather(_softly("layout", _layout(session)), _softly("streams", _streams(session))),
        await _softly("account", _account(session)),
        await _softly("clock", _clock(session)),
        await _softly("rights", _rights(session)),
    ]


def checks_of(queues: list[QueueRow], workers: list[WorkerRow], declared: dict[str, Declaration]) -> list[Check]:
    """Return what queues, workers and declarations tell."""
    versions = sorted({row.version for row in workers if row.version})
    swept = [f"{row.name} {row.swept:,}" for row in workers if row.swept]
    waits = sum(row.waiting + row.held for row in queues)
    return [
        _check(
            "workers",
            [] if workers or not waits else [f"{waits:,} tasks wait"],
            "1 worker answers" if len(workers) == 1 else f"{len(workers)} workers answer",
            "no worker answers",
            "start one: jetflow worker MODULE",
        ),
        _check(
            "queues",
            [_name(row) for row in queues if row.waiting and not (row.pulls or row.held or row.paused_until)],
            "every queue in which tasks wait is pulled",
            "tasks wait, and no worker pulls",
            "start a worker that has these workflows",
        ),
        _check(
            "paused",
            [_name(row) for row in queues if row.paused_until],
            "no queue is paused",
            "paused",
            "jetflow resume WORKFLOW, when it is time",
        ),
        _check(
            "orphans",
            [_name(row) for row in queues if not _is_declared(row, declared)],
            "every queue is of a declared step",
            "queues of steps that are not declared any more",
            "delete their consumers, once nothing waits there",
        ),
        _check(
            "loops",
            [f"{row.name} by {row.lag:.1f} s" for row in workers if row.lag > LATE],
            "no event loop is late",
            "event loops are late",
            'a step blocks: make it a plain def, or declare it runs_in="process"',
        ),
        _check(
            "swept",
            swept,
            "no sweeper had anything to mend",
            "sweepers have moved joins or timers on",
            "workers have died, or a server has lost messages: see their logs",
        ),
        _check(
            "versions",
            versions if len(versions) > 1 else [],
            f"all workers run {versions[0]}" if versions else "no worker tells its version",
            "workers run several versions of jetflow",
            "bring them to one",
        ),
    ]


def _check(name: str, found: list[str], well: str, trouble: str, hint: str) -> Check:
    if not found:
        return Check(name=name, state="ok", detail=well)
    return Check(name=name, state="look", detail=f"{trouble}: {', '.join(found)}", hint=hint)


def _name(row: QueueRow) -> str:
    return f"{row.workflow}/{row.step}"


def _is_declared(row: QueueRow, declared: dict[str, Declaration]) -> bool:
    found = declared.get(row.workflow)
    if found is None:
        return False
    graph = found.graph
    step, _ = parts_of(row.step)
    return step in (*IMPLIED, *graph.sequels) or any(node.name == step for node in graph.nodes)


async def _softly(name: str, checking: Any) -> Check:
    try:
        check: Check = await checking
    except BrokerError as error:
        return Check(name=name, state="unknown", detail=f"not to be known: {error}")
    return check


def _server(session: Session) -> Check:
    version = session.connection.client.connected_server_version
    return Check(name="server", state="ok", detail=f"nats-server {version.major}.{version.minor}.{version.patch}")


async def _layout(session: Session) -> Check:
    """Look whether the streams are as this jetflow makes them."""
    return _check(
        "layout",
        [change.told for change in await changes_of(session.connection, session.names)],
        "every stream is as it has to be",
        "not as it has to be",
        "jetflow setup mends what the server lets it change",
    )


async def _streams(session: Session) -> Check:
    """Look at replicas and limits of the streams."""
    names, found = session.names, list[str]()
    streams = (names.tasks_stream, names.records_stream, names.counters_stream, names.timers_stream)
    infos = await asyncio.gather(*(session.connection.api(f"STREAM.INFO.{stream}") for stream in streams))
    clusters: list[dict[str, Any]] = [info.get("cluster") or {} for info in infos]
    in_cluster = any(cluster.get("name") for cluster in clusters)
    for stream, info, cluster in zip(streams, infos, clusters, strict=True):
        config, state = info["config"], info["state"]
        peers: list[dict[str, Any]] = cluster.get("replicas") or []
        limit = int(config.get("max_bytes", -1))
        if limit > 0 and state["bytes"] > NEARLY * limit:
            found.append(f"{stream} holds {state['bytes'] / limit:.0%} of its {limit:,} bytes")
        if in_cluster and config.get("num_replicas", 1) < 3:
            found.append(f"{stream} has {config.get('num_replicas', 1)} replicas in a cluster")
        late: list[str] = [peer["name"] for peer in peers if not peer.get("current")]
        if late:
            found.append(f"{stream} is not current on {', '.join(late)}")
    replicas = sorted({int(info["config"].get("num_replicas", 1)) for info in infos})
    return _check(
        "streams",
        found,
        f"{' and '.join(map(str, replicas))} replica{'s' if replicas != [1] else ''}, no limit is near",
        "streams",
        "give them more bytes or replicas: nats stream edit",
    )


async def _account(session: Session) -> Check:
    """Look at the limits of the account."""
    info = await session.connection.api("INFO")
    limits: dict[str, Any] = info.get("limits") or {}
    found: list[str] = []
    used = {"storage": ("max_storage", "bytes"), "streams": ("max_streams", ""), "consumers": ("max_consumers", "")}
    for name, (limit, unit) in used.items():
        most = int(limits.get(limit, -1))
        if most > 0 and info.get(name, 0) > NEARLY * most:
            found.append(f"{name} {info.get(name, 0):,} of {most:,} {unit}".rstrip())
    return _check("account", found, "no limit of the account is near", "limits are near", "raise them")


async def _clock(session: Session) -> Check:
    """Compare the server's clock with this one."""
    began = time()
    told = (await session.connection.api(f"STREAM.INFO.{session.names.tasks_stream}")).get("ts")
    if not told:
        return Check(name="clock", state="unknown", detail="the server does not tell its time")
    apart = seconds_of(told) - (began + time()) / 2
    return _check(
        "clock",
        [f"{apart:+.1f} s"] if abs(apart) > LATE + (time() - began) else [],
        "the server's clock agrees with this one",
        "the server's clock differs from this one",
        "have both follow a time server: deadlines and timers are read by their own clocks",
    )


async def _rights(session: Session) -> Check:
    """Tell who is connected."""
    answer = orjson.loads((await session.connection.request("$SYS.REQ.USER.INFO")).data)
    data: dict[str, Any] = answer.get("data") or {}
    rights: dict[str, Any] = data.get("permissions") or {}
    publishing: dict[str, list[str]] = rights.get("publish") or {}
    allowed = publishing.get("allow")
    may = "may publish anywhere" if allowed is None else f"may publish on {len(allowed)} subjects"
    return Check(name="rights", state="ok", detail=f"{data.get('user') or 'nobody by name'}, who {may}")
