"""The pages: one document for all of them, and the assets that it names. No build, and nothing from elsewhere.

Assets are named with a digest of all of them, so that browsers keep them for good, and take new ones when a file has
changed. The document says where the dashboard is mounted, so that every link in it is relative.
"""

from __future__ import annotations

import re
from hashlib import sha256
from html import escape
from os.path import normpath
from pathlib import Path
from time import monotonic
from typing import Final, NamedTuple

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


SCRIPT: Final = '<script type="module"'
"""What stands in the document behind what it has loaded ahead."""

IMPORTED: Final = re.compile(r"^(?:import|export) .*?from '(\.[^']+)'", re.MULTILINE)
"""What a module imports, by its place."""

KEPT: Final = "public, max-age=31536000, immutable"
"""How long a browser keeps an asset of this version: for good."""

LOOKED_AT_EVERY: Final = 1.0
"""Seconds after which it is looked again whether a file has changed."""


class Pages:
    """Serves the files of one directory."""

    def __init__(self, directory: Path = STATIC) -> None:
        self._directory = directory.resolve()
        self._version = ""
        self._looked_at = -LOOKED_AT_EVERY
        self._kept: dict[str, _File] = {}

    def version(self) -> str:
        """Return the digest of all files by which they are told apart: it changes when one of them has."""
        if monotonic() - self._looked_at >= LOOKED_AT_EVERY:
            self._looked_at = monotonic()
            before, self._version = self._version, self._digest()
            if self._version != before:
                self._kept = {}
        return self._version

    def _digest(self) -> str:
        files = sorted(file for file in self._directory.rglob("*") if file.is_file())
        facts = [
            (str(file.relative_to(self._directory)), file.stat().st_mtime_ns, file.stat().st_size) for file in files
        ]
        return sha256(repr(facts).encode()).hexdigest()[:12]

    def page(self, request: Request) -> Response:
        """Return the document, for the place where the dashboard is mounted."""
        prefix = escape(request.scope.get("root_path", "").rstrip("/"), quote=True)
        text = (self._directory / "index.html").read_text()
        text = text.replace(SCRIPT, f"{self._ahead(request.path_params['path'])}{SCRIPT}")
        text = text.replace(BASE, f'<base href="{prefix}/">').replace(ASSETS, f"assets/{self.version()}/")
        return _answer(request, _file(text.encode(), ".html"), "no-cache")

    def _ahead(self, path: str) -> str:
        """Return what has the modules of a page loaded at once, and not each when one that imports it has come."""
        first, _, rest = path.partition("/")
        view = "run" if first == "runs" and rest else first.removesuffix("s") if rest else first or "overview"
        modules: set[str] = set()
        for name in ("app.js", f"views/{view}.js"):
            self._follow(name, modules)
        return "".join(f'<link rel="modulepreload" href="{ASSETS}{name}">\n    ' for name in sorted(modules))

    def _follow(self, name: str, found: set[str]) -> None:
        """Add a module, and all that it imports."""
        file = self._directory / name
        if name in found or not file.is_file():
            return
        found.add(name)
        for target in IMPORTED.findall(file.read_text()):
            self._follow(normpath(f"{name}/../{target}"), found)

    def asset(self, request: Request) -> Response:
        """Return one file: for good under the version of now, to be asked for again under any other.

        Raises:
            Problem: there is none of that name.
        """
        name, version = request.path_params["path"], self.version()
        caching = KEPT if request.path_params["version"] == version else "no-cache"
        if name in self._kept:
            return _answer(request, self._kept[name], caching)
        path = (self._directory / name).resolve()
        if path.suffix not in KINDS or not path.is_relative_to(self._directory) or not path.is_file():
            raise Problem(404, "unknown-asset", f"there is no asset {name!r}", "reload the page")
        self._kept[name] = _file(path.read_bytes(), path.suffix)
        return _answer(request, self._kept[name], caching)


class _File(NamedTuple):
    body: bytes
    kind: str
    tag: str


def _file(body: bytes, suffix: str) -> _File:
    return _File(body, KINDS[suffix], f'"{sha256(body).hexdigest()[:20]}"')


def _answer(request: Request, file: _File, caching: str) -> Response:
    headers = {"ETag": file.tag, "Cache-Control": caching}
    known = [one.strip().removeprefix("W/") for one in request.headers.get("if-none-match", "").split(",")]
    if file.tag in known:
        return Response(status_code=304, headers=headers)
    return Response(file.body, 200, headers, file.kind)
