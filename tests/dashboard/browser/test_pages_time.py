"""What begins by itself, what was published, what waits, and what is tried again: pages that one acts from."""

from __future__ import annotations

import re
from collections.abc import Callable

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.dashboard.browser.conftest import Site

Visit = Callable[..., Page]


def test_a_schedule_says_when_it_is_due_and_what_became_of_its_ticks(visit: Visit) -> None:
    page = visit("schedules")
    rows = page.get_by_role("grid", name="Schedules").locator("[data-row]")
    expect(rows).to_have_count(4)
    nightly = page.locator('[data-row="nightly"]')
    expect(nightly).to_contain_text("at 03:30 on weekdays, Europe/Berlin")
    expect(nightly).to_contain_text(re.compile(r"in \d"))
    expect(page.locator('[data-row="held"]')).to_contain_text("paused")
    expect(page.locator('[data-row="report"] .ticks a')).to_have_count(6)
    expect(page.locator('[data-row="sums"] .ticks a').first).to_have_attribute("aria-label", re.compile("failed"))
    page.locator('[data-row="sums"] .ticks a').first.click()
    expect(page.locator(".runhead h1")).to_have_text(re.compile("sums@"))
    page.go_back()
    page.locator('[data-row="held"]').focus()
    page.keyboard.press("Enter")
    drawer = page.get_by_role("complementary", name="Schedule held")
    expect(drawer).to_contain_text("It is paused.")
    page.keyboard.press("Escape")
    expect(drawer).to_have_count(0)


def test_a_schedule_is_paused_resumed_run_now_and_made_up_for(visit: Visit) -> None:
    page = visit("schedules")
    nightly = page.locator('[data-row="nightly"]')
    nightly.get_by_role("button", name="Pause").click()
    expect(nightly).to_contain_text("paused")
    nightly.get_by_role("button", name="Resume").click()
    expect(nightly.get_by_role("button", name="Pause")).to_be_visible()
    expect(nightly).to_contain_text("Europe/Berlin")
    page.locator('[data-row="report"] a.name').click()
    page.get_by_role("button", name="Make up for…").click()
    page.get_by_role("button", name="Begin their runs").click()
    expect(page.get_by_text("ticks have their runs")).to_be_visible()
    page.keyboard.press("Escape")
    nightly.get_by_role("button", name="Run now").click()
    expect(page.locator(".runhead h1")).to_have_text(re.compile("nightly@"))


def test_an_event_leads_to_what_it_has_started(visit: Visit) -> None:
    page = visit("events")
    rows = page.get_by_role("grid", name="Events").locator("[data-row]")
    expect(rows).to_have_count(5)
    expect(rows.first).to_contain_text("hurry")
    expect(page.locator('[data-row="1"]')).to_contain_text("<img src=x")
    page.keyboard.press("/")
    page.keyboard.type("order.paid")
    page.keyboard.press("Enter")
    expect(rows).to_have_count(3)
    expect(page).to_have_url(re.compile("topic=order.paid"))
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    drawer = page.get_by_role("complementary", name=re.compile("Event"))
    expect(drawer).to_contain_text("customer-700")
    expect(drawer).to_contain_text("700")
    drawer.get_by_role("link", name="thank").click()
    expect(page.locator(".runhead")).to_contain_text("thank")


def test_a_step_that_waits_says_for_what_and_since_when(visit: Visit, site: Site) -> None:
    page = visit(f"runs/{site.runs['sell']}")
    expect(page.locator("main")).to_contain_text(re.compile(r"waits for order\.approved \(o-17\)\s+or 1 more, for"))
    page.get_by_role("button", name="run", exact=True).click()
    drawer = page.get_by_role("complementary", name="Step run")
    expect(drawer).to_contain_text("yes = true")
    expect(drawer).to_contain_text("signal stop")
    expect(drawer).to_contain_text(re.compile(r"Gives upin 2 d"))
    expect(drawer.get_by_text("Where its code stands")).to_have_count(0)
    drawer.get_by_role("link", name="order.approved").click()
    expect(page).to_have_url(re.compile(r"events\?topic=order.approved&key=o-17"))
    page.goto(f"{site.url}runs/{site.runs['doze']}")
    expect(page.locator("main")).to_contain_text(re.compile(r"sleeps, goes on in 1 d"))


def test_two_attempts_are_compared(visit: Visit, site: Site) -> None:
    page = visit(f"runs/{site.runs['wavering']}?step=run")
    page.get_by_role("button", name="What differs from attempt 2").click()
    lines = page.locator("pre.lines")
    expect(lines.locator(".removed").filter(has_text="the mirror 2 answered 502").first).to_be_visible()
    expect(lines.locator(".added").filter(has_text="the mirror 3 answered 503").first).to_be_visible()
    found = Axe().run(page).response["violations"]
    assert [one["id"] for one in found if one["impact"] in ("serious", "critical")] == []
    page.get_by_role("button", name="Hide what differs").click()
    expect(lines).to_have_count(0)


def test_runs_that_are_tried_again_are_a_view_of_all(visit: Visit) -> None:
    page = visit("runs")
    page.get_by_role("button", name="Views").click()
    page.get_by_role("button", name="Retrying", exact=True).click()
    rows = page.get_by_role("grid", name="Runs").locator("[data-row]")
    expect(rows).to_have_count(1)
    expect(rows.first).to_contain_text("stubborn")
    expect(rows.first).to_contain_text(re.compile(r"again\s+in .*ConnectionError"))
    expect(page).to_have_url(re.compile("status=retrying"))
