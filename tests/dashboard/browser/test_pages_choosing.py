"""Several statuses at once, views with names, ranges of rows; values beside each other, children one by one, maps."""

from __future__ import annotations

import re
from collections.abc import Callable

import httpx
from playwright.sync_api import Page, Route, expect

from tests.dashboard.browser.conftest import Site
from tests.dashboard.browser.flows import CHILDREN, FAILED, MANY_STEPS

Visit = Callable[..., Page]


def test_several_statuses_are_one_filter(visit: Visit, site: Site) -> None:
    page = visit("runs")
    statuses = page.get_by_role("group", name="Status")
    statuses.get_by_role("button", name="failed").click()
    expect(page.locator(f'[data-row="{site.runs["broken"]}"]')).to_be_visible()
    expect(page.locator(f'[data-row="{site.runs["cancelled"]}"]')).to_have_count(0)
    statuses.get_by_role("button", name="cancelled").click(modifiers=["Shift"])
    for _ in range(2):
        expect(page.locator(f'[data-row="{site.runs["broken"]}"]')).to_be_visible()
        expect(page.locator(f'[data-row="{site.runs["cancelled"]}"]')).to_be_visible()
        expect(page.locator(f'[data-row="{site.runs["site"]}"]')).to_have_count(0)
        expect(page).to_have_url(re.compile("status=failed%2Ccancelled"))
        page.reload()
    statuses.get_by_role("button", name="failed").click(modifiers=["Shift"])
    expect(page.locator(f'[data-row="{site.runs["broken"]}"]')).to_have_count(0)


def test_children_of_several_statuses(visit: Visit, site: Site) -> None:
    page = visit(f"runs/{site.runs['site']}/children?status=failed")
    table = page.get_by_role("grid", name="Children")
    expect(table).to_have_attribute("aria-rowcount", str(FAILED + 1))
    page.get_by_role("group", name="Status").get_by_role("button", name="succeeded").click(modifiers=["Shift"])
    expect(table).to_have_attribute("aria-rowcount", str(CHILDREN + 1))
    expect(table.get_by_text("/docs/000")).to_be_visible()


def test_a_view_is_saved_by_name_and_forgotten(visit: Visit, site: Site) -> None:
    page = visit("runs?workflow=index-tree&status=failed")
    views = page.get_by_role("button", name="Views")
    views.click()
    page.get_by_role("button", name="Save this view…").click()
    page.get_by_role("textbox", name="Name").fill("Broken trees")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_role("status").filter(has_text="Saved as Broken trees")).to_be_visible()
    page.goto(site.url + "runs")
    expect(page.locator(f'[data-row="{site.runs["site"]}"]')).to_be_visible()
    views.click()
    page.get_by_role("button", name="Broken trees").click()
    expect(page).to_have_url(re.compile("runs\\?status=failed&workflow=index-tree"))
    expect(page.locator(f'[data-row="{site.runs["broken"]}"]')).to_be_visible()
    views.click()
    page.get_by_role("button", name="Forget Broken trees").click()
    views.click()
    expect(page.get_by_role("button", name="Broken trees")).to_have_count(0)
    page.get_by_role("button", name="In flight", exact=True).click()
    expect(page.locator(f'[data-row="{site.runs["patient"]}"]')).to_be_visible()


def test_a_range_of_rows_is_chosen(visit: Visit, site: Site) -> None:
    page = visit(f"runs/{site.runs['site']}/children")
    table = page.get_by_role("grid", name="Children")
    expect(table.get_by_text("/docs/000")).to_be_visible()
    for key in ("j", "x", "j", "j", "Shift+X"):
        page.keyboard.press(key)
    expect(page.get_by_text("3 children chosen")).to_be_visible()
    table.get_by_role("checkbox").nth(6).click(modifiers=["Shift"])
    expect(page.get_by_text("7 children chosen")).to_be_visible()
    page.keyboard.press("x")
    expect(page.get_by_text("6 children chosen")).to_be_visible()
    expect(page.locator(".banner").get_by_role("button", name="Rerun")).to_be_enabled()


