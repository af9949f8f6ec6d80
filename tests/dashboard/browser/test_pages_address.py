"""The address is the state: reload, back and a pasted link show the same again."""

from __future__ import annotations

import re
from collections.abc import Callable

from playwright.sync_api import Page, expect

from tests.dashboard.browser.conftest import Site, Watched
from tests.dashboard.browser.flows import CHILDREN

Visit = Callable[..., Page]


def rows_of(page: Page) -> list[str]:
    expect(page.locator(".vgrid .row[data-row]").first).to_be_visible()
    expect(page.locator(".vgrid .row:not([data-row])")).to_have_count(0)
    return [row.inner_text() for row in page.locator(".vgrid .row[data-row] .first").all()]


def test_a_table_of_children_is_restored_by_reload_and_by_link(visit: Visit, watched: Watched, site: Site) -> None:
    page = visit(f"runs/{site.runs['site']}/children?status=succeeded&sort=-key")
    table = page.get_by_role("grid", name="Children")
    expect(table.locator(".row[data-row]").first).to_contain_text("/docs/399")
    table.locator(".port").evaluate("port => { port.scrollTop = 28 * 200 }")
    expect(page).to_have_url(re.compile(r"at=200\b"))
    expect(table.locator(".row[data-row]").first).to_be_visible()
    before = rows_of(page)
    page.reload()
    expect(table.locator(".row[data-row]").first).to_have_text(re.compile(re.escape(before[0])))
    pasted = watched.open(site, page.url.removeprefix(site.url))
    expect(pasted.locator(".vgrid .row[data-row] .first").first).to_have_text(before[0])
    expect(pasted.get_by_role("columnheader", name="Key")).to_have_attribute("aria-sort", "descending")
    assert rows_of(pasted) == before


def test_back_restores_the_place_and_the_focus(visit: Visit, site: Site) -> None:
    page = visit("runs", width=1000)
    page.set_viewport_size({"width": 1000, "height": 300})
    row = page.locator(f'[data-row="{site.runs["site"]}"]')
    row.focus()
    row.scroll_into_view_if_needed()
    place = page.evaluate("scrollY")
    assert place > 0
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("site")
    assert page.evaluate("scrollY") == 0
    page.go_back()
    expect(row).to_be_focused()
    page.wait_for_function("place => Math.abs(scrollY - place) < 3", arg=place)


def test_a_filter_of_runs_is_a_link(visit: Visit, site: Site) -> None:
    page = visit("runs")
    page.get_by_role("group", name="Status").get_by_role("button", name="failed").click()
    page.get_by_label("Workflow").select_option("index-tree")
    search = page.get_by_role("searchbox")
    search.fill("broken")
    search.press("Enter")
    expect(page.locator(".rows .row")).to_have_count(1)
    page.reload()
    expect(page.locator(".rows .row")).to_have_count(1)
    expect(page.locator(".rows .row")).to_have_attribute("data-row", site.runs["broken"])
    expect(search).to_have_value("broken")
    page.goto(site.url + "runs?sort=key")
    expect(page.get_by_role("columnheader", name="Key")).to_have_attribute("aria-sort", "ascending")
    page.goto(site.url + "runs?meta.customer=acme")
    expect(page.locator(".rows .row")).to_have_count(1)
    expect(page.locator(".rows .row")).to_have_attribute("data-row", site.runs["site"])


def test_the_drawer_of_a_step_is_a_link(visit: Visit, site: Site) -> None:
    page = visit(f"runs/{site.runs['broken']}?step=report")
    drawer = page.get_by_role("complementary", name="Step report")
    expect(drawer).to_contain_text("do not add up")
    page.keyboard.press("Escape")
    expect(drawer).to_have_count(0)
    expect(page).not_to_have_url(re.compile("step="))


def test_what_is_not_there_says_so(visit: Visit, watched: Watched) -> None:
    watched.expected = ("404 (Not Found)",)
    page = visit(f"runs/{'0' * 32}")
    expect(page.get_by_role("heading", name="This run is not stored")).to_be_visible()
    page = visit("no/such/page")
    expect(page.get_by_role("heading", name="There is no such page")).to_be_visible()
    page = visit("workflows/nobody")
    expect(page.get_by_role("heading", name="No workflow is called so")).to_be_visible()


def test_a_million_rows_are_a_few_in_the_document(visit: Visit, site: Site) -> None:
    """The grid alone: its rows are made up, for a million real ones belong to the benchmarks."""
    million = 1_000_000
    page = visit("runs")

    def rows(route):  # type: ignore[no-untyped-def]
        offset = int(re.search(r"offset=(\d+)", route.request.url)[1])  # type: ignore[index]
        items = [
            {"id": f"{n:032x}", "workflow": "w", "step": "s", "status": "succeeded", "n": n, "key": f"key-{n}",
             "attempts": 1, "queued": 1.0, "started": 1.0, "ended": 2.0}
            for n in range(offset, min(offset + 100, million))
        ]  # fmt: skip
        route.fulfill(json={"items": items, "next": None, "previous": None, "total": million, "searched": {}})

    page.route("**/children?**", rows)
    page.goto(site.url + f"runs/{site.runs['site']}/children")
    table = page.get_by_role("grid", name="Children")
    expect(table).to_have_attribute("aria-rowcount", str(million + 1))
    page.keyboard.press("End")
    expect(table.get_by_text(f"key-{million - 1}")).to_be_visible()
    for key, shown in (("k", million - 2), ("k", million - 3), ("Home", 0)):
        page.keyboard.press(key)
        expect(table.locator(".row.on")).to_contain_text(f"key-{shown}")
    port = table.locator(".port")
    port.evaluate("port => { port.scrollTop = (port.scrollHeight - port.clientHeight) / 2 }")
    expect(table.locator(".row[data-row]").first).to_contain_text(re.compile(r"key-4999\d\d|key-5000\d\d"))
    assert table.locator(".row").count() <= 80
    first = int(table.locator(".row[data-row] .first").first.inner_text().removeprefix("key-"))
    port.hover()
    page.mouse.wheel(0, 28 * 3)
    expect(table.locator(".row[data-row] .first").first).to_have_text(f"key-{first + 3}")  # by rows, not by the bar


def test_there_are_as_many_rows_as_children(visit: Visit, site: Site) -> None:
    page = visit(f"runs/{site.runs['site']}/children")
    table = page.get_by_role("grid", name="Children")
    expect(table).to_have_attribute("aria-rowcount", str(CHILDREN + 1))
    page.keyboard.press("End")
    expect(table.locator(".row.on")).to_contain_text("/docs/399")
    assert table.locator(".row").count() <= 80


def test_rows_that_cannot_be_read_are_asked_for_again_but_not_at_once(
    visit: Visit, watched: Watched, site: Site
) -> None:
    watched.expected = ("503",)
    page = visit("runs")
    asked: list[str] = []
    away = {
        "type": "urn:jetflow:broker-away",
        "title": "Broker away",
        "status": 503,
        "detail": "no answer",
        "hint": "wait",
    }

    def refuse(route):  # type: ignore[no-untyped-def]
        asked.append(route.request.url)
        if len(asked) < 3:
            route.fulfill(status=503, json=away, content_type="application/problem+json")
        else:
            route.continue_()

    page.route("**/children?**", refuse)
    page.goto(site.url + f"runs/{site.runs['site']}/children")
    expect(page.get_by_text("no answer").first).to_be_visible()
    page.wait_for_timeout(400)
    assert len(asked) <= 2
    expect(page.get_by_text("/docs/000")).to_be_visible()
    assert 3 <= len(asked) <= 6
