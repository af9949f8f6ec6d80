"""A client, and a worker if there is one, for as long as a web service runs: lifespans of ASGI applications.

`lifespan` is for frameworks that have lifespans, `asgi` for applications that have none, such as Django's. Nothing of
any framework is imported.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, MutableMapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, Final, TypeAlias

from jetflow.broker.access import Server
from jetflow.broker.auth import Auth
from jetflow.client import Client, connect
from jetflow.worker import Worker
from jetflow.worker.options import WorkerOptions
from jetflow.worker.sharing import Lifespan
from jetflow.workflow import Workflow

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

STATE: Final = "jetflow"
"""The name of the client in an application's state, and in that of a request."""


def lifespan(
    workflows: Iterable[Workflow[Any, Any]] = (),
    *,
    server: Server = None,
    namespace: str = "default",
    slots: int | None = None,
    options: WorkerOptions | None = None,
    auth: Auth | None = None,
    domain: str | None = None,
    inbox_prefix: str | None = None,
    context: str | None = None,
    inside: Lifespan | None = None,
) -> Callable[[Any], AbstractAsyncContextManager[dict[str, Client]]]:
    """Return a lifespan for FastAPI, Starlette or Litestar: it connects a client, and runs a worker of ``workflows``.

    The client is ``request.state.jetflow`` (Starlette, FastAPI) and ``app.state.jetflow`` (all of them); `client_of`
    finds it in either. Without workflows there is no worker. All other arguments are those of `Worker`; ``inside`` is
    its ``lifespan``.
    """
    declared = list(workflows)

    @asynccontextmanager
    async def opened(app: Any) -> AsyncGenerator[dict[str, Client]]:
        reached: dict[str, Any] = {
            "namespace": namespace,
            "auth": auth,
            "domain": domain,
            "inbox_prefix": inbox_prefix,
            "context": context,
        }
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(connect(server, **reached))
            if declared:
                worker = Worker(declared, server=server, slots=slots, options=options, lifespan=inside, **reached)
                await stack.enter_async_context(worker)
            if hasattr(app, "state"):
                setattr(app.state, STATE, client)
            yield {STATE: client}

    return opened


def asgi(app: Application, opened: Callable[[Any], AbstractAsyncContextManager[dict[str, Client]]]) -> Application:
    """Return an ASGI application that opens a `lifespan` around one that has none of its own.

    The client is in each request's scope, where `client_of` finds it.
    """
    held: dict[str, Client] = {}

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _live(receive, send, opened(app), held)
        else:
            scope.setdefault("state", {}).update(held)
            await app(scope, receive, send)

    return answer


def client_of(request: Any) -> Client:
    """Return the client of the service that a request, of any of these frameworks, was made to.

    Raises:
        LookupError: its application has no `lifespan` of jetflow.
    """
    scope: Scope = request.scope
    client = scope.get("state", {}).get(STATE) or getattr(getattr(scope.get("app"), "state", None), STATE, None)
    if client is None:
        raise LookupError(
            "this application has no jetflow client: give it lifespan=jetflow.embedding.lifespan(...), or wrap it in "
            "jetflow.embedding.asgi(...); is the server started with its lifespan on?"
        )
    return client


async def _live(
    receive: Receive, send: Send, opening: AbstractAsyncContextManager[dict[str, Client]], held: dict[str, Client]
) -> None:
    """Do what a server asks of an application's lifespan; see the ASGI specification."""
    await receive()  # lifespan.startup
    try:
        held |= await opening.__aenter__()
    except Exception as error:
        await send({"type": "lifespan.startup.failed", "message": f"{type(error).__name__}: {error}"})
        return
    await send({"type": "lifespan.startup.complete"})
    await receive()  # lifespan.shutdown
    held.clear()
    try:
        await opening.__aexit__(None, None, None)
    except Exception as error:
        await send({"type": "lifespan.shutdown.failed", "message": f"{type(error).__name__}: {error}"})
        return
    await send({"type": "lifespan.shutdown.complete"})
