"""The options that several commands share, and the error for those that make no sense."""

from __future__ import annotations

import logging
from dataclasses import dataclass, fields
from typing import Annotated, Any, Final, Literal, TypeAlias

from cyclopts import Parameter

from jetflow.errors import JetflowError
from jetflow.logs import JsonFormatter
from jetflow.settings import ARGUMENT, NAMED, Found, settings_of
from jetflow.worker.options import OPTIONS, WorkerOptions

LOG_LEVELS: Final = ("debug", "info", "warning", "error")
LOG_FORMATS: Final = ("text", "json")

FLAG: Final = Parameter(negative=(), show_default=False)
"""What is off unless it is given."""

AsJson: TypeAlias = Annotated[bool, FLAG, Parameter(name="--json", help="Print JSON.")]
Verbose: TypeAlias = Annotated[bool, FLAG, Parameter(name="--verbose", help="Print tracebacks of errors, too.")]


def default_of(name: str) -> Parameter:
    """Have the help show the default of a setting; what is in force says `jetflow config`."""
    return Parameter(show_default=lambda _: str(NAMED[name].default))


class UsageError(JetflowError, ValueError):
    """The command line asks for something that does not exist or does not fit."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class WorkerFlags:
    """What can be set of a worker on the command line. Times are seconds; None was not given."""

    slots: Annotated[int | None, default_of("slots"), Parameter(help="Step bodies that run at once.")] = None
    ack_wait: Annotated[
        float | None,
        default_of("ack_wait"),
        Parameter(help="Seconds of silence after which another worker gets a task."),
    ] = None
    park_after: Annotated[
        float | None, default_of("park_after"), Parameter(help="Seconds that a step waits for children in memory.")
    ] = None
    max_waiting: Annotated[
        int | None, default_of("max_waiting"), Parameter(help="Steps that wait for children in memory at once.")
    ] = None
    keep: Annotated[
        float | None, default_of("keep"), Parameter(help="Seconds that a finished root run is kept, with its tree.")
    ] = None
    keep_failed: Annotated[
        float | None, Parameter(help="The same for root runs that have not succeeded; as --keep if it is not given.")
    ] = None
    keep_runs: Annotated[
        int | None, default_of("keep_runs"), Parameter(help="Finished root runs that are kept at most.")
    ] = None
    grace: Annotated[
        float | None, default_of("grace"), Parameter(help="Seconds that running steps may go on at the end.")
    ] = None
    step_processes: Annotated[
        int | None,
        Parameter(help='Steps with runs_in="process" that run at once; as many as cores if it is not given.'),
    ] = None
    durable: Annotated[
        bool | None,
        Parameter(negative=(), help="For servers with sync_interval: always."),
    ] = None
    replicas: Annotated[
        int | None, default_of("replicas"), Parameter(help="Replicas of each stream, when it is made.")
    ] = None
    max_bytes: Annotated[
        int | None, Parameter(help="Bytes of each stream that refuses what is new, when it is made.")
    ] = None
    health_port: Annotated[
        int | None,
        Parameter(help="Answer /livez, /readyz and /metrics there; each further process takes the next port."),
    ] = None
    health_host: Annotated[
        str | None, default_of("health_host"), Parameter(help="The address that it listens on; 0.0.0.0 for probes.")
    ] = None
    labels: Annotated[str | None, Parameter(help="What it has, for steps that require some: gpu,memory=64.")] = None
    log_format: Annotated[
        Literal["text", "json"] | None, default_of("log_format"), Parameter(help="How lines of the log are written.")
    ] = None
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"] | None,
        default_of("log_level"),
        Parameter(help="What to log on stderr."),
    ] = None

    def given(self) -> dict[str, object]:
        """Return what was given, by setting."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def options(self) -> WorkerOptions:
        """Return the worker's options.

        Raises:
            UsageError: a value is out of range.
            InvalidSetting: a variable or a file says what a setting cannot be.
        """
        found = settings_of(self.given())
        values: dict[str, Any] = {}
        for name, option in OPTIONS.items():
            if name not in found:
                continue
            value = found[name].value
            try:
                WorkerOptions(**{option: value})
            except ValueError as error:
                rule = str(error).rpartition(": ")[2]
                raise UsageError(f"{told(name, found[name])}: it must be {rule}") from None
            values[option] = value
        return WorkerOptions(**values)

    def arguments(self) -> list[str]:
        """Return the command line that says the same."""
        return [
            part
            for field in fields(self)
            if getattr(self, field.name) is not None
            for part in _as_option(field.name, getattr(self, field.name))
        ]

    def start_logging(self) -> None:
        """Log to stderr from now on."""
        level, form = self._one_of("log_level", LOG_LEVELS), self._one_of("log_format", LOG_FORMATS)
        logging.basicConfig(level=level.upper(), format="%(asctime)s %(levelname)-7s %(name)s: %(message)s")
        if form == "json":
            for handler in logging.getLogger().handlers:
                handler.setFormatter(JsonFormatter())

    def _one_of(self, name: str, allowed: tuple[str, ...]) -> str:
        found = settings_of(self.given())[name]
        if found.value not in allowed:
            raise UsageError(f"{told(name, found)}: it must be one of {', '.join(allowed)}")
        return str(found.value)


def _as_option(name: str, value: object) -> tuple[str, ...]:
    option = f"--{name.replace('_', '-')}"
    return (option,) if value is True else (option, str(value))


def told(name: str, found: Found) -> str:
    """Return a setting and its value as they are named to whoever has set it."""
    where = f"--{name.replace('_', '-')}" if found.origin == ARGUMENT else found.origin
    where = where if where in (f"--{name.replace('_', '-')}", NAMED[name].variable) else f"{name} in {where}"
    return f"{where} is {found.value}"
