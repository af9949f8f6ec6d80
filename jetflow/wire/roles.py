"""What a user of each role may publish and hear: the permissions of NATS are jetflow's only fence.

A user of one role may do what its work needs, in one namespace, and nothing else of the account. Nobody but an operator
of an account of its own may make streams or consumers: whoever makes a stream says what it copies and to where it is
republished, and whoever makes a consumer says on which subject it delivers, and the server asks nobody's permission.
Answers come below an inbox of the role's own, so that nobody hears those of another.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal, TypeAlias, get_args

import msgspec

from jetflow.wire.events import EventNames
from jetflow.wire.limits import LimitNames
from jetflow.wire.output import KINDS, OutputNames
from jetflow.wire.subjects import Subjects

RoleName: TypeAlias = Literal["trigger", "worker", "viewer", "operator"]

ROLES: Final[tuple[RoleName, ...]] = get_args(RoleName)

_API: Final = "$JS.API"


class Permissions(msgspec.Struct, frozen=True):
    """The subjects that one user may publish on and subscribe to, and the inbox prefix it has to connect with."""

    inbox: str
    publish: tuple[str, ...]
    subscribe: tuple[str, ...]


def permissions_of(role: RoleName, names: Subjects, *, owns_account: bool) -> Permissions:
    """Return what a user of a role may do in a namespace.

    ``owns_account`` says that the account holds nothing but this namespace: then its operator may make its streams and
    consumers. In an account that several share only the account's administrator may.
    """
    inbox = f"_INBOX.{names.namespace}.{role}"
    publish, subscribe = _PUBLISHED[role](names), _HEARD[role](names)
    if role == "operator" and owns_account:
        publish += _making(names)
    return Permissions(inbox, tuple(publish), (f"{inbox}.>", *subscribe))


def _streams(names: Subjects) -> tuple[str, ...]:
    return (
        names.tasks_stream,
        names.records_stream,
        names.values_stream,
        names.timers_stream,
        names.inbox_stream,
        names.counters_stream,
        names.workflows_stream,
        OutputNames(names).stream,
        EventNames(names).stream,
        EventNames(names).waits_stream,
        LimitNames(names).gates_stream,
        LimitNames(names).limits_stream,
    )


def _there(names: Subjects) -> list[str]:
    """Ask whether the namespace is there. The answers tell subjects, and so ids and names, but no body."""
    return [f"{_API}.INFO", *(f"{_API}.STREAM.INFO.{stream}" for stream in _streams(names))]


def _reading(names: Subjects) -> list[str]:
    """Read all that is stored, and how the consumers of steps stand."""
    events = EventNames(names)
    limits = LimitNames(names)
    optional = (
        OutputNames(names).stream,
        events.stream,
        events.waits_stream,
        limits.gates_stream,
        limits.limits_stream,
    )
    read = (names.tasks_stream, names.records_stream, names.values_stream, names.workflows_stream, *optional)
    return [
        *_there(names),
        *(f"{_API}.STREAM.MSG.GET.{stream}" for stream in (*read, names.counters_stream, names.timers_stream)),
        *(f"{_API}.DIRECT.GET.{stream}" for stream in (*read, names.counters_stream, names.timers_stream)),
        *(f"{_API}.DIRECT.GET.{stream}.>" for stream in (*read, names.counters_stream)),
        f"{_API}.CONSUMER.LIST.{names.tasks_stream}",
        f"{_API}.CONSUMER.NAMES.{names.tasks_stream}",
        f"{_API}.CONSUMER.INFO.{names.tasks_stream}.*",
    ]


def _asking(names: Subjects) -> list[str]:
    return [f"{names.prefix}.who.*", f"{names.prefix}.ask.>"]


def _removing(names: Subjects) -> list[str]:
    """Remove messages of the namespace: what cancelling and deleting do."""
    purged = (
        names.tasks_stream,
        names.records_stream,
        names.values_stream,
        names.timers_stream,
        names.counters_stream,
        OutputNames(names).stream,
        EventNames(names).waits_stream,
        LimitNames(names).gates_stream,
    )
    return [
        *(f"{_API}.STREAM.PURGE.{stream}" for stream in purged),
        f"{_API}.STREAM.MSG.DELETE.{names.tasks_stream}",
        f"{_API}.STREAM.MSG.DELETE.{LimitNames(names).gates_stream}",
    ]


def _trigger(names: Subjects) -> list[str]:
    """Ask workers for root runs, and read declarations and how root runs ended."""
    return [
        *_there(names),
        f"{names.prefix}.in.trigger.*",
        EventNames(names).all,
        f"{_API}.STREAM.MSG.GET.{names.workflows_stream}",
        f"{_API}.DIRECT.GET.{names.records_stream}.{names.roots_ended}",
    ]


def _worker(names: Subjects) -> list[str]:
    kinds = (
        "task",
        "cancel",
        "run",
        "step",
        "join",
        "mark",
        "try",
        "once",
        "value",
        "timer",
        "live.run",
        "in.look",
        "in.limit",
    )
    events = EventNames(names)
    pulled = (names.tasks_stream, names.inbox_stream, names.timers_stream, events.stream)
    return [
        *_reading(names),
        *_removing(names),
        *(f"{names.prefix}.{kind}.>" for kind in (*kinds, *KINDS)),
        events.all,
        events.all_waits,
        *LimitNames(names).all_of_gates,
        LimitNames(names).all_settings,
        events.notice,
        f"{_API}.CONSUMER.DELETE.{events.stream}.*",  # what was declared, and is not any more
        f"{names.prefix}.who.*",
        f"{names.prefix}.ask.workers",  # `jetflow health`
        f"{names.prefix}.ask.late.*",  # a join that hedges
        names.all_counters,
        names.all_workflows,
        f"_INBOX.{names.namespace}.>",  # answers to those who ask workers
        *(f"{_API}.CONSUMER.INFO.{stream}.*" for stream in pulled if stream != names.tasks_stream),
        *(f"{_API}.CONSUMER.MSG.NEXT.{stream}.*" for stream in pulled),
        *(f"$JS.ACK.{stream}.>" for stream in pulled),
    ]


def _viewer(names: Subjects) -> list[str]:
    return [*_reading(names), *_asking(names)]


def _operator(names: Subjects) -> list[str]:
    """Look, start, cancel and delete runs, and hold queues. Cancelling stores outcomes, and goes on behind them."""
    kinds = ("task", "cancel", "run", "step", "join", "mark", "once", "value", "timer", "live.run", "in")
    return [
        *_reading(names),
        *_asking(names),
        *_removing(names),
        *(f"{names.prefix}.{kind}.>" for kind in kinds),
        EventNames(names).all,
        LimitNames(names).all_of_gates[1],
        LimitNames(names).all_settings,
        names.all_counters,
        names.all_workflows,
        f"{_API}.CONSUMER.PAUSE.{names.tasks_stream}.*",
        f"{names.prefix}.tell.>",
    ]


def _making(names: Subjects) -> list[str]:
    """Make and change streams, and the consumers that workers pull."""
    consumed = (names.tasks_stream, names.inbox_stream, names.timers_stream, EventNames(names).stream)
    return [
        *(f"{_API}.STREAM.{verb}.{stream}" for verb in ("CREATE", "UPDATE") for stream in _streams(names)),
        *(f"{_API}.CONSUMER.CREATE.{stream}.>" for stream in consumed),
        *(f"{_API}.CONSUMER.{verb}.{stream}.*" for verb in ("INFO", "DELETE") for stream in consumed),
    ]


_PUBLISHED: Final[dict[RoleName, Callable[[Subjects], list[str]]]] = {
    "trigger": _trigger,
    "worker": _worker,
    "viewer": _viewer,
    "operator": _operator,
}

_HEARD: Final[dict[RoleName, Callable[[Subjects], list[str]]]] = {
    "trigger": lambda names: [names.live_root_by_id("*")],
    "worker": lambda names: [f"{names.prefix}.{kind}" for kind in ("live.>", "who.*", "ask.>", "tell.>")] + ["$SRV.>"],
    "viewer": lambda names: [f"{names.prefix}.live.>"],
    "operator": lambda names: [f"{names.prefix}.live.>"],
}
