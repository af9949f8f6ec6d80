"""What a step is given: its input, the outputs of the steps before it, and the errors of a run that has failed."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from jetflow.broker.session import Session
from jetflow.broker.store import collect
from jetflow.engine.graph import Graph
from jetflow.engine.tasks import Failure, Outcome, Task
from jetflow.runs import points
from jetflow.runs.values import get, with_output
from jetflow.wire.records import decode_attempt, decode_outcome
from jetflow.wire.subjects import last_token


class Inputs:
    """Reads what steps are given and their tasks do not hold."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def large(self, root: str, reference: str) -> bytes:
        """Read an input that is too large for its task.

        Raises:
            LostValue: it is not there any more.
        """
        points.before("read_input")
        body = await get(self._session, root, reference)
        points.after("read_input")
        return body

    async def outputs(self, task: Task, graph: Graph) -> dict[str, Outcome]:
        """Read the outputs of the steps before this one: of all of them, for the one that runs behind a success."""
        if task.step == graph.on_success:
            return await self._outputs_of_all(task, graph)
        before = graph.ancestors.get(task.step)
        return await self._outputs_of(task, before) if before else {}

    async def _outputs_of_all(self, task: Task, graph: Graph) -> dict[str, Outcome]:
        names, store = self._session.names, self._session.store
        outputs = await self._outputs_of(task, graph.upstream)
        if len(graph.sinks) == 1 and graph.sinks[0] not in outputs:  # its end is the run's
            ended = await store.leader_last(names.records_stream, names.run_of(task))
            if ended is not None:
                outcome = decode_outcome(ended.body)
                outputs[graph.sinks[0]] = await with_output(self._session, task.root, outcome)
        return outputs

    async def _outputs_of(self, task: Task, before: Iterable[str]) -> dict[str, Outcome]:
        names, store = self._session.names, self._session.store
        join = task.join
        points.before("read_outputs_before")
        subjects = [names.step(replace(join, step=step)) for step in before]
        stored = {message.subject: message for message in await collect(store.many(names.records_stream, subjects))}
        for subject in subjects:
            if subject not in stored:  # a replica that lags: the leader has it, or this task would not exist
                message = await store.leader_last(names.records_stream, subject)
                if message is not None:
                    stored[subject] = message
        outputs = {
            last_token(subject): await with_output(self._session, task.root, decode_outcome(message.body))
            for subject, message in stored.items()
        }
        points.after("read_outputs_before")
        return outputs

    async def errors(self, task: Task) -> list[Failure]:
        """Read why a run has failed: the errors of its steps first, then those of the attempts before."""
        names, store = self._session.names, self._session.store
        points.before("read_errors")
        ended = await store.leader_last(names.records_stream, names.run_of(task))
        told = () if ended is None else decode_outcome(ended.body).failures
        tried = await collect(store.pages(names.records_stream, names.attempts_of_run(task.root, task.run)))
        points.after("read_errors")
        earlier = [decode_attempt(stored.body).error for stored in tried]
        return [*told, *(error for error in earlier if error is not None)]
