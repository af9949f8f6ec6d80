"""axe finds nothing serious on any page, in either theme; and no page is wider than a telephone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.dashboard.browser.conftest import Site

Visit = Callable[..., Page]

PAGES = {
    "overview": ("", "Newest runs"),
    "runs": ("runs", "customer"),
    "nothing-found": ("runs?key=none", "No run is like that"),
    "errors": ("errors", "NonRetryable"),
    "workflows": ("workflows", "index-tree"),
    "workflow": ("workflows/index-tree", "Newest root runs"),
    "schemas": ("workflows/index-tree/schemas", "properties"),
    "trigger": ("workflows/index-tree/trigger", "What to index."),
    "queues": ("queues", "nobody pulls"),
    "workers": ("workers", "alive"),
    "doctor": ("doctor", "What is stored"),
    "run": ("runs/{site}", "Open the table"),
    "step": ("runs/{broken}?step=report", "Attempt 2"),
    "failed": ("runs/{broken}", "do not add up"),
    "retrying": ("runs/{stubborn}", "retrying"),
    "children": ("runs/{site}/children", "/docs/000"),
    "failed-children": ("runs/{site}/children?status=failed", "NonRetryable"),
    "run-errors": ("runs/{broken}/errors", "Of its children"),
    "timeline": ("runs/{broken}/timeline", "Draw over a part"),
    "tree": ("runs/{deep}/tree", "level-3"),
    "values": ("runs/{site}/values", "400"),
    "messages": ("runs/{site}/messages", "index-tree"),
    "lanes": ("runs/{stuck}/timeline?lanes=1", "One by one"),
    "compared": ("runs/{site}/values?with={broken}", "differ"),
    "retrying-runs": ("runs?status=retrying", "ConnectionError"),
    "schedules": ("schedules", "on weekdays"),
    "schedule": ("schedules?name=report", "All its runs"),
    "events": ("events", "customer-700"),
    "event": ("events?topic=order.paid&key=customer-12&event=3", "Started 1 run"),
    "no-event": ("events?topic=nothing.at.all", "No event is like that"),
    "waits": ("runs/{sell}?step=run", "Waits for one of"),
    "sleeps": ("runs/{doze}", "sleeps, goes on"),
    "attempts": ("runs/{wavering}?step=run", "What differs from attempt 1"),
}

SERIOUS = ("serious", "critical")


def shown(visit: Visit, site: Site, name: str, **how: object) -> Page:
    path, text = PAGES[name]
    page = visit(path.format(**site.runs), **how)
    expect(page.locator("main").get_by_text(text).first).to_be_visible()
    return page


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_nothing_serious(name: str, theme: str, visit: Visit, site: Site) -> None:
    page = shown(visit, site, name, theme=theme)
    found = Axe().run(page).response["violations"]
    told = [
        f"{one['id']}: {one['help']}: {node['target']} {node['html'][:160]} {node['failureSummary'][:300]}"
        for one in found
        if one["impact"] in SERIOUS
        for node in one["nodes"]
    ]
    assert told == []


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_no_wider_than_a_telephone(name: str, visit: Visit, site: Site) -> None:
    page = shown(visit, site, name, width=390)
    wide = """() => [...document.querySelectorAll('main *')].filter(one => {
        const box = one.getBoundingClientRect()
        return box.width && box.right > innerWidth + 1
            && !one.closest('.tabs, .chips, .canvas, pre, .vgrid, .drawer, svg, .hidden')
    }).map(one => one.outerHTML.slice(0, 120))"""
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), page.evaluate(wide)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_what_lies_over_a_page_is_accessible(theme: str, visit: Visit, site: Site) -> None:
    page = shown(visit, site, "runs", theme=theme)
    for key, dialog in (("?", "Keys"), ("Control+k", "Go to")):
        page.keyboard.press(key)
        expect(page.get_by_role("dialog", name=dialog)).to_be_visible()
        found = Axe().run(page).response["violations"]
        assert [one["id"] for one in found if one["impact"] in SERIOUS] == []
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_have_count(0)


def test_a_status_is_a_word_and_a_shape(visit: Visit, site: Site) -> None:
    page = shown(visit, site, "runs")
    shapes = {}
    for status in page.locator(".rows .st").all():
        shapes.setdefault(status.locator("svg").inner_html(), set()).add(status.inner_text())
    assert len(shapes) >= 4
    assert all(len(words) == 1 for words in shapes.values())


def test_nothing_turns_for_those_who_want_no_motion(visit: Visit, site: Site) -> None:
    page = visit(f"runs/{site.runs['patient']}")
    page.emulate_media(reduced_motion="reduce")
    mark = page.locator(".spin").first
    expect(mark).to_be_visible()
    assert float(mark.evaluate("mark => parseFloat(getComputedStyle(mark).animationDuration)")) < 0.01
