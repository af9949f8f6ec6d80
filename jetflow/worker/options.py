"""What can be set of a worker."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from jetflow.broker.topology import Placement, Retention
from jetflow.engine.labels import Label, checked_labels
from jetflow.errors import InvalidSetting
from jetflow.processes.pool import PoolOptions, cores
from jetflow.settings import settings_of

OPTIONS: Final = {
    **{name: name for name in ("slots", "ack_wait", "park_after", "max_waiting", "keep", "keep_failed", "keep_runs")},
    **{name: name for name in ("grace", "durable", "keep_logs", "replicas", "max_bytes", "health_port", "health_host")},
    "labels": "labels",
    "step_processes": "processes",
}
"""Settings of a worker, and what they are called in `WorkerOptions`."""

LAST_PORT: Final = 65535


class WorkerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What can be set of a worker. Times are seconds.

    - ``slots``: step bodies that run at once.
    - ``ack_wait``: silence after which a task is delivered to another worker.
    - ``guard``: whether a process of its own watches the worker, which keeps its tasks alive whatever the worker does,
      and has others get them at once when it dies; None is yes for `Worker.run` and no for one that is embedded. On
      Windows there is none.
    - ``park_after``: how long a step waits in memory before it is parked.
    - ``max_waiting``: steps that wait in memory at once; more are parked.
    - ``max_depth``: how deep runs may be nested.
    - ``max_descendants``: how many descendants a root run may have.
    - ``keep``: how long the tree of a finished root run is kept before it is deleted.
    - ``keep_failed``: the same for root runs that have not succeeded; None is as long as ``keep``.
    - ``keep_runs``: how many finished root runs are kept at most; the oldest go first.
    - ``grace``: how long running steps may go on when the worker is told to stop.
    - ``sweep_every``: pause between two sweeps for joins that nobody moved on.
    - ``unknown_step_grace``: how long a task of an unknown step is left to other workers.
    - ``connect_timeout``: how long to wait for a server at the start.
    - ``keep_logs``: whether what steps log by ``logging`` is kept with their runs for a week, for `Run.logs`.
    - ``durable``: set it where the server flushes to the disk before it acknowledges (``sync_interval: always``);
      records that are ready together are then written together.
    - ``replicas``: of each stream, when it is made.
    - ``max_bytes``: of each of the streams of tasks, records, values and the inbox, when it is made; a stream that is
      full holds work up, and loses nothing.
    - ``placement``: where streams are made, by cluster and tags.
    - ``health_port``: the port on which ``/livez``, ``/readyz`` and ``/metrics`` are answered, over HTTP; 0 takes a
      free one, None is none. Of several processes of one ``jetflow worker``, each takes the next one.
    - ``health_host``: the address that it listens on; ``0.0.0.0`` lets others reach it.
    - ``discoverable``: whether the worker answers as a NATS service, for `nats service ls`.
    - ``processes``: steps with ``runs_in="process"`` that run at once, each in a process; None is as many as there are
      cores that this process may use.
    - ``steps_per_process``: steps after which such a process is replaced by a new one.
    - ``labels``: what this worker has, for steps that require some: by name, or as ``"gpu,memory=64"``.
    - ``mb_per_process``: memory, in MB, above which it is replaced when its step has ended; None is no limit.

    Raises:
        ValueError: a value is out of range.
        TypeError: it is no number.
    """

    slots: int = 100
    ack_wait: float = 5.0
    guard: bool | None = None
    park_after: float = 60.0
    max_waiting: int = 1000
    max_depth: int = 1000
    max_descendants: int = 1_000_000
    keep: float = 7 * 24 * 3600.0
    keep_failed: float | None = None
    keep_runs: int = 1_000_000
    grace: float = 30.0
    sweep_every: float = 30.0
    unknown_step_grace: float = 10.0
    connect_timeout: float = 5.0
    replicas: int = 1
    durable: bool = False
    keep_logs: bool = False
    max_bytes: int | None = None
    placement: Placement = Placement()
    health_port: int | None = None
    health_host: str = "127.0.0.1"
    discoverable: bool = True
    processes: int | None = None
    steps_per_process: int = 1000
    mb_per_process: float | None = None
    labels: Mapping[str, Label] | str | None = None

    def __post_init__(self) -> None:
        for name in (
            "slots",
            "ack_wait",
            "sweep_every",
            "connect_timeout",
            "replicas",
            "max_depth",
            "max_descendants",
            "keep",
            "keep_failed",
            "keep_runs",
            "max_bytes",
            "processes",
            "steps_per_process",
            "mb_per_process",
        ):
            value: float | None = self._number(name)
            if value is not None and value <= 0:
                raise ValueError(f"WorkerOptions({name}={value!r}): above 0")
        for name in ("park_after", "max_waiting", "grace", "unknown_step_grace"):
            if (self._number(name) or 0) < 0:
                raise ValueError(f"WorkerOptions({name}={getattr(self, name)!r}): not below 0")
        if not 0 <= (self._number("health_port") or 0) <= LAST_PORT:
            raise ValueError(f"WorkerOptions(health_port={self.health_port!r}): from 0 to {LAST_PORT}")
        try:
            checked_labels(self.labels)
        except (TypeError, ValueError) as error:
            raise ValueError(f"WorkerOptions(labels={self.labels!r}): such as gpu,memory=64 ({error})") from None

    def _number(self, name: str) -> float | None:
        value: Any = getattr(self, name)  # it comes from the user
        if value is not None and not isinstance(value, int | float):
            raise TypeError(f"WorkerOptions({name}={value!r}): a number")
        return value

    @classmethod
    def from_settings(cls) -> WorkerOptions:
        """Return what the environment and the project's files say, and the defaults for the rest.

        Raises:
            InvalidSetting: a variable or a file says what a setting cannot be.
        """
        found = settings_of()
        values = {OPTIONS[name]: found[name] for name in OPTIONS if name in found}
        for option, said in values.items():
            try:
                cls(**{option: said.value})
            except ValueError as error:
                rule = str(error).rpartition(": ")[2]
                raise InvalidSetting(said.origin, said.value, f"it must be {rule}") from None
        return cls(**{option: said.value for option, said in values.items()})

    def pool(self) -> PoolOptions:
        """Return how many processes the steps have that run in some, and when one is replaced."""
        size = cores() if self.processes is None else self.processes
        return PoolOptions(size=size, steps=self.steps_per_process, memory=self.mb_per_process)

    def retention(self) -> Retention:
        """Return how streams are made that do not exist yet."""
        return Retention(replicas=self.replicas, max_bytes=self.max_bytes, placement=self.placement)
