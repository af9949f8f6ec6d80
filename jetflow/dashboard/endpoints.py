"""One path of the API: a function, and what its annotations say of its parameters, its body and its answer.

The query's Struct is what is read of a URL, and what the OpenAPI document says of it, so that neither can lie.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Final,
    NamedTuple,
    TypeAlias,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
)

import msgspec
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response

from jetflow.client import Client
from jetflow.dashboard.access import Access, Action
from jetflow.dashboard.problems import Problem

if TYPE_CHECKING:
    from jetflow.dashboard.app import Dashboard

LARGEST_BODY: Final = 65 * 1024 * 1024
"""Bytes that the body of a request may have: an input of 64 MiB, and what stands around it."""

Handler: TypeAlias = Callable[..., Awaitable[Any]]
H = TypeVar("H", bound=Handler)


class Noted(msgspec.Struct, frozen=True):
    """What an action tells of itself for the log."""

    count: int | None = None
    subject: Mapping[str, Any] = {}


class Ask(NamedTuple):
    """One request that was let in: who asks, by which client, with which parts of the path."""

    dashboard: Dashboard
    client: Client
    access: Access
    request: Request

    @property
    def path(self) -> Mapping[str, str]:
        """The parts of the path that have names."""
        return self.request.path_params

    def note(self, count: int, **subject: Any) -> None:
        """Have the line that is logged of an action say how many runs it is for, and what else the path does not."""
        self.request.state.noted = Noted(count, subject)

    @property
    def run(self) -> str:
        """The id of the run that the path names."""
        return self.path["id"]


class Endpoint(NamedTuple):
    """A path, the function that answers, and what it takes and gives. ``right`` is the action that it is."""

    method: str
    path: str
    handler: Handler
    query: type[msgspec.Struct] | None
    body: type[msgspec.Struct] | None
    answer: Any
    right: Action | None
    status: int

    @property
    def summary(self) -> str:
        """What it answers, in a sentence."""
        return (self.handler.__doc__ or "").partition("\n")[0]

    async def arguments(self, request: Request) -> dict[str, Any]:
        """Return what the function takes beside the `Ask`.

        Raises:
            Problem: a parameter or the body does not fit.
        """
        found: dict[str, Any] = {}
        if self.query is not None:
            found["query"] = read_query(request.query_params, self.query)
        elif request.query_params:
            raise Problem(400, "invalid-query", "this path takes no parameters", "leave them out")
        if self.body is not None:
            found["body"] = await read_body(request, self.body)
        return found

    async def answered(self, ask: Ask) -> Response:
        """Return the answer to a request."""
        answer = await self.handler(ask, **await self.arguments(ask.request))
        if isinstance(answer, Response):
            return answer
        return Response(msgspec.json.encode(answer), self.status, media_type="application/json")


class Endpoints:
    """The paths of one subject, filled by decorators."""

    def __init__(self) -> None:
        self.all: list[Endpoint] = []

    def get(self, path: str, right: Action | None = None) -> Callable[[H], H]:
        """Answer GET requests of a path; with a ``right``, of those who have it."""
        return self._add("GET", path, right, 200)

    def post(self, path: str, right: Action | None, *, status: int = 200) -> Callable[[H], H]:
        """Answer POST requests of a path, of those who may do what it does."""
        return self._add("POST", path, right, status)

    def delete(self, path: str, right: Action | None, *, status: int = 200) -> Callable[[H], H]:
        """Answer DELETE requests of a path, of those who may do what it does."""
        return self._add("DELETE", path, right, status)

    def _add(self, method: str, path: str, right: Action | None, status: int) -> Callable[[H], H]:
        def add(handler: H) -> H:
            hints = get_type_hints(handler)
            query, body, answer = hints.get("query"), hints.get("body"), hints["return"]
            self.all.append(Endpoint(method, path, handler, query, body, answer, right, status))
            return handler

        return add


Q = TypeVar("Q", bound=msgspec.Struct)


def read_query(given: QueryParams, kind: type[Q]) -> Q:
    """Return the parameters of a URL. ``meta.<name>`` are the members of ``meta``.

    Raises:
        Problem: one is unknown, is there twice, or does not fit.
    """
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    values: dict[str, Any] = {}
    for name in given:
        texts = given.getlist(name)
        owner, dot, member = name.partition(".")
        if dot and owner in fields and _is(fields[owner].type, dict):
            values.setdefault(owner, {})[member] = texts[-1]
        elif name not in fields:
            known = ", ".join(sorted(fields)) or "none"
            raise Problem(400, "invalid-query", f"there is no parameter {name!r} here", f"there are: {known}")
        elif _is(fields[name].type, list):
            values[name] = texts
        elif len(texts) > 1:
            raise Problem(400, "invalid-query", f"the parameter {name} is there {len(texts)} times", "give it once")
        elif texts[0] != "":
            values[name] = texts[0]
    try:
        return msgspec.convert(values, kind, strict=False)
    except msgspec.ValidationError as error:
        raise Problem(400, "invalid-query", _told(error), "change the parameter that is named") from None


def _is(annotation: Any, kind: type) -> bool:
    """Tell whether a type is a list or a dict, whatever it is of, and whatever else is said of it."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    return (get_origin(annotation) or annotation) is kind


def _told(error: msgspec.ValidationError) -> str:
    text, _, place = str(error).partition(" - at `")
    return f"{place.removeprefix('$.').rstrip('`')}: {text}" if place else text


async def read_body(request: Request, kind: type[Q]) -> Q:
    """Return the body of a request, read as JSON.

    Raises:
        Problem: it is too large, no JSON, or does not fit.
    """
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST_BODY:
            raise Problem(413, "too-large", f"the body is larger than {LARGEST_BODY:,} bytes", "pass a reference")
    try:
        return msgspec.json.decode(body or b"{}", type=kind)
    except msgspec.ValidationError as error:
        raise Problem(422, "invalid-body", _told(error), "change what is named") from None
    except msgspec.DecodeError as error:
        raise Problem(400, "invalid-body", f"the body is not JSON: {error}", "send JSON") from None
