"""Where the server of a project's `jetflow dev` is, for the other commands in the project's directories.

It is written to ``.jetflow/dev.json`` where `jetflow dev` was started, so that the commands of two projects that are
worked on side by side do not meet on one server's usual port.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator
from pathlib import Path
from typing import Final

import msgspec

FILE: Final = Path(".jetflow", "dev.json")


class DevServer(msgspec.Struct, frozen=True):
    """A server that `jetflow dev` has started: its URL, the process that ends it, and where its dashboard is."""

    url: str
    pid: int
    dashboard: str | None = None

    @property
    def lives(self) -> bool:
        """Whether that process still runs."""
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:  # somebody else's
            return True
        return True


def dev_server() -> DevServer | None:
    """Return the server of the nearest directory upwards in which `jetflow dev` runs."""
    here = Path.cwd()
    for directory in (here, *here.parents):
        with contextlib.suppress(OSError, msgspec.MsgspecError):  # none, or not ours to read
            found = msgspec.json.decode((directory / FILE).read_bytes(), type=DevServer)
            if found.lives:
                return found
    return None


@contextlib.contextmanager
def shown(url: str) -> Generator[DevServer | None]:
    """Show the commands of this project where its server is. Yields another server of this directory, which stays."""
    other = _written()
    if other is not None and other.lives:
        yield other
        return
    mine = DevServer(url, os.getpid())
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_bytes(msgspec.json.encode(mine))
    try:
        yield None
    finally:
        if _is_mine(_written()):
            FILE.unlink()


def tell_dashboard(url: str) -> None:
    """Tell the commands of this project where the dashboard of its server is, if it is this process that shows it."""
    mine = _written()
    if mine is not None and _is_mine(mine):
        FILE.write_bytes(msgspec.json.encode(DevServer(mine.url, mine.pid, url)))


def _is_mine(shown: DevServer | None) -> bool:
    return shown is not None and shown.pid == os.getpid()


def _written() -> DevServer | None:
    try:
        return msgspec.json.decode(FILE.read_bytes(), type=DevServer)
    except (OSError, msgspec.MsgspecError):
        return None
