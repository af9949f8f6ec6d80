"""The commands put together, and what every one of them does at its end.

Exit status: 0 done, 1 a `JetflowError` (one line on stderr), 2 a command line that makes no sense, 130 after Ctrl-C,
141 when the reader of stdout went away. Of a run that was waited for: 1 failed, 3 cancelled, 4 timed out. Anything else
is a bug and shows its traceback.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Final

from cyclopts import App, CycloptsError, UnusedCliTokensError

from jetflow.cli import INTERRUPTED
from jetflow.cli.cancel import cancel
from jetflow.cli.config import config
from jetflow.cli.dashboard import dashboard, open_run
from jetflow.cli.dev import dev
from jetflow.cli.doctor import doctor
from jetflow.cli.failures import errors
from jetflow.cli.graph import graph, workflows
from jetflow.cli.health import health
from jetflow.cli.limits import limits
from jetflow.cli.logs import logs
from jetflow.cli.loosen import loosen
from jetflow.cli.new import new
from jetflow.cli.options import UsageError
from jetflow.cli.publish import publish
from jetflow.cli.queues import pause, queues, resume
from jetflow.cli.rerun import rerun
from jetflow.cli.runs import list_runs
from jetflow.cli.schedules import delayed, reschedule, schedules
from jetflow.cli.setup import setup
from jetflow.cli.show import show
from jetflow.cli.signal import signal
from jetflow.cli.top import top
from jetflow.cli.trigger import trigger
from jetflow.cli.users import users
from jetflow.cli.watch import ENDED, watch
from jetflow.cli.worker import worker
from jetflow.cli.workers import drain, workers
from jetflow.errors import InvalidQuery, InvalidSetting, JetflowError, RunFailed

FAILED: Final = 1
MISUSED: Final = 2
UNREAD: Final = 141

app: Final[App] = App(
    name="jetflow",
    help="Workflows on NATS JetStream. `jetflow COMMAND --help` shows an example of each command.",
    usage="Usage: jetflow COMMAND [OPTIONS]",
    version=lambda: f"jetflow {version('jetflow-nats')}",
    help_format="markdown",
)
app.command(new, usage="Usage: jetflow new DIRECTORY")
app.command(worker, usage="Usage: jetflow worker MODULE[:OBJECT]... [OPTIONS]")
app.command(trigger, usage="Usage: jetflow trigger NAME [INPUT] [OPTIONS]")
app.command(publish, usage="Usage: jetflow publish TOPIC [PAYLOAD] [OPTIONS]")
app.command(signal, usage="Usage: jetflow signal RUN NAME [PAYLOAD] [OPTIONS]")
app.command(show, usage="Usage: jetflow show RUN [OPTIONS]")
app.command(logs, usage="Usage: jetflow logs RUN [OPTIONS]")
app.command(watch, usage="Usage: jetflow watch RUN [OPTIONS]")
app.command(list_runs, name="list", usage="Usage: jetflow list [OPTIONS]")
app.command(errors, usage="Usage: jetflow errors [RUN] [OPTIONS]")
app.command(queues, usage="Usage: jetflow queues [OPTIONS]")
app.command(workers, usage="Usage: jetflow workers [OPTIONS]")
app.command(top, usage="Usage: jetflow top [OPTIONS]")
app.command(workflows, usage="Usage: jetflow workflows [OPTIONS]")
app.command(graph, usage="Usage: jetflow graph WORKFLOW [OPTIONS]")
app.command(schedules)
app.command(limits)
app.command(delayed, usage="Usage: jetflow delayed [WORKFLOW] [OPTIONS]")
app.command(reschedule, usage="Usage: jetflow reschedule RUN [OPTIONS]")
app.command(pause, usage="Usage: jetflow pause WORKFLOW [STEP] [OPTIONS]")
app.command(resume, usage="Usage: jetflow resume WORKFLOW [STEP] [OPTIONS]")
app.command(drain, usage="Usage: jetflow drain WORKER [OPTIONS]")
app.command(cancel, usage="Usage: jetflow cancel RUN [OPTIONS]")
app.command(loosen, usage="Usage: jetflow loosen RUN [OPTIONS]")
app.command(rerun, usage="Usage: jetflow rerun [RUN] [OPTIONS]")
app.command(doctor, usage="Usage: jetflow doctor [OPTIONS]")
app.command(health, usage="Usage: jetflow health [OPTIONS]")
app.command(config, usage="Usage: jetflow config [OPTIONS]")
app.command(setup, usage="Usage: jetflow setup [MODULE[:OBJECT]]... [OPTIONS]")
app.command(users, usage="Usage: jetflow users [NAMESPACE]... [OPTIONS]")
app.command(dashboard, usage="Usage: jetflow dashboard [OPTIONS]")
app.command(open_run, name="open", usage="Usage: jetflow open RUN [OPTIONS]")
app.command(dev, usage="Usage: jetflow dev MODULE[:OBJECT]... [OPTIONS]")
app.register_install_completion_command(  # pyright: ignore[reportUnknownMemberType] - its **kwargs have no type
    help="Install completion for this shell: bash, zsh or fish."
)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line, and return its exit status."""
    try:
        status = _run(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Python flushes stdout once more at exit, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return UNREAD
    except (CycloptsError, UsageError, InvalidQuery, InvalidSetting) as error:
        return _refuse(error, MISUSED)
    except RunFailed as failed:
        return _refuse(failed, ENDED.get(failed.status, FAILED))
    except (JetflowError, OSError) as error:
        return _refuse(error, FAILED)
    return status


def _run(arguments: Sequence[str] | None) -> int:
    command, bound, _ = app.parse_args(
        None if arguments is None else list(arguments), exit_on_error=False, print_error=False
    )
    status: object = command(*bound.args, **bound.kwargs)
    return status if isinstance(status, int) else 0


def _refuse(error: Exception, status: int) -> int:
    said = str(error)
    if isinstance(error, UnusedCliTokensError):
        hint = " Quote JSON for the shell, as in '{\"n\": 5}'" if "trigger" in (error.command_chain or ()) else ""
        said = f"what is {' '.join(error.unused_tokens or ())!r} for?{hint}"
    print(f"error: {said}", file=sys.stderr)
    return status
