"""A real browser at a real dashboard. Every test checks what no page may do: complain, or ask another origin.

The dashboard runs in a process of its own, one for all tests that only look; Playwright drives Chromium from this one.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from typing import NamedTuple

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from jetflow.server import NatsServer

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")

PATIENCE = 15_000
"""Milliseconds that an expectation waits for; it is over as soon as it is met."""


class Site(NamedTuple):
    """A dashboard that serves, and the ids of its runs by their keys."""

    url: str
    runs: dict[str, str]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker("browser")
            if CHROMIUM is None and not os.environ.get("JETFLOW_NEEDS_BROWSER"):
                item.add_marker(pytest.mark.skip(reason="there is no chromium: apt-get install chromium"))


@contextlib.contextmanager
def serving(server: NatsServer, *options: str) -> Generator[Site]:
    """Serve a dashboard of a namespace of its own."""
    command = [sys.executable, "-m", "tests.dashboard.browser.serve", server.url, f"b{secrets.token_hex(4)}", *options]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3]
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        told = process.stdout.readline()
        assert told, f"the dashboard did not start: {process.wait(10)}"
        yield Site(**json.loads(told))
    finally:
        process.stdin.close()
        process.stdout.close()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture(scope="session")
def site(nats_server: NatsServer) -> Generator[Site]:
    """A dashboard with runs of all kinds, for tests that change none that others look at."""
    with serving(nats_server) as site:
        yield site


@pytest.fixture(scope="module")
def browser(nats_server: NatsServer) -> Generator[Browser]:
    """A browser for the tests of one module: while it lives, its event loop is this thread's, and no other can run."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


class Watched:
    """Pages whose complaints are gathered."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self.complaints: list[str] = []
        self.expected: tuple[str, ...] = ()

    def open(self, site: Site, path: str = "", *, theme: str = "light", width: int = 1440) -> Page:
        """Open a page in a browser that has seen nothing before."""
        context = self._browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme="dark" if theme == "dark" else "light"
        )
        context.set_default_timeout(PATIENCE)
        expect.set_options(timeout=PATIENCE)
        context.grant_permissions(["clipboard-read", "clipboard-write"])
        page = context.new_page()
        page.on("console", lambda said: self._heard(said.type, said.text))
        page.on("pageerror", lambda error: self._heard("error", str(error)))
        page.on("request", lambda request: self._asked(site, request.url))
        page.goto(site.url + path)
        return page

    def close(self) -> None:
        """Close all pages."""
        for context in self._browser.contexts:
            context.close()

    def _heard(self, kind: str, text: str) -> None:
        if kind in ("error", "warning") and not any(one in text for one in self.expected):
            self.complaints.append(f"{kind}: {text}")

    def _asked(self, site: Site, url: str) -> None:
        if not url.startswith((site.url, "data:", "blob:")):
            self.complaints.append(f"request to another origin: {url}")


@pytest.fixture
def watched(browser: Browser) -> Generator[Watched]:
    """Opens pages. A complaint of any (console, Content Security Policy, an exception) fails the test."""
    watched = Watched(browser)
    yield watched
    watched.close()
    assert watched.complaints == []


@pytest.fixture
def visit(watched: Watched, site: Site) -> Callable[..., Page]:
    """Open a path of the dashboard that has runs of all kinds."""

    def visit(path: str = "", *, theme: str = "light", width: int = 1440) -> Page:
        return watched.open(site, path, theme=theme, width=width)

    return visit
