"""The dashboard as an ASGI application: whoever is let in gets pages, answers and events; whoever is not, a problem.

Nothing is asked of the broker but by the one `Client` that it has. It is mounted anywhere: what it serves is relative
to the place, and a lifespan is no must.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from types import TracebackType
from typing import Any, Self, TypeAlias

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from jetflow.client import Client
from jetflow.dashboard.access import Access, Decide, access_to
from jetflow.dashboard.api import ENDPOINTS
from jetflow.dashboard.audit import Acted, OnAction, note
from jetflow.dashboard.bulk import Jobs
from jetflow.dashboard.connecting import Connecting, Source
from jetflow.dashboard.endpoints import Ask, Endpoint, Noted
from jetflow.dashboard.guarding import HEADERS, check_host, check_origin
from jetflow.dashboard.live import Hub
from jetflow.dashboard.login import TokenLogin
from jetflow.dashboard.mounting import placed
from jetflow.dashboard.pages import Pages
from jetflow.dashboard.problems import Problem, problem_of
from jetflow.errors import BrokerError, BrokerTimeout, JetflowError, UnknownNamespace

API = "/api/v1/"

Redact: TypeAlias = Callable[[str, str, Any], Any]
"""Takes a workflow, a kind (``input``, ``output`` or ``once``) and a value, and returns what may be shown of it."""

_log = logging.getLogger("jetflow.dashboard")


class Dashboard:
    """The dashboard of one namespace, as an ASGI application.

    ``source`` is where it connects: a URL, several, or None for ``NATS_URL``, to a ``namespace``; or a `Client`, which
    is left open; or a function that returns what ``async with`` gives a client of.
    ``access`` is what everybody may do (looking only, if nothing is said), or decides for each request. ``redact`` sees
    each value before it leaves, ``on_action`` is told each action. ``hosts`` are those that it answers for, None for
    all; ``origins`` are those whose pages may act beside its own.
    """

    def __init__(
        self,
        source: Source = None,
        *,
        namespace: str = "default",
        access: Access | Decide | None = None,
        redact: Redact | None = None,
        on_action: OnAction | None = None,
        hosts: Collection[str] | None = None,
        origins: Collection[str] = (),
    ) -> None:
        self.redact = redact
        self.jobs: Jobs = Jobs(self.client)
        self.hub: Hub = Hub(self.client, self.jobs)
        self._connecting = Connecting(source, namespace)
        self._access: Access | Decide = Access() if access is None else access
        self._on_action = on_action
        self._hosts = None if hosts is None else frozenset(host.lower() for host in hosts)
        self._origins = frozenset(origins)
        self._pages = Pages()
        self._app = self._routed()

    async def client(self) -> Client:
        """Return the client, connected.

        Raises:
            BrokerError: no server answers, or it refuses.
        """
        client = await self._connecting.client()
        if not client.server.connected:
            raise BrokerTimeout("the connection to the NATS server is down: it is dialled again until it stands")
        return client

    async def __aenter__(self) -> Self:
        """Connect, and pack the pages. A server that is away is no error: the next request asks again."""
        await asyncio.to_thread(self._pages.prepare)
        try:
            await self.client()
        except UnknownNamespace:
            pass  # its first worker makes it, and the next request asks again
        except BrokerError as error:
            _log.warning("the dashboard is up, and its broker is not: %s", error)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End what it does in the background, and close the connection that it has opened. Safe to call twice."""
        await self.jobs.close()
        await self.hub.close()
        await self._connecting.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close"})
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        await self._app(placed(scope), receive, send_guarded)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                try:
                    await self.__aenter__()
                except JetflowError as error:
                    await send({"type": "lifespan.startup.failed", "message": str(error)})
                    return
                await send({"type": "lifespan.startup.complete"})
            else:
                await self.close()
                await send({"type": "lifespan.shutdown.complete"})
                return

    def _routed(self) -> Starlette:
        by_path: dict[str, dict[str, Endpoint]] = {}
        for endpoint in ENDPOINTS:
            by_path.setdefault(endpoint.path, {})[endpoint.method] = endpoint
        routes = [self._route(path, methods) for path, methods in by_path.items()]
        if isinstance(self._access, TokenLogin):
            routes.append(Route("/login", self._guarded(self._access.page), methods=["GET", "POST"]))
        return Starlette(
            routes=[
                *routes,
                Route("/assets/{version}/{path:path}", self._guarded(self._asset), methods=["GET"]),
                Route("/{path:path}", self._guarded(self._page), methods=[*_METHODS]),
            ]
        )

    def _route(self, path: str, methods: dict[str, Endpoint]) -> Route:
        async def answer(request: Request) -> Response:
            endpoint = methods.get("GET" if request.method == "HEAD" else request.method)
            if endpoint is None:
                raise Problem(405, "wrong-method", f"{request.method} is not for {path}", f"use {', '.join(methods)}")
            return await self._answer(endpoint, request)

        return Route(API + path, self._guarded(answer), methods=[*_METHODS])

    def _guarded(self, answer: Callable[[Request], Any]) -> Callable[[Request], Any]:
        async def guarded(request: Request) -> Response:
            try:
                check_host(request, self._hosts)
                response: Response = await answer(request)
            except Exception as error:
                response = problem_of(error).response()
            response.headers.setdefault("Cache-Control", "no-store")
            return response

        return guarded

    async def _let_in(self, request: Request) -> Access:
        access = await access_to(self._access, request)
        if access is None:
            raise Problem(403, "no-access", "you may not look at this dashboard", "ask whoever runs it")
        return access

    async def _page(self, request: Request) -> Response:
        if request.method not in ("GET", "HEAD"):
            raise Problem(405, "wrong-method", f"{request.method} is not for a page", "use GET")
        if request.path_params["path"].startswith("api/") or "text/html" not in _accepted(request):
            raise Problem(404, "unknown-path", f"there is nothing at {request.url.path}", "see api/v1/openapi.json")
        access = await self._let_in(request)
        return self._pages.page(request) if access.location is None else RedirectResponse(access.location, 303)

    async def _asset(self, request: Request) -> Response:
        return await self._pages.asset(request)

    async def _answer(self, endpoint: Endpoint, request: Request) -> Response:
        access = await self._let_in(request)
        if access.location is not None:
            raise Problem(401, "log-in", "you are not logged in", "log in", location=access.location)
        if endpoint.right is None and endpoint.method == "GET":
            return await endpoint.answered(Ask(self, await self.client(), access, request))
        outcome = "done"
        try:
            if endpoint.method != "GET":
                check_origin(request, self._origins)
            _check_right(endpoint, access)
            return await endpoint.answered(Ask(self, await self.client(), access, request))
        except Exception as error:
            outcome = problem_of(error).kind
            raise
        finally:
            name = endpoint.right or endpoint.handler.__name__
            noted: Noted = getattr(request.state, "noted", Noted())
            subject = {**request.path_params, **noted.subject}
            acted = Acted(user=access.user, action=name, subject=subject, outcome=outcome, count=noted.count)
            note(acted, self._on_action)


_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


def _accepted(request: Request) -> str:
    accepted = request.headers.get("accept", "*/*")
    return "text/html" if "*/*" in accepted or "text/*" in accepted else accepted


def _check_right(endpoint: Endpoint, access: Access) -> None:
    if endpoint.right is not None and not access.may(endpoint.right):
        raise Problem(
            *(403, "no-right", f"you may not {endpoint.right} here"),
            "this dashboard is read-only for you: Dashboard(access=Access.full()) lets everybody act",
        )
