"""The dashboard's pages in a real browser: how soon they show rows, how soon they jump, what they hold.

The dashboard is the command, in a process of its own. The browser is Chromium, driven by Playwright; it stands for one
on another machine, and so runs where it is open beside a load when nothing else does. What it asks can be noted, and
asked again without it: to draw a page takes as much of two processors as a third of what is measured beside it.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from random import Random
from statistics import median
from time import monotonic
from typing import Any, Final

import httpx
import msgspec

from benchmarks.measuring import percentile

CHROMIUM: Final = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")

OPENED: Final = 9
"""Times that a page is opened anew."""

JUMPS: Final = 40

SCRIPT: Final = """
window.seen = {}
const look = () => {
    if (!seen.rows && document.querySelector('.vgrid .row[data-row]')) seen.rows = performance.now()
    const told = document.querySelector('.fanout .top-line b')
    if (!seen.totals && told && /\\d/.test(told.textContent)) seen.totals = performance.now()
    if (!seen.rows || !seen.totals) requestAnimationFrame(look)
}
requestAnimationFrame(look)
"""
"""Notes when the first rows and the totals are on the page, in milliseconds after the navigation."""

JUMP: Final = """async place => {
    const port = document.querySelector('.vgrid .port')
    const began = performance.now()
    port.scrollTop = place * (port.scrollHeight - port.clientHeight)
    await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))
    const whole = () => [...document.querySelectorAll('.vgrid .row')].every(row => row.dataset.row)
    while (!whole() && performance.now() - began < 10000) await new Promise(done => requestAnimationFrame(done))
    return [performance.now() - began, document.querySelectorAll('.vgrid .row').length]
}"""
"""Scrolls to a place (a share of the whole), and waits until every row there is shown, for ten seconds at most."""


SHOWN: Final = """() => new Promise(done => {
    const look = () => seen.rows && seen.totals ? done(seen) : requestAnimationFrame(look)
    look()
})"""
"""Waits for both. The page's Content-Security-Policy forbids what Playwright's own waiting does."""


class Opened(msgspec.Struct, kw_only=True):
    """A page that was opened, jumped about in, and looked at. Milliseconds, and MB of 10^6 bytes."""

    rows_ms: float
    totals_ms: float
    jump_ms: float = 0.0
    jump_p95_ms: float = 0.0
    most_rows: int = 0


class Question(msgspec.Struct, frozen=True):
    """A request of a page: seconds after the page was opened, the path, and whether its answer goes on as events."""

    at: float
    path: str
    stream: bool


async def ask_again(url: str, questions: Sequence[Question], until: Awaitable[Any]) -> None:
    """Ask what a page has asked, at the same times, and listen to its events until something is there."""
    began = monotonic()
    async with httpx.AsyncClient(base_url=url, timeout=60) as http, asyncio.TaskGroup() as group:

        async def ask(question: Question) -> None:
            await asyncio.sleep(max(0.0, began + question.at - monotonic()))
            async with http.stream("GET", question.path) as answer:
                answer.raise_for_status()
                async for _ in answer.aiter_bytes():
                    pass

        asking = [group.create_task(ask(question)) for question in questions]
        await until
        for one, question in zip(asking, questions, strict=True):
            if question.stream:
                one.cancel()


class Pages:
    """A dashboard, and a browser that looks at it."""

    def __init__(self, url: str, browser: Any, dashboard_pid: int) -> None:
        self.url: str = url
        self._browser = browser
        self.dashboard_pid: int = dashboard_pid

    @asynccontextmanager
    async def open(self, path: str, asked: list[Question] | None = None) -> AsyncIterator[Any]:
        """Open a page in a context that has seen nothing before. What it asks is added to ``asked``."""
        context = await self._browser.new_context(viewport={"width": 1440, "height": 900})
        try:
            page = await context.new_page()
            await page.add_init_script(SCRIPT)
            began = monotonic()

            def note(request: Any) -> None:
                if asked is not None and request.url.startswith(self.url):
                    path, stream = request.url.removeprefix(self.url), request.resource_type == "eventsource"
                    asked.append(Question(monotonic() - began, path, stream))

            page.on("request", note)
            await page.goto(self.url + path, wait_until="commit")
            yield page
        finally:
            await context.close()

    async def table(self, run: str, *, jumps: int = 0) -> Opened:
        """Open the table of a run's children again and again; the last time, jump about in it."""
        rows: list[float] = []
        totals: list[float] = []
        times: list[float] = []
        most = 0
        for number in range(OPENED):
            async with self.open(f"runs/{run}/children") as page:
                seen = await shown(page)
                rows.append(seen["rows"])
                totals.append(seen["totals"])
                if number == OPENED - 1:
                    chosen = Random(1)
                    for _ in range(jumps):
                        took, count = await page.evaluate(JUMP, chosen.random())
                        times.append(took)
                        most = max(most, count)
        return Opened(
            rows_ms=median(rows),
            totals_ms=median(totals),
            jump_ms=median(times) if times else 0.0,
            jump_p95_ms=percentile(times, 95) if times else 0.0,
            most_rows=most,
        )

    async def stays(self, run: str, seconds: float) -> float:
        """Keep the table of a run open while its children end, scrolling now and then; return its heap in MB."""
        async with self.open(f"runs/{run}/children") as page:
            await shown(page)
            chosen, until = Random(2), monotonic() + seconds
            while monotonic() < until:
                await page.evaluate(JUMP, chosen.random())
                await asyncio.sleep(2)
            session = await page.context.new_cdp_session(page)
            await session.send("HeapProfiler.collectGarbage")
            heap = await session.send("Runtime.getHeapUsage")
        return heap["usedSize"] / 1e6