def test_rows_of_runs_are_chosen_by_range_too(visit: Visit) -> None:
    page = visit("runs?status=open")
    rows = page.get_by_role("grid", name="Runs").locator(".row")
    expect(rows.nth(2)).to_be_visible()
    for key in ("j", "x", "j", "j", "Shift+X"):
        page.keyboard.press(key)
    expect(page.get_by_text("3 chosen")).to_be_visible()


def test_values_are_compared_with_those_of_another_run(visit: Visit, site: Site) -> None:
    page = visit(f"runs/{site.runs['site']}/values")
    expect(page.locator(".json").first).to_be_visible()
    page.keyboard.press("=")
    page.keyboard.type(site.runs["broken"])
    page.keyboard.press("Enter")
    for _ in range(2):
        compared = page.get_by_role("region", name="Input, compared")
        expect(compared).to_contain_text("$.root")
        expect(compared.get_by_role("listitem").filter(has_text="$.root")).to_have_text(re.compile('"broken".*"site"'))
        expect(page.get_by_role("region", name="Output, compared")).to_contain_text("The other run has none")
        page.reload()
    page.get_by_role("button", name="Compare no more").click()
    expect(page.locator(".json").first).to_be_visible()


def test_few_children_have_lanes_of_their_own(visit: Visit, site: Site) -> None:
    page = visit(f"runs/{site.runs['broken']}/timeline")
    lanes = page.get_by_role("list", name="Children over time")
    expect(lanes.get_by_role("listitem")).to_have_count(20)
    lanes.get_by_role("listitem", name="/docs/003").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("/docs/003")
    page.goto(site.url + f"runs/{site.runs['site']}/timeline")
    expect(page.get_by_role("img", name=f"{CHILDREN} children ended")).to_be_visible()
    page.get_by_role("button", name="One by one").click()
    expect(lanes.get_by_role("listitem")).to_have_count(CHILDREN)


def test_a_large_graph_has_a_map(visit: Visit, site: Site) -> None:
    page = visit(f"runs/{site.runs['many']}")
    graph = page.get_by_role("group", name="Steps of the run")
    expect(graph.locator(".node")).to_have_count(MANY_STEPS)
    picture = page.locator(".minimap")
    expect(picture.locator("rect")).to_have_count(MANY_STEPS + 1)
    canvas = page.locator(".canvas")
    assert canvas.evaluate("one => one.scrollTop") == 0
    for _ in range(8):
        page.get_by_role("button", name="Larger").click()
    box = picture.bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + box["width"] - 4, box["y"] + box["height"] * 0.85)
    expect(graph.locator('[data-step="beside-68"]')).to_be_in_viewport()
    page.get_by_role("button", name="Fit").click()
    page.goto(site.url + f"runs/{site.runs['site']}")
    expect(graph.locator(".node").first).to_be_visible()
    expect(picture).to_have_count(0)


def test_a_fan_out_in_which_nothing_ends_says_who_holds_it(visit: Visit, site: Site) -> None:
    """The clock of the page is the dashboard's, and that is ten minutes later here."""
    page = visit("doctor")

    def later(route: Route) -> None:
        told = httpx.get(route.request.url).json()
        route.fulfill(json=told | {"now": told["now"] + 600})

    page.route("**/api/v1/meta", later)
    page.goto(site.url + f"runs/{site.runs['stuck']}")
    expect(page.get_by_text("Stalled: 3 children open")).to_be_visible()
    expect(page.locator(".banner")).to_contain_text("held-0")
    expect(page.locator(".banner")).to_contain_text(re.compile("running on .+ for"))
    page.get_by_role("link", name="Show them").click()
    expect(page.get_by_role("grid", name="Children")).to_have_attribute("aria-rowcount", "4")
