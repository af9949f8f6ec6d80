"""The pages: one document for all of them, and the assets that it names. No build, and nothing from elsewhere.

Assets are named with a digest of all of them, so that browsers keep them for good, and take new ones when a file has
changed. The document says where the dashboard is mounted, so that every link in it is relative.
"""

from __future__ import annotations

from hashlib import sha256
from html import escape
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from jetflow.dashboard.problems import Problem

STATIC: Final = Path(__file__).parent / "static"

KINDS: Final = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".map": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".woff2": "font/woff2",
}
"""Files that are served, and as what."""

BASE: Final = '<base href="/">'
ASSETS: Final = "assets/-/"
"""What stands in the document for where it is mounted, and for the version of its assets."""


class Pages:
    """Serves the files of one directory."""

    def __init__(self, directory: Path = STATIC) -> None:
        self._directory = directory.resolve()

    def version(self) -> str:
        """Return the digest of all files by which they are told apart: it changes when one of them has."""
        files = sorted(file for file in self._directory.rglob("*") if file.is_file())
        facts = [
            (str(file.relative_to(self._directory)), file.stat().st_mtime_ns, file.stat().st_size) for file in files
        ]
        return sha256(repr(facts).encode()).hexdigest()[:12]

    def page(self, request: Request) -> Response:
        """Return the document, for the place where the dashboard is mounted."""
        prefix = escape(request.scope.get("root_path", "").rstrip("/"), quote=True)
        text = (self._directory / "index.html").read_text()
        text = text.replace(BASE, f'<base href="{prefix}/">').replace(ASSETS, f"assets/{self.version()}/")
        return _file(request, text.encode(), ".html", "no-cache")

    def asset(self, request: Request) -> Response:
        """Return one file: for good under the version of now, to be asked for again under any other.

        Raises:
            Problem: there is none of that name.
        """
        path = (self._directory / request.path_params["path"]).resolve()
        if path.suffix not in KINDS or not path.is_relative_to(self._directory) or not path.is_file():
            raise Problem(404, "unknown-asset", f"there is no asset {request.path_params['path']!r}", "reload the page")
        is_now = request.path_params["version"] == self.version()
        caching = "public, max-age=31536000, immutable" if is_now else "no-cache"
        return _file(request, path.read_bytes(), path.suffix, caching)


def _file(request: Request, body: bytes, suffix: str, caching: str) -> Response:
    tag = f'"{sha256(body).hexdigest()[:20]}"'
    headers = {"ETag": tag, "Cache-Control": caching}
    known = [one.strip().removeprefix("W/") for one in request.headers.get("if-none-match", "").split(",")]
    if tag in known:
        return Response(status_code=304, headers=headers)
    return Response(body, 200, headers, KINDS[suffix])
