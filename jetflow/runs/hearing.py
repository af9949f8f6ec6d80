"""What may be read of what a run's steps say: chunks, progress and log lines. `jetflow.Run` is one who hears."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial

from jetflow.broker.session import Session
from jetflow.broker.store import Stored
from jetflow.engine.identity import is_name
from jetflow.engine.output import Newest, Writing
from jetflow.engine.tasks import Task
from jetflow.errors import InvalidQuery
from jetflow.runs.following import Following
from jetflow.runs.listening import Listening
from jetflow.runs.located import locate
from jetflow.wire.output import (
    LOG,
    OUT,
    PROGRESS,
    Chunk,
    LogLine,
    OutputNames,
    Progress,
    chunk_of,
    lines_of,
    place_of,
    progress_of,
)
from jetflow.wire.subjects import last_token


class Hearing:
    """Reads what the steps of one run say. Its children's steps are theirs."""

    def __init__(self, session: Session, id: str, task: Task | None) -> None:
        self._session = session
        self._task = task
        self.id = id

    async def stream(self, *, step: str | None = None, after: int = 0, follow: bool = True) -> AsyncGenerator[Chunk]:
        """Yield what the run's steps stream, from the beginning, in order, each once; it ends with the run.

        ``step`` is one step of it. ``after`` is the ``sequence`` of a chunk: it goes on behind that one. Where a step
        begins anew, in another attempt or turn, its chunks begin anew, and those of the earlier one come no more.
        Without ``follow`` it ends with what is stored now. Close it, as by ``contextlib.aclosing``, where you leave
        before the end.

        Raises:
            UnknownRun: no run with this id is stored, or it was deleted meanwhile.
            MalformedRecord: a chunk of another program cannot be read.
            BrokerTimeout: the broker does not answer.
        """
        async with aclosing(self._messages(OUT, step, after, follow=follow)) as messages:
            async for one in messages:
                yield chunk_of(last_token(one.subject), one.sequence, one.time, one.headers, one.body)

    async def logs(self, *, follow: bool = False, step: str | None = None, after: int = 0) -> AsyncGenerator[LogLine]:
        """Yield the lines that the run's steps have logged: by ``ctx.log``, or by ``logging`` (see below).

        What they log by the standard library is kept where their worker has the option ``keep_logs``. With ``follow``
        it goes on until the run has ended. ``after`` is the ``sequence`` of a line.

        Raises:
            The same as `stream`.
        """
        async with aclosing(self._messages(LOG, step, after, follow=follow)) as messages:
            async for one in messages:
                for line in lines_of(last_token(one.subject), one.sequence, one.headers, one.body):
                    yield line

    async def progress(self) -> dict[str, Progress]:
        """Return how far the run's steps say that they are, by step; those that have said nothing are not there.

        Raises:
            UnknownRun: no run with this id is stored.
            BrokerTimeout: the broker does not answer.
        """
        session = self._session.usable()
        root = await self._root(session)
        names = OutputNames(session.names)
        if not await session.optional.is_there(names.stream):
            return {}
        subject, newest = names.of_run(PROGRESS, self.id, root=root), Newest()
        found = await session.store.all_of(names.stream, subject)
        told = {last_token(one.subject): one for one in found if newest.takes(*_writing(one))}
        return {
            step: progress_of(step, one.sequence, one.time, one.headers, one.body) for step, one in sorted(told.items())
        }

    async def _messages(self, kind: str, step: str | None, after: int, *, follow: bool) -> AsyncGenerator[Stored]:
        if step is not None and not is_name(step):
            raise InvalidQuery(f"{step!r} is the name of no step")
        if after < 0:
            raise InvalidQuery(f"after={after}: the sequence of something that was read, or 0")
        session = self._session.usable()
        root = await self._root(session)
        subject = OutputNames(session.names).of_run(kind, self.id, root=root, step=step or "*")
        following = Following(session, self.id, self._task)
        ended = partial(following.outcome, None) if follow else None
        async with aclosing(Listening(session, subject, after).messages(ended)) as messages:
            async for one in messages:
                yield one

    async def _root(self, session: Session) -> str:
        return self._task.root if self._task is not None else (await locate(session, self.id)).root


def _writing(one: Stored) -> tuple[str, Writing]:
    return last_token(one.subject), place_of(one.headers).writing
