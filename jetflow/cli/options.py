"""The options that several commands share, and the error for those that make no sense."""

from __future__ import annotations

import logging
from dataclasses import dataclass, fields
from typing import Annotated, Any, Final, Literal, TypeAlias

from cyclopts import Parameter

from jetflow.errors import JetflowError
from jetflow.logs import JsonFormatter
from jetflow.worker.options import WorkerOptions

FLAG: Final = Parameter(negative=(), show_default=False)
"""What is off unless it is given."""

AsJson: TypeAlias = Annotated[bool, FLAG, Parameter(name="--json", help="Print JSON.")]
Verbose: TypeAlias = Annotated[bool, FLAG, Parameter(name="--verbose", help="Print tracebacks of errors, too.")]

_DEFAULTS = WorkerOptions()

_OPTION_OF: Final = {"step_processes": "processes"}
"""The worker's options that have another name here."""


class UsageError(JetflowError, ValueError):
    """The command line asks for something that does not exist or does not fit."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class WorkerFlags:
    """What can be set of a worker on the command line. Times are seconds."""

    slots: Annotated[int, Parameter(help="Step bodies that run at once.")] = _DEFAULTS.slots
    ack_wait: Annotated[float, Parameter(help="Seconds of silence after which another worker gets a task.")] = (
        _DEFAULTS.ack_wait
    )
    park_after: Annotated[float, Parameter(help="Seconds that a step waits for children in memory.")] = (
        _DEFAULTS.park_after
    )
    max_waiting: Annotated[int, Parameter(help="Steps that wait for children in memory at once.")] = (
        _DEFAULTS.max_waiting
    )
    keep: Annotated[float, Parameter(help="Seconds that a finished root run is kept, with its tree.")] = _DEFAULTS.keep
    keep_failed: Annotated[
        float | None, Parameter(help="The same for root runs that have not succeeded; as --keep if it is not given.")
    ] = _DEFAULTS.keep_failed
    keep_runs: Annotated[int, Parameter(help="Finished root runs that are kept at most.")] = _DEFAULTS.keep_runs
    grace: Annotated[float, Parameter(help="Seconds that running steps may go on at the end.")] = _DEFAULTS.grace
    step_processes: Annotated[
        int | None,
        Parameter(help='Steps with runs_in="process" that run at once; as many as cores if it is not given.'),
    ] = _DEFAULTS.processes
    replicas: Annotated[int, Parameter(help="Replicas of each stream, when it is made.")] = _DEFAULTS.replicas
    health_port: Annotated[
        int | None,
        Parameter(help="Answer /livez, /readyz and /metrics there; each further process takes the next port."),
    ] = _DEFAULTS.health_port
    health_host: Annotated[str, Parameter(help="The address that it listens on; 0.0.0.0 for probes.")] = (
        _DEFAULTS.health_host
    )
    log_format: Annotated[Literal["text", "json"], Parameter(help="How lines of the log are written.")] = "text"
    log_level: Annotated[Literal["debug", "info", "warning", "error"], Parameter(help="What to log on stderr.")] = (
        "info"
    )

    def options(self) -> WorkerOptions:
        """Return the worker's options.

        Raises:
            UsageError: a value is out of range.
        """
        values: dict[str, Any] = {}
        for field in fields(self):
            if field.name in ("log_level", "log_format"):
                continue
            option, value = _OPTION_OF.get(field.name, field.name), getattr(self, field.name)
            try:
                WorkerOptions(**{option: value})
            except ValueError as error:
                rule = str(error).rpartition(": ")[2]
                raise UsageError(f"--{field.name.replace('_', '-')} is {value}: it must be {rule}") from None
            values[option] = value
        return WorkerOptions(**values)

    def arguments(self) -> list[str]:
        """Return the command line that says the same."""
        return [
            part
            for field in fields(self)
            if getattr(self, field.name) is not None
            for part in (f"--{field.name.replace('_', '-')}", str(getattr(self, field.name)))
        ]

    def start_logging(self) -> None:
        """Log to stderr from now on."""
        logging.basicConfig(
            level=self.log_level.upper(),
            format="%(asctime)s %(levelname)-7s %(name)s: %(message)s",
        )
        if self.log_format == "json":
            for handler in logging.getLogger().handlers:
                handler.setFormatter(JsonFormatter())
        logging.getLogger("watchfiles").setLevel("WARNING")  # it counts changes, which are named here anyway