async def shown(page: Any) -> dict[str, float]:
    """Wait until rows and totals are there; return when they were, in milliseconds after the navigation."""
    async with asyncio.timeout(60):
        return await page.evaluate(SHOWN)


@asynccontextmanager
async def dashboard(server: str) -> AsyncIterator[tuple[str, int]]:
    """Serve the dashboard; return its URL, and the id of its process."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "jetflow.cli", "dashboard", "--port", "0", "--server", server),
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        told = (await asyncio.wait_for(process.stdout.readline(), 30)).decode().split()
        if len(told) < 2:
            raise RuntimeError("the dashboard did not start")
        yield told[1].rstrip("/") + "/", process.pid
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


@asynccontextmanager
async def pages(server: str, *, beside: bool = False) -> AsyncIterator[Pages]:
    """Serve the dashboard, and start a browser; ``beside`` a load it runs when nothing else does.

    Raises:
        RuntimeError: there is no Chromium, or no Playwright.
    """
    if CHROMIUM is None:
        raise RuntimeError("there is no chromium on the PATH, and CHROMIUM names none: apt-get install chromium")
    try:
        from playwright.async_api import async_playwright  # noqa: PLC0415 - other workloads do without it
    except ModuleNotFoundError:
        raise RuntimeError("playwright is not installed: make env") from None
    async with dashboard(server) as (url, pid), async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            if beside:
                _lower(os.getpid())
            yield Pages(url, browser, pid)
        finally:
            await browser.close()


def _lower(parent: int) -> None:
    """Have all processes of the browser below this one run when nothing else does, as if they were on another machine.

    Those that they start inherit that. A niceness would not do: a browser sets that of its processes itself.
    """
    children: dict[int, list[int]] = {}
    names: dict[int, str] = {}
    for entry in os.listdir("/proc"):  # noqa: PTH208 - a list of processes
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat") as file:  # noqa: PTH123
                    name, _, rest = file.read().partition("(")[2].rpartition(")")
            except OSError:
                continue
            names[int(entry)] = name
            children.setdefault(int(rest.split()[1]), []).append(int(entry))
    below = list(children.get(parent, ()))
    while below:
        pid = below.pop()
        below += children.get(pid, ())
        if "chrom" in names[pid] or "node" in names[pid]:
            for thread in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208
                os.sched_setscheduler(int(thread), os.SCHED_IDLE, os.sched_param(0))
