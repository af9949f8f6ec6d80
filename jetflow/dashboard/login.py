"""Letting in who knows a token: a page that asks for it, and a cookie that says that it was told.

For a dashboard that is reached from other machines and has nobody before it who knows users. The cookie holds a digest
of the token, is not to be read by scripts, and is not sent along by other sites' pages.
"""

from __future__ import annotations

import hmac
from hashlib import sha256
from html import escape
from typing import Final
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from jetflow.dashboard.access import Access

COOKIE: Final = "jetflow"
SHORTEST: Final = 16
"""Characters that a token has at least."""

KEPT: Final = 30 * 86400
"""Seconds for which a browser is let in."""

_PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>jetflow</title></head>
<body><main><h1>jetflow</h1>{said}
<form method="post" action="{action}"><label>Token <input type="password" name="token" autofocus
autocomplete="current-password" required></label> <button>Open</button></form></main></body></html>
"""


class TokenLogin:
    """Gives ``granted`` to whoever knows the token, and sends everybody else to the page that asks for it."""

    def __init__(self, token: str, granted: Access) -> None:
        if len(token) < SHORTEST:
            raise ValueError(f"a token has {SHORTEST} characters or more, and this one has {len(token)}")
        self._digest = sha256(f"jetflow dashboard {token}".encode()).hexdigest()
        self._granted = granted

    async def __call__(self, request: Request) -> Access:
        """Return what the sender of a request may do."""
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        told = self._is_cookie(request.cookies.get(COOKIE, "")) or (kind.lower() == "bearer" and self._is(token))
        return self._granted if told else Access.redirect(_place(request, "login"))

    async def page(self, request: Request) -> Response:
        """Ask for the token, or look at the one that was given."""
        if request.method != "POST":
            return _asked(request, "", 200)
        token = await _token_of(request)
        if not self._is(token):
            return _asked(request, "<p>That is not the token: it is printed where the dashboard was started.</p>", 401)
        answer = RedirectResponse(_place(request, ""), 303)
        answer.set_cookie(
            *(COOKIE, self._digest, KEPT),
            path=_place(request, ""),
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="strict",
        )
        return answer

    def _is(self, token: str) -> bool:
        return self._is_cookie(sha256(f"jetflow dashboard {token}".encode()).hexdigest())

    def _is_cookie(self, digest: str) -> bool:
        return hmac.compare_digest(digest.encode(), self._digest.encode())


def _asked(request: Request, said: str, status: int) -> Response:
    return HTMLResponse(_PAGE.format(said=said, action=escape(_place(request, "login"), quote=True)), status)


async def _token_of(request: Request) -> str:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > 10_000:
            return ""
    return dict(parse_qsl(body.decode(errors="replace"))).get("token", "")


def _place(request: Request, path: str) -> str:
    return f"{request.scope.get('root_path', '').rstrip('/')}/{path}"
