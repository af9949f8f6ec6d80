"""The pages: one document for all of them, and the assets that it names. No build, and nothing from elsewhere.

Assets are named with a digest of all of them, so that browsers keep them for good, and take new ones when a file has
changed. Modules and style sheets are sent as one file each. The document says where the dashboard is mounted, so that
every link in it is relative.
"""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Callable
from functools import lru_cache
from hashlib import sha256
from html import escape
from pathlib import Path
from time import monotonic
from typing import Final, NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from jetflow.dashboard.packing import packed, packed_styles
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


PACKS: Final[dict[str, Callable[[Path], str]]] = {
    "packed.js": lambda directory: packed(directory, "app.js"),
    "css/packed.css": lambda directory: packed_styles(directory, STYLES),
}
"""Assets that are made of others. A style sheet names others by its place."""

STYLES: Final = ("app.css", "css/parts.css", "css/grid.css", "css/run.css", "css/pages.css")

COMPRESSED_FROM: Final = 1024
"""Bytes from which on an asset that is text is sent compressed."""

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
        text = text.replace(BASE, f'<base href="{prefix}/">').replace(ASSETS, f"assets/{self.version()}/")
        return _answer(request, _file(text.encode(), ".html"), "no-cache")

    async def asset(self, request: Request) -> Response:
        """Return one file: for good under the version of now, to be asked for again under any other.

        Raises:
            Problem: there is none of that name.
        """
        name, version, kept = request.path_params["path"], self.version(), self._kept
        caching = KEPT if request.path_params["version"] == version else "no-cache"
        file = kept.get(name)
        if file is None:
            file = kept[name] = await asyncio.to_thread(self._read, name)
        return _answer(request, file, caching)

    def prepare(self) -> None:
        """Make the packed assets before somebody asks for them. For a thread: it takes some 50 ms."""
        self.version()
        kept = self._kept
        for name in PACKS:
            if name not in kept:
                kept[name] = self._read(name)

    def _read(self, name: str) -> _File:
        if name in PACKS:
            return _pack(name, self._directory, self._version)
        path = (self._directory / name).resolve()
        if path.suffix not in KINDS or not path.is_relative_to(self._directory) or not path.is_file():
            raise Problem(404, "unknown-asset", f"there is no asset {name!r}", "reload the page")
        return _file(path.read_bytes(), path.suffix)


@lru_cache(maxsize=2 * len(PACKS))
def _pack(name: str, directory: Path, version: str) -> _File:
    """Return a packed asset of one version of the files, made once for all dashboards of a process."""
    return _file(PACKS[name](directory).encode(), Path(name).suffix)


class _File(NamedTuple):
    body: bytes
    kind: str
    tag: str
    compressed: bytes | None


def _file(body: bytes, suffix: str) -> _File:
    is_text = KINDS[suffix].startswith("text/") and len(body) >= COMPRESSED_FROM
    compressed = gzip.compress(body, mtime=0) if is_text else None
    return _File(body, KINDS[suffix], sha256(body).hexdigest()[:20], compressed)


def _answer(request: Request, file: _File, caching: str) -> Response:
    is_small = file.compressed is not None and "gzip" in request.headers.get("accept-encoding", "")
    tag = f'"{file.tag}{"-gz" if is_small else ""}"'
    headers = {"ETag": tag, "Cache-Control": caching}
    if file.compressed is not None:
        headers["Vary"] = "Accept-Encoding"
    known = [one.strip().removeprefix("W/") for one in request.headers.get("if-none-match", "").split(",")]
    if tag in known:
        return Response(status_code=304, headers=headers)
    if is_small and file.compressed is not None:
        return Response(file.compressed, 200, {**headers, "Content-Encoding": "gzip"}, file.kind)
    return Response(file.body, 200, headers, file.kind)
