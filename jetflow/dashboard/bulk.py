"""Cancelling, deleting or running again many runs: they are found and counted, and, when told to, done one by one.

What was found is what is done: the ids are kept, so that no run that comes later is touched. A job lives in this
process, and is forgotten an hour after it has ended, or was left alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from secrets import token_hex
from time import time
from typing import Any, Final, Literal, TypeAlias

import msgspec

from jetflow.client import Client
from jetflow.dashboard.problems import Problem, problem_of
from jetflow.errors import AlreadyRerun, BrokerError, JetflowError, NothingToRerun, UnknownRun

MOST_RUNS: Final = 200_000
"""Runs that one job may be for."""

SAMPLES: Final = 10
"""Runs that a job shows."""

AT_ONCE: Final = 8
"""Runs that a job works on at once."""

FORGOTTEN_AFTER: Final = 3600.0
"""Seconds for which a job that does nothing is kept."""

MOST_JOBS: Final = 100

State: TypeAlias = Literal["counting", "ready", "running", "done", "aborted", "failed"]
BulkAction: TypeAlias = Literal["cancel", "delete", "rerun"]
Found: TypeAlias = AsyncGenerator[Sequence[Any]]
"""Pages of rows, each with an ``id``."""

ENDED: Final = ("done", "aborted", "failed")

GetClient: TypeAlias = Callable[[], Awaitable[Client]]


class JobTold(msgspec.Struct, frozen=True, kw_only=True):
    """Where a job stands. ``found`` runs are what it is for; ``skipped`` had ended, or were gone.

    Of runs that are run again, those were skipped that had nothing to be run again, or were run again before.
    ``at`` is when what it is for was settled. ``samples`` are rows of runs or of children, or ids where ids were given.
    """

    job: str
    action: BulkAction
    state: State
    at: float
    found: int = 0
    done: int = 0
    failed: int = 0
    skipped: int = 0
    samples: tuple[Any, ...] = ()
    problem: dict[str, Any] | None = None


class Job:
    """One action on many runs. ``changed`` is set, and replaced, whenever what it tells has changed."""

    def __init__(self, action: BulkAction, user: str) -> None:
        self.id: str = token_hex(8)
        self.action: BulkAction = action
        self.user: str = user
        self.state: State = "counting"
        self.ids: list[str] = []
        self.changed: asyncio.Event = asyncio.Event()
        self.touched: float = time()
        self.task: asyncio.Task[None] | None = None
        self._at = time()
        self._samples: list[Any] = []
        self._done = self._failed = self._skipped = 0
        self._problem: dict[str, Any] | None = None

    @property
    def told(self) -> JobTold:
        """Where it stands."""
        return JobTold(
            job=self.id,
            action=self.action,
            state=self.state,
            at=self._at,
            found=len(self.ids),
            done=self._done,
            failed=self._failed,
            skipped=self._skipped,
            samples=tuple(self._samples),
            problem=self._problem,
        )

    async def states(self, _: Client) -> AsyncGenerator[JobTold]:
        """Yield where it stands, until it has ended."""
        while True:
            changed = self.changed
            yield self.told
            if self.state in ENDED:
                return
            await changed.wait()

    async def find(self, pages: Found) -> None:
        """Take the runs that are found."""
        try:
            seen: set[str] = set()
            async with aclosing(pages) as read:
                async for page in read:
                    new = [row for row in page if row.id not in seen]
                    seen.update(row.id for row in new)
                    self._samples += new[: SAMPLES - len(self._samples)]
                    self.ids += [row.id for row in new]
                    self.tell()
                    if len(self.ids) > MOST_RUNS:
                        raise Problem(
                            *(400, "too-many", f"more than {MOST_RUNS:,} runs match"),
                            "narrow the filter, as by a time, and do the rest afterwards",
                        )
            self.state = "ready"
        except JetflowError as error:
            self._fail(error)
        self._at = time()
        self.tell()

    def take(self, ids: Sequence[str]) -> None:
        """Take runs that were chosen."""
        self.ids = list(dict.fromkeys(ids))
        self._samples = self.ids[:SAMPLES]
        self.state = "ready"

    async def work(self, client: Client) -> None:
        """Do it to all of them. One that fails stops no other; a broker that is away stops all."""
        self.state = "running"
        left = iter(self.ids)

        async def some() -> None:
            for run_id in left:
                await self._one(client, run_id)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(AT_ONCE, len(self.ids))):
                    group.create_task(some())
            self.state = "done"
        except* JetflowError as errors:
            self._fail(errors.exceptions[0])
        self.tell()

    async def _one(self, client: Client, run_id: str) -> None:
        try:
            changed = await self._done_to(client, run_id)
        except (UnknownRun, AlreadyRerun, NothingToRerun):
            changed = False
        except BrokerError:
            raise
        except JetflowError as error:
            self._failed += 1
            self._problem = self._problem or problem_of(error).body()
            self.tell()
            return
        if changed:
            self._done += 1
        else:
            self._skipped += 1
        self.tell()

    async def _done_to(self, client: Client, run_id: str) -> bool:
        """Do it to one run, and tell whether that has changed anything."""
        if self.action == "cancel":
            return await client.cancel(run_id)
        if self.action == "rerun":
            return bool((await client.rerun(run_id)).created)
        await client.delete(run_id)
        return True

    async def abort(self) -> None:
        """Stop it. What is done stays done."""
        if self.task is not None and not self.task.done():
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)
        if self.state in ("counting", "ready", "running"):
            self.state = "aborted"
            self.tell()

    def tell(self) -> None:
        """Wake those who look at it."""
        self.touched = time()
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()

    def _fail(self, error: BaseException) -> None:
        self.state = "failed"
        self._problem = problem_of(error).body() if isinstance(error, Exception) else None


class Jobs:
    """The jobs of one dashboard."""

    def __init__(self, client: GetClient) -> None:
        self._client = client
        self._jobs: dict[str, Job] = {}

    def find(self, job_id: str) -> Job:
        """Return a job.

        Raises:
            Problem: there is none of this id.
        """
        job = self._jobs.get(job_id)
        if job is None:
            raise Problem(
                404, "unknown-job", f"there is no job {job_id!r}", "jobs end with the dashboard's process: begin anew"
            )
        return job

    def plan(self, action: BulkAction, user: str, runs: Sequence[str] | Found) -> Job:
        """Begin to find what a job is for. It does nothing before it is started."""
        self._forget()
        job = Job(action, user)
        self._jobs[job.id] = job
        if isinstance(runs, Sequence):
            job.take(runs)
        else:
            job.task = asyncio.get_running_loop().create_task(job.find(runs), name=f"jetflow bulk {job.id}")
        return job

    async def start(self, job: Job) -> None:
        """Begin to do it.

        Raises:
            Problem: it is not ready, or was started before.
        """
        if job.state != "ready":
            raise Problem(
                409, "not-ready", f"the job {job.id} is {job.state}", "a job is started once, when all is counted"
            )
        client = await self._client()
        job.task = asyncio.get_running_loop().create_task(job.work(client), name=f"jetflow bulk {job.id}")
        job.state = "running"
        job.tell()

    def _forget(self) -> None:
        idle = [job for job in self._jobs.values() if job.task is None or job.task.done()]
        too_old = [job for job in idle if time() - job.touched > FORGOTTEN_AFTER]
        too_many = sorted(idle, key=lambda job: job.touched)[: max(0, len(self._jobs) - MOST_JOBS + 1)]
        for job in (*too_old, *too_many):
            self._jobs.pop(job.id, None)

    async def close(self) -> None:
        """Stop all jobs. Safe to call twice."""
        for job in self._jobs.values():
            await job.abort()

    @property
    def all(self) -> Mapping[str, Job]:
        """The jobs by their ids."""
        return self._jobs
