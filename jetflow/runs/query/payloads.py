"""Inputs, outputs and recorded values of a run, as they are stored: the JSON, byte by byte, however large."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from jetflow.broker.session import Session
from jetflow.engine.identity import once_token
from jetflow.engine.tasks import Outcome, StepAddress
from jetflow.runs.located import Located
from jetflow.runs.values import LostValue, chunks, size_of
from jetflow.wire.records import decode_outcome


class Payload:
    """One value of a run. ``size`` is bytes of JSON; ``digest`` is what its reference or its run says, or empty."""

    def __init__(
        self, session: Session, root: str, workflow: str, *, body: bytes = b"", reference: str | None, digest: str = ""
    ) -> None:
        self._session = session
        self._root = root
        self._body = body
        self._reference = reference
        self.workflow: str = workflow
        self.size: int = len(body)
        self.digest: str = digest if reference is None else reference.partition("-")[0]

    async def measured(self) -> Payload:
        """Return itself, with the size of a large one asked for.

        Raises:
            LostValue: it is not stored any more.
        """
        if self._reference is not None:
            self.size = await size_of(self._session, self._root, self._reference)
            if not self.size:
                raise LostValue(f"the value {self.digest} of the tree {self._root} is gone")
        return self

    async def chunks(self) -> AsyncGenerator[bytes]:
        """Yield it in pieces.

        Raises:
            LostValue: it is not stored any more, or was changed. That may come behind the last piece.
        """
        if self._reference is None:
            yield self._body
            return
        async with aclosing(chunks(self._session, self._root, self._reference)) as read:
            async for chunk in read:
                yield chunk


async def input_of(session: Session, located: Located) -> Payload | None:
    """Return the input of a run; None where its task is gone."""
    task = located.first
    if task is None:
        return None
    payload = Payload(session, located.root, task.workflow, body=task.input, reference=task.value, digest=task.digest)
    return await payload.measured()


async def output_of(session: Session, located: Located, step: str | None) -> Payload | None:
    """Return the output of a run, or of one step of it; None where there is none: it goes on, or has failed."""
    outcome = located.outcome
    if step is not None:
        address = StepAddress(located.root, located.run, step)
        stored = await session.store.last(session.names.records_stream, session.names.step(address))
        if stored is not None:
            outcome = decode_outcome(stored.body)
        elif outcome is None or outcome.step != step:
            return None
    return await _of_outcome(session, located, outcome)


async def _of_outcome(session: Session, located: Located, outcome: Outcome | None) -> Payload | None:
    if outcome is None or outcome.status != "succeeded":
        return None
    payload = Payload(session, located.root, located.workflow, body=bytes(outcome.output), reference=outcome.value)
    return await payload.measured()


async def once_of(session: Session, located: Located, step: str, name: str) -> Payload | None:
    """Return a value that a step of a run has recorded with ``ctx.once``; None where it has not."""
    subject = session.names.once(StepAddress(located.root, located.run, step), once_token(name))
    stored = await session.store.last(session.names.records_stream, subject)
    return (
        None if stored is None else Payload(session, located.root, located.workflow, body=stored.body, reference=None)
    )
