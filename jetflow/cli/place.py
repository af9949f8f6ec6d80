"""Where a command works and as whom: the options of all commands that connect.

Passwords and tokens are never options, which other users of the machine and the shell's history would see: they come
from the environment, or from files.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, fields
from typing import Annotated, Any, Final, TypeVar

from cyclopts import Parameter

from jetflow.broker.access import Access, access_of, auth_found, nearest_of
from jetflow.broker.auth import Auth
from jetflow.cli import loop
from jetflow.cli.options import FLAG, UsageError, default_of
from jetflow.cli.project import DevServer, dev_server
from jetflow.client import Client, connect
from jetflow.settings import settings_of, value_of
from jetflow.worker import Worker
from jetflow.worker.options import WorkerOptions
from jetflow.workflow import Workflow

T = TypeVar("T")

PASSWORD: Final = "NATS_PASSWORD"

_SAYING: Final = ("NATS_URL", "NATS_CONTEXT")


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Place:
    """A server, a namespace, and who connects."""

    server: Annotated[
        str | None,
        Parameter(
            help="URL of the NATS server, or several with commas; else NATS_URL, else that of the `jetflow dev` that "
            "runs in this directory, else nats://127.0.0.1:4222."
        ),
    ] = None
    namespace: Annotated[str | None, default_of("namespace"), Parameter(help="The jetflow namespace.")] = None
    context: Annotated[
        str | None,
        Parameter(
            help="A context of the `nats` command, by name or file, for what is not said here; else NATS_CONTEXT."
        ),
    ] = None
    user: Annotated[
        str | None, Parameter(help="Who connects. The password comes from NATS_PASSWORD, a token from NATS_TOKEN.")
    ] = None
    creds: Annotated[str | None, Parameter(help="A credentials file.")] = None
    nkey: Annotated[str | None, Parameter(help="A file that holds a user's NKey seed.")] = None
    tls_ca: Annotated[str | None, Parameter(help="A file of the authorities that are trusted.")] = None
    tls_cert: Annotated[str | None, Parameter(help="A file with the client's own certificate.")] = None
    tls_key: Annotated[str | None, Parameter(help="The file of that certificate's key.")] = None
    tls_first: Annotated[bool, FLAG, Parameter(help="Begin with TLS, for a server with handshake_first.")] = False
    domain: Annotated[str | None, Parameter(help="A JetStream domain.")] = None
    inbox_prefix: Annotated[str | None, Parameter(help="The subject below which answers go; else _INBOX.")] = None

    @property
    def servers(self) -> list[str] | None:
        """The URLs; None leaves the choice to the context, ``NATS_URL`` and the default.

        Where neither an argument nor the environment says anything, it is the server of the `jetflow dev` that runs in
        this project, before what a file says.
        """
        urls = [url.strip() for url in (self.server or "").split(",") if url.strip()]
        if urls:
            return urls
        return None if self.dev is None else [self.dev.url]

    @property
    def dev(self) -> DevServer | None:
        """The `jetflow dev` of this project, if nothing says that another server is meant."""
        said = self.server or self.context or any(os.environ.get(name, "").strip(" ,") for name in _SAYING)
        return None if said else dev_server()

    def given(self) -> dict[str, object]:
        """Return what was given, by setting."""
        return {field.name: getattr(self, field.name) or None for field in fields(self)}

    @property
    def shown(self) -> str:
        """The servers, for people: without passwords."""
        return self.access().shown

    def access(self) -> Access:
        """Return how to reach the server, and as whom.

        Raises:
            UsageError: a password is missing.
        """
        return access_of(self.servers, **self._access())

    def connect(self) -> AbstractAsyncContextManager[Client]:
        """Connect as a client.

        Raises:
            UsageError: a password is missing.
        """
        return connect(self.servers, namespace=self.namespace, **self._access())

    def look(self) -> AbstractAsyncContextManager[Client]:
        """Connect to look: nothing is made, so that a namespace with a slip in its name is one that does not exist.

        Raises:
            UsageError: a password is missing.
        """
        return connect(self.servers, namespace=self.namespace, ensure=False, **self._access())

    def ask(self, question: Callable[[Client], Awaitable[T]]) -> T:
        """Connect to look, and return what the answer is. Raises what `look` raises, and the question."""

        async def ask() -> T:
            async with self.look() as client:
                return await question(client)

        return loop.run(ask())

    def worker(self, workflows: Iterable[Workflow[Any, Any]], options: WorkerOptions) -> Worker:
        """Make a worker that connects there.

        Raises:
            UsageError: a password is missing.
        """
        return Worker(workflows, server=self.servers, namespace=self.namespace, options=options, **self._access())

    def arguments(self) -> list[str]:
        """Return the command line that says the same, but for the server."""
        return [
            part
            for name, value in self._said()
            if name != "--server"
            for part in ((name,) if value is True else (name, value))
        ]

    def of_a_named_server(self) -> list[str]:
        """Return the options in use that say how to reach a server of the user's own."""
        return [name for name, _ in self._said() if name not in ("--server", "--namespace")]

    def _said(self) -> list[tuple[str, Any]]:
        values = [(f"--{field.name.replace('_', '-')}", getattr(self, field.name)) for field in fields(self)]
        return [(name, value) for name, value in values if value not in (None, False)]

    def _access(self) -> dict[str, Any]:
        return {
            "auth": self._auth(),
            "domain": self.domain,
            "inbox_prefix": self.inbox_prefix,
            "context": self.context,
        }

    def _auth(self) -> Auth | None:
        """Return who connects: by the options, and else by the environment and the project's files.

        Whoever a URL or a context that is given names is nobody's business here.
        """
        password = None if self.user is None else value_of("password")
        if self.user is not None and password is None:
            raise UsageError(f"--user is {self.user}, and no password is in the environment: set {PASSWORD}")
        given = Auth(
            user=self.user,
            password=password,
            creds=self.creds,
            nkey_seed=self.nkey,
            tls_ca=self.tls_ca,
            tls_cert=self.tls_cert,
            tls_key=self.tls_key,
            tls_first=self.tls_first,
        )
        urls = self.server or os.environ.get("NATS_URL", "")
        if not (given.names_somebody or self.context or "@" in urls):
            given = nearest_of([given, auth_found(settings_of())])
        return given if given != Auth() else None
