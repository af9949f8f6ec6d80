"""What can be started: a workflow by object or by name, and the message that starts a root run of it."""

from __future__ import annotations

from functools import lru_cache
from time import time
from typing import Any, NamedTuple

import msgspec
from uuid_utils import uuid7

from jetflow.broker.session import Session
from jetflow.engine.identity import checked_key, keyed_root_id
from jetflow.engine.tasks import NONE, Task
from jetflow.errors import InvalidInput, KeyConflict, PayloadTooLarge, PermissionDenied, RecentlyDeleted
from jetflow.runs.marks import was_deleted
from jetflow.runs.values import check_size, is_large, put
from jetflow.wire.codec import ANY, Codec
from jetflow.wire.fitting import misfit
from jetflow.wire.headers import Header
from jetflow.wire.metadata import METADATA_LIMIT
from jetflow.wire.records import header_block, task_headers
from jetflow.workflow import Workflow, checked_workflow


class Target(NamedTuple):
    """A workflow to start: its first step and version, and how to write its input and read its output."""

    workflow: str
    first: str
    version: str
    input: Codec[Any]
    output: Codec[Any]
    deadline: float | None = None
    """Seconds that a run may take in all."""
    schema: bytes | None = None
    """The JSON Schema of the input, where nothing else is known of it."""
    levels: tuple[str, ...] = ()
    """The levels that its runs may have."""

    def written(self, value: Any) -> bytes:
        """Return an input as JSON, checked against its type; where that is not at hand, by its schema.

        Raises:
            InvalidInput: it does not fit, or JSON cannot hold it.
        """
        body = self.input.encode(value)
        why = None if self.schema is None else misfit(msgspec.json.decode(body), _parsed(self.schema))
        if why is not None:
            raise InvalidInput(f"input of workflow {self.workflow!r}: {why}")
        return body


async def resolve(session: Session, workflow: Workflow[Any, Any] | str, *, timeout: float | None = None) -> Target:
    """Return what is needed to start a run of ``workflow``. ``timeout`` is seconds for what has to be stored first.

    Raises:
        BrokerTimeout: the server did not take that in time.
        UnknownWorkflow: a name that nobody has declared.
        InvalidDeclaration: it is neither a workflow nor a name.
        MalformedRecord: what is declared under the name cannot be read.
    """
    if isinstance(workflow, Workflow):
        await session.registry.ensure(workflow.declaration, timeout=timeout)
        graph, deadline = workflow.graph, workflow.deadline
        return Target(
            workflow.name, graph.first, graph.version, workflow.input, workflow.output, deadline, levels=graph.levels
        )
    if not isinstance(workflow, str):  # pyright: ignore[reportUnnecessaryIsInstance] - it comes from the user
        checked_workflow("what is started", workflow)
    declaration = await session.registry.find(workflow)
    schema = bytes(declaration.input)
    known = _input_by_name(workflow, schema)
    graph, deadline = declaration.graph, declaration.deadline
    return Target(workflow, graph.first, declaration.version, known, ANY, deadline, schema, graph.levels)


@lru_cache(maxsize=256)
def _parsed(schema: bytes) -> Any:
    return msgspec.json.decode(schema)


@lru_cache(maxsize=256)
def _input_by_name(workflow: str, schema: bytes) -> Codec[Any]:
    return Codec(Any, f"input of workflow {workflow!r}", schema=schema)


def root_task(
    target: Target,
    body: bytes,
    *,
    key: str | None,
    metadata: bytes | None,
    run: str | None = None,
    trace: str | None,
    level: str | None = None,
) -> Task:
    """Return the first task of a root run. ``body`` is what the target's input has written.

    Raises:
        InvalidInput: the key is not a str.
    """
    if key is not None:
        checked_key("a run", key)
    if run is None:
        run = uuid7().hex if key is None else keyed_root_id(target.workflow, key)
    return Task(
        workflow=target.workflow,
        step=target.first,
        root=run,
        parent=NONE,
        run=run,
        turn=0,
        parent_step=NONE,
        version=target.version,
        depth=0,
        digest=target.input.digest(body),
        input=body,
        key=key,
        metadata=metadata,
        trace=trace,
        deadline=None if target.deadline is None else time() + target.deadline,
        level=level,
    )


