"""The paths of the API, one file a subject."""

from __future__ import annotations

from typing import Final

from jetflow.dashboard.api import (
    actions,
    bulk,
    children,
    doctor,
    errors,
    events,
    history,
    live,
    meta,
    overview,
    payloads,
    queues,
    run,
    runs,
    said,
    schedules,
    trees,
    workers,
    workflows,
)
from jetflow.dashboard.endpoints import Endpoint

_SUBJECTS = (
    *(meta, overview, runs, run, said, children, errors, history, trees, payloads, actions, bulk),
    *(workflows, queues, workers, schedules, events, doctor, live),
)

ENDPOINTS: Final[tuple[Endpoint, ...]] = tuple(endpoint for subject in _SUBJECTS for endpoint in subject.ENDPOINTS.all)
