"""Trying each action as each user on real servers; ``python -m tests.docker.rights`` prints the table anew."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import sys
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import nats
import nats.errors
import orjson
from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg

from jetflow.broker.access import access_of
from jetflow.broker.connection import Connection
from jetflow.broker.layout import StepConsumer, set_up, set_up_consumers
from jetflow.server import NatsServer
from jetflow.wire.roles import ROLES
from jetflow.wire.subjects import Subjects
from tests.docker.actions import ACTIONS, CHILD, VICTIM, Action
from tests.docker.servers import server_of, text_of, url, variables

TENANTS: Final = ("acme", "globex")
ANSWERED_WITHIN: Final = 5.0


class Who(NamedTuple):
    """A column of the table: a role, and the configuration that the server has."""

    title: str
    role: str
    configuration: str


COLUMNS: Final = (
    *(Who(role, role, "tenants.conf") for role in ROLES),
    Who("operator, own account", "operator", "accounts.conf"),
)


class User:
    """A connection of one user, and what the server has refused it."""

    def __init__(self) -> None:
        self.client = NatsClient()
        self.refused: list[str] = []

    async def connect(self, server: NatsServer, name: str, inbox: str) -> None:
        async def on_error(error: Exception) -> None:
            self.refused.append(str(error).lower())

        await self.client.connect(url(server, name), error_cb=on_error, inbox_prefix=inbox.encode())

    async def may(self, action: Action) -> bool:
        """Try an action, and tell whether the server lets it pass."""
        self.refused.clear()
        if action.hears:
            subscription = await self.client.subscribe(action.hears)
            await self._settled()
            if not self.refused:
                await subscription.unsubscribe()
            return not self.refused
        answer = await self._answer(action)
        if self.refused:
            return False
        return not (action.by_stream and answer is not None and b'"error"' in answer.data)

    async def _answer(self, action: Action) -> Msg | None:
        """Send the message, and return the answer where the server gives one before it says that it is refused."""
        fresh = secrets.token_hex(16)
        answers: asyncio.Queue[Msg] = asyncio.Queue()
        inbox = self.client.new_inbox()
        subscription = await self.client.subscribe(inbox, cb=_into(answers))
        subject = action.subject.replace("{fresh}", fresh)
        await self.client.publish(subject, action.body, reply=inbox, headers=action.headers)
        await self._settled()
        answer = None
        if not self.refused and action.by_stream:
            answer = await asyncio.wait_for(answers.get(), ANSWERED_WITHIN)
        await subscription.unsubscribe()
        return answer

    async def _settled(self) -> None:
        for _ in range(2):
            await self.client.flush(timeout=5)


def _into(answers: asyncio.Queue[Msg]) -> Callable[[Msg], Awaitable[None]]:
    async def on_message(message: Msg) -> None:
        answers.put_nowait(message)

    return on_message


@contextlib.asynccontextmanager
async def prepared(configuration: str, store: Path) -> AsyncGenerator[NatsServer]:
    """A server on which both tenants have their streams, the consumer of a step, and a run that is stored."""
    os.environ.update(variables(text_of(configuration)))
    async with server_of(configuration, store) as server:
        for tenant in TENANTS:
            user = "admin" if configuration == "tenants.conf" else f"{tenant}-operator"
            inbox = "" if user == "admin" else f"_INBOX.{tenant}.operator"
            await prepare(server, tenant, user, inbox)
        yield server


async def prepare(server: NatsServer, tenant: str, user: str, inbox: str) -> None:
    names = Subjects(tenant)
    async with await Connection.open(access_of(url(server, user), inbox_prefix=inbox or None)) as connection:
        await set_up(connection, names)
        await set_up_consumers(connection, names, [StepConsumer("echo", "run")], ack_wait=5)
    async with contextlib.AsyncExitStack() as stack:
        client = await nats.connect(url(server, user), inbox_prefix=(inbox or "_INBOX").encode())
        stack.push_async_callback(client.close)
        for subject in (
            f"jf.{tenant}.run.{VICTIM}.-.-.{VICTIM}",
            f"jf.{tenant}.run.{VICTIM}.{VICTIM}.run.{CHILD}",
            f"jf.{tenant}.task.echo.run.{VICTIM}.-.{VICTIM}.0",
            f"jf.{tenant}.value.{VICTIM}.{VICTIM}-1.0",
            f"$KV.jf_{tenant}_workflows.echo",
        ):
            answer = await client.request(subject, b'{"status":"succeeded"}')
            assert "error" not in orjson.loads(answer.data), answer.data


async def tried(who: Who, server: NatsServer, actions: Sequence[Action]) -> dict[str, bool]:
    """Try all actions as one user."""
    user = User()
    await user.connect(server, f"acme-{who.role}", f"_INBOX.acme.{who.role}")
    try:
        return {action.name: await user.may(action) for action in actions}
    finally:
        await user.client.close()


async def table_of(directory: Path) -> dict[Who, dict[str, bool]]:
    """Try all actions as all users, on both servers."""
    actions = [action for rows in ACTIONS.values() for action in rows]
    found: dict[Who, dict[str, bool]] = {}
    for configuration in dict.fromkeys(who.configuration for who in COLUMNS):
        async with prepared(configuration, directory / configuration) as server:
            for who in COLUMNS:
                if who.configuration == configuration:
                    found[who] = await tried(who, server, actions)
    return found


def printed(table: dict[Who, dict[str, bool]]) -> str:
    """Return the table as Markdown."""
    head = f"| action | {' | '.join(who.title for who in COLUMNS)} |\n|---|{'---|' * len(COLUMNS)}\n"
    lines = [head]
    for title, actions in ACTIONS.items():
        lines.append(f"| **{title}** |{' |' * len(COLUMNS)}\n")
        for action in actions:
            cells = ["allowed" if table[who][action.name] else "denied" for who in COLUMNS]
            lines.append(f"| {action.name} | {' | '.join(cells)} |\n")
    return "".join(lines)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        sys.stdout.write(printed(asyncio.run(table_of(Path(place)))))
