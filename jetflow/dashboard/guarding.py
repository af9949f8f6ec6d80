"""What keeps other sites' pages from using the dashboard of whoever visits them, and what every answer says for that.

An action cannot be sent across sites without the browser asking first (a header of its own, JSON), and nothing here
answers such a question. A name that was made to point at this machine is no host that is allowed.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final
from urllib.parse import urlsplit

from starlette.requests import Request

from jetflow.dashboard.problems import Problem

HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""What every answer carries."""

LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
"""Hosts that mean this machine."""


def check_host(request: Request, hosts: Collection[str] | None) -> None:
    """Refuse a request to another host than those that are allowed; None allows all.

    Raises:
        Problem: it is one.
    """
    if hosts is None:
        return
    host = _host_of(request.headers.get("host", ""))
    if host not in hosts:
        raise Problem(
            421,
            "unknown-host",
            f"this dashboard does not answer for the host {host!r}",
            f"allow it: --allow-host {host}",
        )


def check_origin(request: Request, origins: Collection[str]) -> None:
    """Refuse an action that a page of another site may have sent.

    Raises:
        Problem: it may be one.
    """
    if request.headers.get("x-jetflow") != "1":
        raise _refused("an action carries the header X-Jetflow: 1, and this one does not", "add it")
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise _refused(f"an action is sent as application/json, and not as {kind or 'nothing'!r}", "say so")
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise _refused("the browser says that this action comes from another site", "use the dashboard's own pages")
    origin = request.headers.get("origin")
    if origin is None or origin in origins:
        return
    if urlsplit(origin).netloc.lower() != request.headers.get("host", "").lower():
        raise _refused(
            f"the action comes from the origin {origin!r}, and this is {request.headers.get('host', '')!r}",
            "behind a proxy that changes the host, name the origin: Dashboard(origins=[...])",
        )


def _refused(detail: str, hint: str) -> Problem:
    return Problem(403, "cross-site", detail, hint)


def _host_of(text: str) -> str:
    """Return a host without its port, in lower case."""
    try:
        return (urlsplit(f"//{text}").hostname or "").lower()
    except ValueError:
        return ""
