"""Being found as a NATS service (ADR-32): `nats service ls`, `info` and `stats` know each worker.

What is asked on ``$SRV.PING``, ``$SRV.INFO`` and ``$SRV.STATS`` is answered, also with the name behind it, and the id
behind that. It costs nothing while nobody asks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final
from uuid import uuid4

import msgspec

from jetflow.broker.connection import Listening
from jetflow.broker.parser import Message
from jetflow.broker.session import Session
from jetflow.worker.bodies import Bodies
from jetflow.workflow import Workflow

SERVICE: Final = "jetflow"
"""The name of the service that all workers are."""

_TYPE: Final = "io.nats.micro.v1.{}_response"
_NANOSECONDS: Final = 1_000_000_000
_SEMVER: Final = re.compile(r"\d+\.\d+\.\d+")


class Discovery:
    """Answers for one worker. `start` and `stop` it; both are safe to call twice."""

    def __init__(
        self, session: Session, worker: str, workflows: Mapping[str, Workflow[Any, Any]], bodies: Bodies
    ) -> None:
        self._session = session
        self._bodies = bodies
        self._steps = [(flow.name, step) for flow in workflows.values() for step in flow.consumed_steps]
        self._id = uuid4().hex
        self._started = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        self._metadata = {
            "namespace": session.names.namespace,
            "worker": worker,
            "workflows": ",".join(sorted(workflows)),
        }
        self._subscriptions: list[Listening] = []

    async def start(self) -> None:
        """Begin to answer."""
        if not self._subscriptions:
            for behind in ("", f".{SERVICE}", f".{SERVICE}.{self._id}"):
                subscription = await self._session.connection.subscribe(f"$SRV.*{behind}", self._on_asked)
                self._subscriptions.append(subscription)

    async def stop(self) -> None:
        """Answer no more."""
        subscriptions, self._subscriptions = self._subscriptions, []
        for subscription in subscriptions:
            await self._session.connection.unsubscribe(subscription)

    def _on_asked(self, message: Message) -> None:
        verb = message.subject.split(".")[1].lower()
        if not message.reply or verb not in ("ping", "info", "stats"):
            return
        answer: dict[str, Any] = {
            "type": _TYPE.format(verb),
            "name": SERVICE,
            "id": self._id,
            "version": _version(),
            "metadata": self._metadata,
        }
        if verb == "info":
            answer |= {"description": "a jetflow worker", "endpoints": self._endpoints()}
        elif verb == "stats":
            answer |= {"started": self._started, "endpoints": self._stats()}
        self._session.connection.send(message.reply, msgspec.json.encode(answer))

    def _endpoints(self) -> list[dict[str, Any]]:
        """Tell of each step that it pulls tasks of."""
        return [
            {
                "name": f"{workflow}-{step}".strip("-"),
                "subject": self._session.names.tasks_of_step(workflow, step),
                "queue_group": "",
                "metadata": {"workflow": workflow, "step": step},
            }
            for workflow, step in self._steps
        ]

    def _stats(self) -> list[dict[str, Any]]:
        """Tell of all steps together: what is counted apart would cost each task."""
        counts, bodies = self._bodies.counts, self._bodies
        spent = int(bodies.seconds * _NANOSECONDS)
        return [
            {
                "name": "tasks",
                "subject": self._session.names.all_tasks[0],
                "queue_group": "",
                "num_requests": counts.executed,
                "num_errors": counts.failed + counts.retried,
                "last_error": "",
                "processing_time": spent,
                "average_processing_time": spent // max(1, counts.executed),
                "data": msgspec.to_builtins(counts),
            }
        ]


def _version() -> str:
    try:
        found = _SEMVER.match(version("jetflow-nats"))
    except PackageNotFoundError:
        found = None
    return "0.0.0" if found is None else found[0]
