"""Tasks as they are stored and delivered."""

from __future__ import annotations

import asyncio
import logging
import re
from math import isfinite
from typing import Final

from msgspec.structs import replace

from jetflow.broker.parser import Message
from jetflow.broker.session import Session
from jetflow.broker.store import Stored
from jetflow.engine.identity import is_run_id
from jetflow.engine.tasks import NONE, Task
from jetflow.wire.headers import Header
from jetflow.wire.records import MalformedTask, parse_task
from jetflow.wire.subjects import run_of_task

FAMILIES: Final = 1000
"""Parents remembered of whose children the shared part is known, and as many kinds of root runs."""

_MESSAGE_ID: Final = f"\r\n{Header.MESSAGE_ID}: ".encode()
_OWN_HEADERS: Final = re.compile(rf"\r\n{Header.MESSAGE_ID}: [^\r]*\r\n\r\n".encode())
_FIRST: Final = len(b"NATS/1.0")
_RUN: Final = slice(-34, -2)
_FIRST_TURN: Final = ".0"

_ROOT_SUBJECT: Final = re.compile(r"jf\.[^.]+\.task\.([^.]+)\.([^.=]+)\.([0-9a-f]{32})\.-\.\3\.(0|[1-9][0-9]{0,8})")
_ROOT_HEADERS: Final = re.compile(
    rf"NATS/1\.0\r\n{Header.MESSAGE_ID}: [^\r\n]*\r\n"
    rf"({Header.PARENT_STEP}: [^\r\n]*\r\n{Header.VERSION}: [^\r\n]*\r\n{Header.DEPTH}: [^\r\n]*\r\n)"
    rf"{Header.DIGEST}: ([!-~]*)\r\n\r\n".encode()
)

_log = logging.getLogger("jetflow.worker")


def task_of(stored: Stored) -> Task | None:
    """Return the task that a stored message asks for, or None if it is malformed."""
    try:
        return parse_task(stored.subject, stored.headers, stored.body)
    except MalformedTask as error:
        _log.error("a stored task is malformed: %s", error)
        return None


def triggered_at(first: Stored) -> float:
    """Return when a run was asked for: the first task of a root run is put back when its tree is cancelled."""
    told = first.headers.get(Header.TRIGGERED, "")
    try:
        seconds = float(told)
    except ValueError:
        return first.time
    return seconds if isfinite(seconds) else first.time


async def find_first_task(session: Session, run: str, root: str = "*") -> Task | None:
    """Return the oldest task of a run. It is found faster where the root run of its tree is known."""
    names, store = session.names, session.store
    found: list[Stored] = []
    async for page in store.leader_subjects(names.tasks_stream, names.tasks_of_run(root, run)):
        messages = await asyncio.gather(*(store.leader_last(names.tasks_stream, subject) for subject in page))
        found += [message for message in messages if message is not None]
    tasks = [task_of(message) for message in sorted(found, key=lambda message: message.sequence)]
    return next((task for task in tasks if task is not None), None)


async def count_children(session: Session, root: str, run: str) -> int:
    """Return how many children of a run have tasks that are stored."""
    names = session.names
    children: set[bytes] = set()
    async for page in session.store.leader_subjects(names.tasks_stream, names.tasks_of_parent(root, run)):
        children.update(child for child in map(run_of_task, page) if child is not None)
    return len(children)


class TaskReader:
    """Reads tasks that are delivered. What the children of one step share is parsed once, and what root runs share.

    A child's own are its run id, at the end of the subject, and the last header, the message id. A root run's own are
    its subject, its message id, and the digest of its input. What has another form, because it has a key or comes from
    another client, is all read by `parse_task`.
    """

    def __init__(self) -> None:
        self._siblings: dict[tuple[str, bytes], Task] = {}
        self._roots: dict[bytes, Task] = {}

    def read(self, message: Message) -> Task:
        """Return the task that a message asks for.

        Raises:
            MalformedTask: see `parse_task`.
        """
        subject, headers = message.subject, message.raw_headers or b""
        shared = headers.find(_MESSAGE_ID)
        own = None if shared <= _FIRST else _OWN_HEADERS.fullmatch(headers, shared)
        run = subject[_RUN]
        if own is None:
            return self._of_root(message, headers)
        if not subject.endswith(_FIRST_TURN) or not is_run_id(run):
            return parse_task(subject, message.headers, message.data)
        family = subject[: _RUN.start], headers[:shared]
        sibling = self._siblings.get(family)
        if sibling is not None:
            return replace(sibling, run=run, input=message.data)
        task = parse_task(subject, message.headers, message.data)
        if task.parent != NONE:
            if len(self._siblings) == FAMILIES:
                self._siblings.clear()
            self._siblings[family] = task
        return task

    def _of_root(self, message: Message, headers: bytes) -> Task:
        named, told = _ROOT_SUBJECT.fullmatch(message.subject), _ROOT_HEADERS.fullmatch(headers)
        if named is None or told is None:
            return parse_task(message.subject, message.headers, message.data)
        workflow, step, run, turn = named.groups()
        shared, digest = told.groups()
        like = self._roots.get(shared)
        if like is None:
            like = parse_task(message.subject, message.headers, b"")
            if len(self._roots) == FAMILIES:
                self._roots.clear()
            self._roots[shared] = like
        return replace(
            like,
            workflow=workflow,
            step=step,
            root=run,
            run=run,
            turn=int(turn),
            digest=digest.decode(),
            input=message.data,
        )
