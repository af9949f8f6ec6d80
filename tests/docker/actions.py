"""What somebody may try in a namespace, as plain NATS messages: the rows of the table in ``docs/security.md``.

Each is tried with what the protocol has, and nothing of jetflow. ``victim`` stands for a run of the namespace ``acme``
that is stored, ``fresh`` for one that nobody has, and ``globex`` for another tenant.
"""

from __future__ import annotations

import json
from typing import Any, Final, NamedTuple

SECOND: Final = 1_000_000_000
VICTIM: Final = "a" * 32
"""A root run that is stored, with its outcome."""

CHILD: Final = "c" * 32


class Action(NamedTuple):
    """One message, or one subscription where there is no ``subject``.

    ``by_stream`` says that it is the stream's settings that refuse it, and not the user's permissions.
    """

    name: str
    subject: str = ""
    body: bytes = b""
    headers: dict[str, str] | None = None
    by_stream: bool = False
    hears: str = ""


def _api(operation: str, body: Any = None) -> dict[str, Any]:
    return {"subject": f"$JS.API.{operation}", "body": b"" if body is None else json.dumps(body).encode()}


def _step(**settings: Any) -> dict[str, Any]:
    """The consumer of a step, with settings of one's own."""
    config = {
        "durable_name": "echo=run",
        "name": "echo=run",
        "filter_subject": "jf.acme.task.echo.run.>",
        "ack_policy": "explicit",
        "ack_wait": 5 * SECOND,
        "max_ack_pending": -1,
        "max_deliver": -1,
        "max_waiting": 4096,
    }
    return {"stream_name": "JF_acme_tasks", "config": config | settings}


def _ephemeral(stream: str, **settings: Any) -> dict[str, Any]:
    config = {"ack_policy": "none", "mem_storage": True, "inactive_threshold": SECOND}
    return {"stream_name": stream, "config": config | settings}


def _last(subject: str) -> dict[str, str]:
    return {"last_by_subj": subject}


_TIMER: Final = f"wake.echo.run.{VICTIM}.-.{VICTIM}.7"
_SOON: Final = "@at 2099-01-01T00:00:00Z"
_STREAM: Final = {"name": "JF_acme_values", "subjects": ["jf.acme.value.>"]}

WORK: Final = [
    Action("ask for a root run (`in.trigger`)", "jf.acme.in.trigger.echo", b"1"),
    Action("read how a root run ended", **_api(f"DIRECT.GET.JF_acme_records.jf.acme.run.{VICTIM}.-.-.{VICTIM}")),
    Action("read the declaration of a workflow", **_api("STREAM.MSG.GET.KV_jf_acme_workflows", _last("$KV.>"))),
    Action("hear how root runs end", hears="jf.acme.live.run.*.-.-.*"),
    Action("see which ids and names are stored", **_api("STREAM.INFO.JF_acme_records", {"subjects_filter": ">"})),
    Action(
        "read how a child run ended", **_api(f"DIRECT.GET.JF_acme_records.jf.acme.run.{VICTIM}.{VICTIM}.run.{CHILD}")
    ),
    Action("read any record", **_api("STREAM.MSG.GET.JF_acme_records", _last("jf.acme.>"))),
    Action("read the inputs of tasks", **_api("STREAM.MSG.GET.JF_acme_tasks", _last("jf.acme.task.>"))),
    Action("read large values", **_api("STREAM.MSG.GET.JF_acme_values", _last("jf.acme.value.>"))),
    Action("read counters", **_api("STREAM.MSG.GET.KV_jf_acme_counters", _last("$KV.>"))),
    Action("list the queues of steps", **_api("CONSUMER.LIST.JF_acme_tasks")),
    Action("ask workers who they are", "jf.acme.ask.workers"),
    Action("ask workers where their code stands", "jf.acme.ask.run.{fresh}", b'{"stack":true}'),
    Action("hear that runs are cancelled", hears="jf.acme.live.cancel.*.*"),
    Action("cancel a run (its mark)", "jf.acme.cancel.{fresh}.{fresh}"),
    Action("remove queued tasks", **_api("STREAM.PURGE.JF_acme_tasks", {"filter": "jf.acme.task.none.none.>"})),
    Action("remove records", **_api("STREAM.PURGE.JF_acme_records", {"filter": "jf.acme.run.none.>"})),
    Action("remove one task", **_api("STREAM.MSG.DELETE.JF_acme_tasks", {"seq": 999_999})),
    Action("pause a step", **_api("CONSUMER.PAUSE.JF_acme_tasks.echo=run", {})),
    Action("drain a worker", "jf.acme.tell.drain", b"nobody"),
    Action("store a task", "jf.acme.task.echo.run.{fresh}.-.{fresh}.0", b"1"),
    Action("declare a workflow", "$KV.jf_acme_workflows.forged{fresh}", b"{}"),
    Action("pull tasks of a step", **_api("CONSUMER.MSG.NEXT.JF_acme_tasks.echo=run", {"no_wait": True})),
    Action("pull what the inbox holds", **_api("CONSUMER.MSG.NEXT.JF_acme_inbox.workers", {"no_wait": True})),
    Action("acknowledge a task", "$JS.ACK.JF_acme_tasks.echo=run.1.999.999.0.0", b"+ACK"),
    Action(
        "arm a timer",
        f"jf.acme.timer.{_TIMER}",
        headers={"Nats-Schedule": _SOON, "Nats-Schedule-Target": f"jf.acme.due.{_TIMER}"},
    ),
    Action("read a timer", **_api("STREAM.MSG.GET.JF_acme_timers", _last("jf.acme.timer.>"))),
    Action("hear who asks for workers", hears="jf.acme.who.*"),
    Action("publish an event", "jf.acme.event._.none.{fresh}", b"1"),
    Action("read events", **_api("STREAM.MSG.GET.JF_acme_events", _last("jf.acme.event.>"))),
    Action("pull events that wake steps", **_api("CONSUMER.MSG.NEXT.JF_acme_events.waits", {"no_wait": True})),
    Action("store a wait for an event", "jf.acme.wait.none._.echo.run.{fresh}.-.{fresh}.0.all-0", b"{}"),
    Action("read who stands at the gates of limits", **_api("STREAM.MSG.GET.JF_acme_gates", _last("jf.acme.entry.>"))),
    Action("change a limit", "$KV.jf_acme_limits.limit.forged{fresh}", b'{"max":1}'),
    Action("ask for a look at the gates of a limit (`in.limit`)", "jf.acme.in.limit.none"),
    Action("read what steps stream and log", **_api("STREAM.MSG.GET.JF_acme_output", _last("jf.acme.out.>"))),
    Action("hear what steps stream and log", hears="jf.acme.live.out.>"),
]
"""What the work of somebody needs."""

