"""Servers with the configurations of ``docker/nats``, as they are but for ports and the place of their data."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from jetflow.server import NatsServer, ServerOptions

CONFIGURATIONS: Final = Path(__file__).parents[2] / "docker" / "nats"

PASSWORD: Final = "secret"


def text_of(name: str) -> str:
    """Return a configuration with all that it includes."""
    text = (CONFIGURATIONS / name).read_text()
    return re.sub(r"^include (\S+)$", lambda found: text_of(found[1]), text, flags=re.MULTILINE)


def variables(text: str) -> dict[str, str]:
    """Return the environment that a configuration asks for."""
    return dict.fromkeys(re.findall(r"\$([A-Z][A-Z_]+)\b", text), PASSWORD)


def server_of(name: str, store: Path) -> NatsServer:
    """Return a server with a configuration, on free ports of this machine. Its variables are the caller's to set."""
    text = text_of(name)
    for line, here in (("http: 0.0.0.0:8222", "http: 127.0.0.1:-1"), ("store_dir: /data", "")):
        assert line in text
        text = text.replace(line, here)
    return NatsServer(store, ServerOptions(config=text))


def url(server: NatsServer, user: str) -> str:
    return server.url.replace("//", f"//{user}:{PASSWORD}@")
