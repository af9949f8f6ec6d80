"""Names, streams and bodies of the bare program."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from nats.aio.client import Client

TASKS: Final = "BARE_tasks"
RESULTS: Final = "BARE_results"
CONSUMER: Final = "workers"
ECHO: Final = "bare.echo"

ROOT: Final = "root"
"""Stands for the parent of a task that came from outside."""


class Node(msgspec.Struct, omit_defaults=True):
    """A task's body. A node of level 0 is a leaf: its result is its index. Others sum the results of their children.

    ``width`` is the number of children, ``steps`` how many more steps the run has, one after the other.
    """

    index: int = 0
    level: int = 0
    width: int = 0
    steps: int = 1
    collect: bool = True


encode = msgspec.json.Encoder().encode
decode_node = msgspec.json.Decoder(Node).decode
decode_result = msgspec.json.Decoder(int).decode


def task_subject(parent: str, run: str) -> str:
    """Where the task of a run is published."""
    return f"bare.task.{parent}.{run}"


def result_subject(parent: str, run: str) -> str:
    """Where the result of a run is stored, once."""
    return f"bare.result.{parent}.{run}"


def live_results(parent: str) -> str:
    """Where the server republishes the results of a parent's children."""
    return f"bare.live.{parent}.*"


async def make_streams(client: Client) -> None:
    """Make the two streams and the consumer."""
    await ask(
        client,
        f"STREAM.CREATE.{TASKS}",
        {"name": TASKS, "subjects": ["bare.task.>"], "retention": "limits", "storage": "file"},
    )
    await ask(
        client,
        f"STREAM.CREATE.{RESULTS}",
        {
            "name": RESULTS,
            "subjects": ["bare.result.>"],
            "retention": "limits",
            "storage": "file",
            "max_msgs_per_subject": 1,
            "discard": "new",
            "discard_new_per_subject": True,
            "republish": {"src": "bare.result.>", "dest": "bare.live.>"},
        },
    )
    config = {
        "durable_name": CONSUMER,
        "name": CONSUMER,
        "ack_policy": "explicit",
        "deliver_policy": "all",
        "max_ack_pending": -1,
        "max_waiting": 512,
    }
    await ask(client, f"CONSUMER.CREATE.{TASKS}.{CONSUMER}", {"stream_name": TASKS, "config": config})


async def ask(client: Client, operation: str, body: Any = None) -> dict[str, Any]:
    """Ask the JetStream API.

    Raises:
        RuntimeError: it answered with an error.
    """
    data = b"" if body is None else encode(body)
    answer: dict[str, Any] = msgspec.json.decode((await client.request(f"$JS.API.{operation}", data, timeout=10)).data)
    if "error" in answer:
        raise RuntimeError(f"{operation}: {answer['error']}")
    return answer
