"""All by keyboard: find the failed child of a run, read its traceback, go up, cancel."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import Page, expect

from tests.dashboard.browser.conftest import Site
from tests.dashboard.browser.flows import FAILED

Visit = Callable[..., Page]


def press(page: Page, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def test_the_failed_child_is_found_read_and_left_by_keys(visit: Visit, site: Site) -> None:
    page = visit("")
    expect(page.get_by_role("heading", level=1)).to_have_text("Overview")
    press(page, "g", "r")
    expect(page.get_by_role("heading", level=1)).to_have_text("Runs")
    expect(page.locator(f'[data-row="{site.runs["site"]}"]')).to_be_visible()
    while page.evaluate("document.activeElement.dataset.row") != site.runs["site"]:
        press(page, "j")
    press(page, "Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("site")

    press(page, "2")
    table = page.get_by_role("grid", name="Children")
    expect(table.locator(".row[data-row]").first).to_be_visible()
    press(page, "/")
    page.keyboard.type("KeyError")
    expect(table).to_have_attribute("aria-rowcount", "3")
    press(page, "Escape", "j", "Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("/docs/040")
    expect(page.locator(".trace").first).to_contain_text("count_words")
    press(page, "u")
    expect(table).to_have_attribute("aria-rowcount", "3")
    expect(table.locator(".row.on")).to_contain_text("/docs/040")


def test_space_looks_inside_and_escape_leaves(visit: Visit, site: Site) -> None:
    page = visit(f"runs/{site.runs['site']}/children?status=failed")
    table = page.get_by_role("grid", name="Children")
    expect(table.locator(".row[data-row]")).to_have_count(FAILED)
    press(page, "j", " ")
    drawer = page.get_by_role("complementary").filter(has_text="Open the run")
    expect(drawer).to_contain_text("NonRetryable")
    press(page, "Escape")
    expect(drawer).to_have_count(0)
    expect(table).to_be_visible()


def test_anything_is_found_by_its_name(visit: Visit, site: Site) -> None:
    page = visit("runs")
    press(page, "Control+k")
    expect(page.get_by_role("combobox", name="A page")).to_be_focused()
    page.keyboard.type(site.runs["broken"])
    press(page, "Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("broken")
    press(page, "Control+k")
    expect(page.get_by_role("combobox", name="A page")).to_be_focused()
    page.keyboard.type("deep")
    expect(page.get_by_role("option", name="deep")).to_be_visible()
    press(page, "Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("deep")
    press(page, "Control+k")
    expect(page.get_by_role("combobox", name="A page")).to_be_focused()
    page.keyboard.type("index-f")
    expect(page.get_by_role("option", name="index-file")).to_be_visible()
    press(page, "Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("index-file")


def test_a_run_is_cancelled_after_a_question(visit: Visit, site: Site) -> None:
    page = visit("workflows/patient/trigger")
    page.get_by_role("textbox", name="Key optional").fill("to-cancel")
    page.get_by_label("input").first.fill("7")
    page.get_by_label("input").first.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("to-cancel")
    expect(page.locator(".runhead .pill")).to_have_text("running")
    press(page, "c")
    question = page.get_by_role("dialog", name="Cancel to-cancel?")
    expect(question).to_be_visible()
    question.get_by_role("button", name="Cancel the run").press("Enter")
    expect(page.locator(".runhead .pill")).to_have_text("cancelled")


def test_keys_are_letters_where_one_writes(visit: Visit) -> None:
    page = visit("queues")
    expect(page.get_by_role("searchbox")).to_be_visible()
    press(page, "/")
    page.keyboard.type("gruj?t")
    expect(page.get_by_role("searchbox")).to_have_value("gruj?t")
    expect(page.get_by_role("heading", level=1)).to_have_text("Queues")
    expect(page.get_by_text("No queue is called so")).to_be_visible()