FORGING: Final = [
    Action("store the outcome of a run", "jf.acme.run.{fresh}.-.-.{fresh}", b'{"status":"succeeded"}'),
    Action("store the outcome of a step", "jf.acme.step.{fresh}.{fresh}.run", b'{"status":"succeeded"}'),
    Action("store what a step waits for", "jf.acme.join.{fresh}.{fresh}.run.0", b"{}"),
    Action("store that a child failed (its mark)", "jf.acme.mark.{fresh}.{fresh}.run.failed.echo.{fresh}"),
    Action("stand at the gate of a limit", "jf.acme.entry.none._.{fresh}.-.{fresh}", b"{}"),
    Action("store that a run has left all gates", "jf.acme.gone.{fresh}.{fresh}"),
    Action("store an attempt", "jf.acme.try.{fresh}.{fresh}.run.0.1", b"{}"),
    Action("store a value of `ctx.once`", "jf.acme.once.{fresh}.{fresh}.run.charge", b"1"),
    Action("store a large value", "jf.acme.value.{fresh}.{fresh}-1.0", b"1"),
    Action("store a chunk that a step streams", "jf.acme.out.{fresh}.{fresh}.run", b"1"),
    Action("tell workers that somebody waits", "jf.acme.live.waits"),
    Action("count a join", "$KV.jf_acme_counters.join.{fresh}.{fresh}.run", headers={"Nats-Incr": "+1"}),
    Action("tell a live outcome", "jf.acme.live.run.{fresh}.{fresh}.run.{fresh}", b'{"status":"succeeded"}'),
    Action("tell a live cancelling", "jf.acme.live.cancel.{fresh}.{fresh}"),
    Action("ask for a look at a join (`in.look`)", "jf.acme.in.look.{fresh}.{fresh}.run"),
    Action("store that a timer is due", f"jf.acme.due.{_TIMER}"),
    Action(
        "overwrite an outcome that is stored",
        f"jf.acme.run.{VICTIM}.-.-.{VICTIM}",
        b'{"status":"failed"}',
        by_stream=True,
    ),
    Action("rollup header on a trigger", "jf.acme.in.trigger.echo", b"1", {"Nats-Rollup": "all"}, by_stream=True),
    Action(
        "rollup header on an outcome", "jf.acme.run.{fresh}.-.-.{fresh}", b"{}", {"Nats-Rollup": "all"}, by_stream=True
    ),
    Action(
        "rollup header on a counter",
        "$KV.jf_acme_counters.join.{fresh}.{fresh}.run",
        b"",
        {"Nats-Rollup": "all", "Nats-Incr": "+1"},
        by_stream=True,
    ),
    Action(
        "rollup header on a declaration", "$KV.jf_acme_workflows.echo", b"{}", {"Nats-Rollup": "all"}, by_stream=True
    ),
    Action(
        "schedule header on a trigger",
        "jf.acme.in.trigger.echo",
        b"1",
        {"Nats-Schedule": _SOON, "Nats-Schedule-Target": "jf.acme.in.look.a.b.c"},
        by_stream=True,
    ),
    Action(
        "schedule header on a task",
        "jf.acme.task.echo.run.{fresh}.-.{fresh}.0",
        b"1",
        {"Nats-Schedule": _SOON, "Nats-Schedule-Target": "jf.acme.cancel.a.a"},
        by_stream=True,
    ),
    Action(
        "timer with a target in another stream",
        f"jf.acme.timer.{_TIMER}",
        b"",
        {"Nats-Schedule": _SOON, "Nats-Schedule-Target": f"jf.acme.run.{VICTIM}.-.-.{VICTIM}"},
        by_stream=True,
    ),
    Action(
        "limited life on an outcome (`Nats-TTL`)",
        "jf.acme.run.{fresh}.-.-.{fresh}",
        b"{}",
        {"Nats-TTL": "1s"},
        by_stream=True,
    ),
]
"""What would make something true that is not."""

