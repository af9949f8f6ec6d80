"""Where an application is mounted: below a path of one that cannot mount by itself, or that tells of it otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import unquote

from starlette.types import ASGIApp, Receive, Scope, Send


def mounted(apps: Mapping[str, ASGIApp], otherwise: ASGIApp) -> ASGIApp:
    """Return an application that gives what is below a path of ``apps`` to that one, and all else to ``otherwise``."""
    places = {f"/{path.strip('/')}": app for path, app in apps.items()}

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            above = scope.get("root_path", "")
            path = scope["path"].removeprefix(above)
            for place, app in places.items():
                if path == place or path.startswith(f"{place}/"):
                    await app({**scope, "root_path": above + place}, receive, send)
                    return
        await otherwise(scope, receive, send)

    return answer


def placed(scope: Scope) -> Scope:
    """Return a request whose path is whole, with the place where it is mounted in ``root_path``.

    That is what the ASGI specification says, and Starlette does. Litestar takes the place off the path, ends it in a
    slash, and tells neither; the path as it was sent still has both.
    """
    full, path = unquote(scope.get("raw_path", b"").decode("latin-1")), scope["path"]
    rest = path.rstrip("/")
    if full == path or not full.rstrip("/").endswith(rest):
        return scope
    return {**scope, "path": full, "root_path": full.rstrip("/").removesuffix(rest)}
