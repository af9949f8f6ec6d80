"""Links of the site: pages name each other as files of the repository, which GitHub and an editor understand.

A page that is named and not there is a warning, which ends a strict build.
"""

from __future__ import annotations

import logging
import posixpath
import re
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[1]

_log = logging.getLogger("mkdocs.hooks.naming")

_FENCED: Final = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
_NAMED: Final = re.compile(r"(?<!\[)`docs/([\w/-]+\.md)`")
_OUTSIDE: Final = re.compile(r"\[([^\]]+)\]\((\.\./(?:[\w.-]+/)*[\w.-]+)\)")


def on_page_markdown(markdown: str, *, page: Any, files: Any, **_: object) -> str:
    """Make links of `docs/wire.md`, and plain names of links to files that are no pages."""
    source: str = page.file.src_uri

    def link(found: re.Match[str]) -> str:
        if files.get_file_from_path(found[1]) is None:
            _log.warning("%s names docs/%s, which is not there", source, found[1])
        return f"[{found[0]}]({posixpath.relpath(found[1], posixpath.dirname(source))})"

    def name(found: re.Match[str]) -> str:
        place = posixpath.normpath(posixpath.join("docs", posixpath.dirname(source), found[2]))
        if place.startswith("docs/"):
            return found[0]
        if not (ROOT / place).exists():
            _log.warning("%s links to %s, which is not there", source, place)
        return f"`{place}`"

    parts = _FENCED.split(markdown)
    parts[::2] = [_OUTSIDE.sub(name, _NAMED.sub(link, part)) for part in parts[::2]]
    return "".join(parts)