def check_metadata(task: Task) -> None:
    """Check that the metadata of a task fit where they have to.

    Raises:
        PayloadTooLarge: they do not.
    """
    if len(task.metadata or b"") > METADATA_LIMIT:
        raise PayloadTooLarge("the metadata of a run", len(task.metadata or b""), METADATA_LIMIT)


async def ask_for_root(session: Session, task: Task, *, timeout: float | None) -> None:
    """Have a worker start a root run, as any NATS client may: for a user who may not store tasks.

    The run has the same id. That its key stands for another input is not told to whoever asks.

    Raises:
        PayloadTooLarge: the input is larger than one message may be.
        BrokerTimeout, BrokerRefused, PermissionDenied: the server did not take it.
    """
    check_metadata(task)
    subject = session.names.inbox_trigger(task.workflow)
    headers = asking_headers(task)
    if task.not_before is not None:
        headers[Header.NOT_BEFORE] = f"{task.not_before:.3f}"
    await session.publisher.store(subject, task.input, header_block(headers), timeout=timeout)


def asking_headers(task: Task) -> dict[str, str]:
    """Return the headers by which workers are asked for a root run. A key that no header can hold is left out."""
    headers = {Header.RUN: task.run}
    if task.key is not None and task.key.isprintable() and task.key == task.key.strip():
        headers[Header.KEY] = task.key
    if task.metadata is not None:
        headers[Header.METADATA] = task.metadata.decode()
    if task.trace is not None:
        headers[Header.TRACE] = task.trace
    if task.level is not None:
        headers[Header.LEVEL] = task.level
    return headers


async def trigger_root(session: Session, task: Task, *, timeout: float | None) -> bool | None:
    """Start a root run, or have a worker do it where this user may not. ``timeout`` is seconds.

    Returns False if the run existed, and None where only a worker can tell.

    Raises:
        The same as `start_root`, and `ask_for_root`.
    """
    if not session.only_asks:
        try:
            return await start_root(session, task, timeout=timeout)
        except PermissionDenied:
            await ask_for_root(session, task, timeout=timeout)
            session.only_asks = True
            return None
    await ask_for_root(session, task, timeout=timeout)
    return None


async def start_root(session: Session, task: Task, *, timeout: float | None) -> bool:
    """Publish the first task of a root run. Returns False if the run existed. ``timeout`` is seconds.

    Raises:
        KeyConflict: it existed with another input.
        RecentlyDeleted: it existed, and was deleted.
        PayloadTooLarge: the input is larger than the server accepts.
        BrokerTimeout, BrokerRefused: the server did not take it.
    """
    if is_large(session, task.input):
        check_size(f"the input of a run of {task.workflow!r}", task.input)
        value = await put(session, task.root, task.input, timeout=timeout)
        task = msgspec.structs.replace(task, input=b"", value=value)
    check_metadata(task)
    if task.key is not None and await was_deleted(session, task.run):
        raise RecentlyDeleted(task.workflow, task.key, task.run)
    subject = session.names.task_of(task)
    headers = header_block(task_headers(task, f"{task.run}.{task.digest}"))
    stored = None
    while stored is None:
        receipt = await session.publisher.store(subject, task.input, headers, timeout=timeout)
        if receipt.stored or receipt.sequence:  # stored now, or recognised by its message id: the same key and input
            return receipt.stored
        stored = await session.store.leader_last(session.names.tasks_stream, subject)
    digest = stored.headers.get(Header.DIGEST, "")
    if digest and digest != task.digest:
        raise KeyConflict(task.workflow, task.key or "", task.run, digest, task.digest)
    return False
