"""The walk that the dashboard was made for: a parent, the table of what it spawned, one child in full, and up again."""

from __future__ import annotations

import re
from collections.abc import Callable

from playwright.sync_api import Page, expect

from tests.dashboard.browser.conftest import Site
from tests.dashboard.browser.flows import CHILDREN, FAILED

Visit = Callable[..., Page]


def test_the_table_of_spawned_runs_leads_to_a_childs_own_steps_and_back(visit: Visit, site: Site) -> None:
    page = visit("runs")
    page.get_by_role("link", name="index-tree").last.click()  # the oldest of them
    expect(page.get_by_role("heading", level=1)).to_have_text("site")

    graph = page.get_by_role("group", name="Steps of the run")
    expect(graph.locator(".node")).to_have_count(4)  # its steps, and none of its children
    graph.get_by_role("button", name=f"{CHILDREN} children of scan").click()

    statuses = page.get_by_role("group", name="Status")
    expect(statuses.get_by_role("button", name=f"failed {FAILED}")).to_be_visible()
    expect(statuses.get_by_role("button", name=f"succeeded {CHILDREN - FAILED}")).to_be_visible()
    statuses.get_by_role("button", name="failed").click()
    table = page.get_by_role("grid", name="Children")
    expect(table).to_have_attribute("aria-rowcount", str(FAILED + 1))
    table.get_by_role("row").filter(has_text="/docs/040").click()

    expect(page.get_by_role("heading", level=1)).to_have_text("/docs/040")
    steps = page.get_by_role("grid", name="Steps")
    expect(steps.get_by_role("row").nth(1)).to_contain_text("failed")
    steps.get_by_role("button", name="run").click()
    drawer = page.get_by_role("complementary", name="Step run")
    expect(drawer).to_contain_text("Attempt 1")
    expect(drawer).to_contain_text("Attempt 2")
    expect(drawer).to_contain_text("KeyError")
    expect(drawer).to_contain_text("count_words")
    drawer.get_by_role("button", name="Close").click()

    page.get_by_role("link", name="Up", exact=True).click()
    expect(table.locator(".row.on")).to_contain_text("/docs/040")  # where one came from
    expect(statuses.get_by_role("button", name="failed")).to_have_attribute("aria-pressed", "true")


def test_levels_below_each_other_are_a_path(visit: Visit, site: Site) -> None:
    page = visit(f"runs/{site.runs['deep']}")
    for depth in (3, 2, 1, 0):
        page.get_by_role("link", name="Children", exact=False).first.click()
        page.get_by_role("grid", name="Children").get_by_text(f"level-{depth}").click()
        expect(page.get_by_role("heading", level=1)).to_have_text(f"level-{depth}")
    path = page.get_by_role("navigation", name="Path")
    expect(path).to_contain_text("deep")
    expect(path.get_by_role("link")).to_have_count(5)
    path.get_by_role("link", name="level · deep").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("deep")


def test_siblings_follow_each_other_within_the_filter_that_one_came_from(visit: Visit, site: Site) -> None:
    page = visit(f"runs/{site.runs['site']}/children?status=failed")
    rows = page.get_by_role("grid", name="Children").locator(".row[data-row]")
    expect(rows).to_have_count(FAILED)
    names = [row.locator(".first").inner_text() for row in rows.all()]
    rows.first.click()
    expect(page.get_by_role("heading", level=1)).to_have_text(names[0])
    for name in names[1:4]:
        page.keyboard.press("]")
        expect(page.get_by_role("heading", level=1)).to_have_text(name)
    page.keyboard.press("[")
    expect(page.get_by_role("heading", level=1)).to_have_text(names[2])


def test_failures_are_groups_and_a_group_shows_its_newest_traceback(visit: Visit) -> None:
    page = visit("errors")
    group = page.get_by_role("listitem").filter(has_text="KeyError")
    expect(group.locator(".count")).to_have_text("2")
    group.click()
    expect(page.get_by_role("heading", level=1)).to_have_text("KeyError")
    expect(page.locator(".trace")).to_contain_text("count_words")
    page.get_by_role("button", name="Copy as issue").click()
    expect(page.get_by_role("status").filter(has_text="Copied")).to_be_visible()
    assert "count_words" in page.evaluate("navigator.clipboard.readText()")


def test_the_tabs_of_a_run_tell_what_it_did(visit: Visit, site: Site) -> None:
    page = visit(f"runs/{site.runs['site']}/timeline")
    expect(page.get_by_role("img", name=f"{CHILDREN} children ended")).to_be_visible()
    expect(page.get_by_role("img", name="check, attempt 1: ran")).to_be_visible()
    tabs = page.get_by_role("navigation", name="Ways to look at the run")
    tabs.get_by_role("link", name="Tree").click()
    expect(page.get_by_role("link", name=f"{CHILDREN} runs of index-file by scan")).to_be_visible()
    tabs.get_by_role("link", name="Errors").click()
    expect(page.get_by_role("listitem")).to_have_count(3)
    tabs.get_by_role("link", name="Input and output").click()
    expect(page.locator(".json").first).to_contain_text('"site"')
    expect(page.locator(".json").last).to_contain_text(f"files: {CHILDREN}")
    tabs.get_by_role("link", name="Messages").click()
    expect(page.get_by_role("grid", name="Messages")).to_contain_text("jf.")


def test_a_step_that_is_tried_again_says_when_and_why(visit: Visit, site: Site) -> None:
    page = visit(f"runs/{site.runs['stubborn']}")
    row = page.get_by_role("grid", name="Steps").get_by_role("row").nth(1)
    expect(row).to_contain_text("retrying")
    expect(row).to_contain_text(re.compile(r"[1-5] / 5"))
    expect(row).to_contain_text("ConnectionError refused: later")
