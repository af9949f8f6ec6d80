"""`jetflow worker`: a worker process."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from time import monotonic
from typing import Annotated, Final

from cyclopts import Parameter

from jetflow.cli import loop
from jetflow.cli.loading import load_workflows
from jetflow.cli.options import WorkerFlags
from jetflow.cli.place import Place

THREADS_GRACE: Final = 0.5
"""Seconds that threads of steps get to end after the worker has."""

_log = logging.getLogger("jetflow.cli")


def worker(
    *targets: Annotated[str, Parameter(help="pkg.mod, pkg.mod:flow, path/to/file.py or path/to/file.py:flow.")],
    place: Place = Place(),  # noqa: B008 - frozen
    flags: WorkerFlags = WorkerFlags(),  # noqa: B008 - frozen
    tied: Annotated[bool, Parameter(show=False, negative=())] = False,
) -> int:
    """Run the steps of workflows, until SIGTERM or Ctrl-C.

    A module stands for all Workflow objects in it. At the end, running steps finish within the grace time;
    a second Ctrl-C ends that.

    ```
    jetflow worker flows.indexing:index_tree flows.reports --slots 20
    NATS_PASSWORD=... jetflow worker flows --server tls://nats.example.com --user ann --tls-ca ca.pem
    ```
    """
    flags.start_logging()
    options = flags.options()
    if tied:
        _end_with_stdin()
    loop.run(place.worker(load_workflows(targets), options).run())
    leave_threads()
    return 0


def leave_threads() -> None:
    """End the process if a step still runs in a thread, which nothing can stop and Python would wait for."""
    until = monotonic() + THREADS_GRACE
    for thread in threading.enumerate():
        if thread.name.startswith("jetflow-step"):
            thread.join(max(0.0, until - monotonic()))
            if thread.is_alive():
                _log.warning(
                    "a step still runs in a thread: it ends with the process, and its task goes to another worker"
                )
                logging.shutdown()
                sys.stdout.flush()
                os._exit(0)


def _end_with_stdin() -> None:
    """Tell this process to end when its stdin does, that is when `jetflow dev` is gone, however it went."""

    def wait() -> None:
        while os.read(0, 64):
            pass
        signal.raise_signal(signal.SIGTERM)

    threading.Thread(target=wait, name="jetflow-tied", daemon=True).start()
