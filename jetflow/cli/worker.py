"""`jetflow worker`: worker processes, below a supervisor that starts those again that die."""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

import jetflow.processes
from jetflow.cli import loop
from jetflow.cli.loading import load_workflows
from jetflow.cli.options import UsageError, WorkerFlags, default_of, told
from jetflow.cli.place import Place
from jetflow.settings import settings_of


def worker(
    *targets: Annotated[str, Parameter(help="pkg.mod, pkg.mod:flow, path/to/file.py or path/to/file.py:flow.")],
    processes: Annotated[
        int | None, default_of("processes"), Parameter(help="Worker processes, each with its own slots.")
    ] = None,
    place: Place = Place(),  # noqa: B008 - frozen
    flags: WorkerFlags = WorkerFlags(),  # noqa: B008 - frozen
    tied: Annotated[bool, Parameter(show=False, negative=())] = False,
    supervised: Annotated[bool, Parameter(show=False, negative=())] = False,
) -> int:
    """Run the steps of workflows, until SIGTERM or Ctrl-C.

    A module stands for all Workflow objects in it. At the end, running steps finish within the grace time;
    a second Ctrl-C ends that. A worker process that dies is started again, and others get its tasks at once.

    ```
    jetflow worker flows.indexing:index_tree flows.reports --slots 20 --processes 4
    NATS_PASSWORD=... jetflow worker flows --server tls://nats.example.com --user ann --tls-ca ca.pem
    ```
    """
    flags.start_logging()
    options = flags.options()
    several = settings_of({"processes": processes})["processes"]
    if several.value < 1:
        raise UsageError(f"{told('processes', several)}: it must be above 0")
    if not supervised and os.name == "posix":
        _become_supervisor(several.value, tied=tied)
    if tied or supervised:
        _end_with_stdin()
    loop.run(place.worker(load_workflows(targets), options).run(started=_say_started if supervised else None))
    return 0


def _become_supervisor(processes: int, *, tied: bool) -> None:
    """Go on as another program in this process: with its id, which whoever has started it sends signals to."""
    sys.stdout.flush()
    sys.stderr.flush()
    program = Path(jetflow.processes.__file__).with_name("supervisor.py")
    os.execv(sys.executable, [sys.executable, "-P", str(program), str(processes), "0" if tied else "-1", *sys.argv[1:]])


def _say_started() -> None:
    with suppress(OSError):  # the supervisor is gone: then this worker ends as well
        os.write(0, b"started")


def _end_with_stdin() -> None:
    """Tell this process to end when its stdin does, that is when whoever has started it is gone, however it went."""

    def wait() -> None:
        while os.read(0, 64):
            pass
        signal.raise_signal(signal.SIGTERM)

    threading.Thread(target=wait, name="jetflow-tied", daemon=True).start()
