"""What this user may publish, asked before it matters: a worker that may not record must not run anything.

A message that no stream takes is sent to each subject: the server says of it whether this user may, and stores nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

from jetflow.broker.connection import Connection
from jetflow.engine.tasks import StepAddress
from jetflow.errors import PermissionDenied
from jetflow.wire.headers import Header
from jetflow.wire.records import header_block
from jetflow.wire.subjects import Subjects

_NO_RUN = "0" * 32
_NOWHERE = header_block({Header.EXPECTED_STREAM: "-"})  # no stream has this name


async def check_may_publish(connection: Connection, subjects: Mapping[str, str]) -> None:
    """Check that this user may publish on each of ``subjects``, which stands for all that its value says.

    Raises:
        PermissionDenied: this user may not.
    """
    asked = {subject.lower(): meant for subject, meant in subjects.items()}
    denied: list[str] = []

    def on_denied(subject: str) -> None:
        if subject in asked:
            denied.append(asked[subject])

    forget = connection.on_denied(on_denied)
    try:
        for subject in subjects:
            connection.send(subject, headers=_NOWHERE)
        await connection.settled()
    finally:
        forget()
    if denied:
        raise PermissionDenied(denied[0])


def recorded(names: Subjects) -> dict[str, str]:
    """Return what a worker publishes of every run: a subject of each kind, of a run that never is, and the kind."""
    step = StepAddress(_NO_RUN, _NO_RUN, "-")
    kinds = {
        "run": names.run(_NO_RUN, "-", "-", _NO_RUN),
        "step": names.step(step),
        "join": names.join(step, 0),
        "mark": f"{names.prefix}.mark.{_NO_RUN}.-.-.failed.-.{_NO_RUN}",
        "try": names.attempt(step, 0, 0),
    }
    records = {subject: f"{names.prefix}.{kind}.>" for kind, subject in kinds.items()}
    return records | {names.counter("join", step): names.all_counters}


def is_recorded(names: Subjects, subject: str) -> bool:
    """Tell whether a worker records on a subject: outcomes and other records, counters, marks of cancelling."""
    patterns = (*names.all_records, names.all_counters, names.all_cancelled)
    return subject.startswith(tuple(pattern.rstrip("*.>") + "." for pattern in patterns))
