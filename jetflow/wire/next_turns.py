"""The next turn of a stored task, made of its headers as they stand: where many steps are woken, none is read.

That goes for headers as jetflow writes them, in their order, and for steps without levels. Of others nothing is made
here: such a task is read, and written anew.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from jetflow.engine.tasks import NONE
from jetflow.wire.headers import Header

_SUBJECT: Final = re.compile(
    r"(jf\.[^.]+)\.task\.[^.]+\.([^.=]+)\.([0-9a-f]{32})\.(-|[0-9a-f]{32})\.([0-9a-f]{32})\.(0|[1-9][0-9]{0,8})"
)
_HEADERS: Final = re.compile(
    (
        rf"NATS/1\.0\r\n{Header.MESSAGE_ID}: [^\r\n]*\r\n"
        rf"({Header.PARENT_STEP}: ([A-Za-z0-9_-]+)\r\n(?:(?:Jf-(?!Attempt)|traceparent)[A-Za-z-]*: [^\r\n]*\r\n)*)"
        rf"(?:{Header.ATTEMPT}: [0-9]+\r\n)?Nats-Stream: "
    ).encode()
)


class NextTurn(NamedTuple):
    """A turn to publish, and where the outcome of its run would stand."""

    subject: str
    headers: bytes
    outcome: str
    root: str
    run: str
    step: str
    turn: int


def next_turn(subject: str, headers: bytes, tried: int) -> NextTurn | None:
    """Return what comes behind a task that a direct get has brought: ``headers`` are as they came.

    ``tried`` is how many attempts were made before. None if the task has another form.
    """
    named, told = _SUBJECT.fullmatch(subject), _HEADERS.match(headers)
    if named is None or told is None:
        return None
    prefix, step, root, parent, run, turn = named.groups()
    kept, parent_step = told.groups()
    if parent == NONE and (root != run or parent_step != b"-"):
        return None
    following = int(turn) + 1
    attempt = f"{Header.ATTEMPT}: {tried}\r\n" if tried else ""
    return NextTurn(
        f"{subject[: -len(turn)]}{following}",
        f"NATS/1.0\r\n{Header.MESSAGE_ID}: {run}.{step}.{following}\r\n".encode() + kept + f"{attempt}\r\n".encode(),
        f"{prefix}.run.{root}.{parent}.{parent_step.decode()}.{run}",
        root,
        run,
        step,
        following,
    )