ADMINISTERING: Final = [
    Action("make a stream", **_api("STREAM.CREATE.JF_acme_values", _STREAM)),
    Action("change a stream", **_api("STREAM.UPDATE.JF_acme_values", _STREAM)),
    Action("delete a stream", **_api("STREAM.DELETE.JF_acme_values", {"no": 1})),
    Action("copy a stream (snapshot)", **_api("STREAM.SNAPSHOT.JF_acme_tasks", {"deliver_subject": "x"})),
    Action("list all streams of the account", **_api("STREAM.NAMES")),
    Action(
        "make the consumer of a step", **_api("CONSUMER.CREATE.JF_acme_tasks.echo=run.jf.acme.task.echo.run.>", _step())
    ),
    Action("change a step's consumer by its body", **_api("CONSUMER.CREATE.JF_acme_tasks", _step(max_ack_pending=1))),
    Action(
        "change a step's consumer by the old name", **_api("CONSUMER.DURABLE.CREATE.JF_acme_tasks.echo=run", _step())
    ),
    Action("delete a step's consumer", **_api("CONSUMER.DELETE.JF_acme_tasks.none")),
    Action("reset a step's consumer", **_api("CONSUMER.RESET.JF_acme_tasks.echo=run", {"seq": 1})),
    Action("make a consumer on the records", **_api("CONSUMER.CREATE.JF_acme_records", _ephemeral("JF_acme_records"))),
    Action(
        "have records delivered as live outcomes",
        **_api(
            "CONSUMER.CREATE.JF_acme_records", _ephemeral("JF_acme_records", deliver_subject="jf.acme.live.run.a.b.c.d")
        ),
    ),
    Action("move a stream's leader", **_api("STREAM.LEADER.STEPDOWN.JF_acme_tasks")),
    Action("ask the system account", "$SYS.REQ.SERVER.PING"),
    Action("hear everything", hears=">"),
    Action("hear triggers as they come", hears="jf.acme.in.>"),
    Action("hear the answers to a worker", hears="_INBOX.acme.worker.>"),
    Action("hear the answers to all", hears="_INBOX.>"),
]
"""What changes the fence, or looks over it."""

ABROAD: Final = [
    Action("start a run of another tenant", "jf.globex.in.trigger.echo", b"1"),
    Action("store an outcome of another tenant", "jf.globex.run.{fresh}.-.-.{fresh}", b"{}"),
    Action("store a task of another tenant", "jf.globex.task.echo.run.{fresh}.-.{fresh}.0", b"1"),
    Action("cancel a run of another tenant", "jf.globex.cancel.{fresh}.{fresh}"),
    Action(
        "count a join of another tenant", "$KV.jf_globex_counters.join.{fresh}.{fresh}.run", b"", {"Nats-Incr": "+1"}
    ),
    Action("read tasks of another tenant", **_api("STREAM.MSG.GET.JF_globex_tasks", _last("jf.globex.>"))),
    Action(
        "read a root run of another tenant", **_api(f"DIRECT.GET.JF_globex_records.jf.globex.run.{VICTIM}.-.-.{VICTIM}")
    ),
    Action("look at a stream of another tenant", **_api("STREAM.INFO.JF_globex_tasks")),
    Action("pull tasks of another tenant", **_api("CONSUMER.MSG.NEXT.JF_globex_tasks.echo=run", {"no_wait": True})),
    Action("pause a step of another tenant", **_api("CONSUMER.PAUSE.JF_globex_tasks.echo=run", {})),
    Action("purge another tenant", **_api("STREAM.PURGE.JF_globex_tasks", {"filter": "jf.globex.task.none.none.>"})),
    Action("ask workers of another tenant", "jf.globex.ask.workers"),
    Action("hear another tenant", hears="jf.globex.live.>"),
    Action("hear answers to another tenant", hears="_INBOX.globex.worker.>"),
]
"""What is another tenant's."""

ACTIONS: Final = {
    "What work needs": WORK,
    "Forging": FORGING,
    "Administering, and listening": ADMINISTERING,
    "Another tenant": ABROAD,
}
