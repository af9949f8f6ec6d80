"""`jetflow worker`: a worker process."""

from __future__ import annotations

import os
import signal
import threading
from typing import Annotated

from cyclopts import Parameter

from jetflow.cli import loop
from jetflow.cli.loading import load_workflows
from jetflow.cli.options import WorkerFlags
from jetflow.cli.place import Place


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
    return 0


def _end_with_stdin() -> None:
    """Tell this process to end when its stdin does, that is when `jetflow dev` is gone, however it went."""

    def wait() -> None:
        while os.read(0, 64):
            pass
        signal.raise_signal(signal.SIGTERM)

    threading.Thread(target=wait, name="jetflow-tied", daemon=True).start()
