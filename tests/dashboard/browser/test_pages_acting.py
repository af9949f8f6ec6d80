"""What may be done: trigger by form, pause, look at stacks; who may only look sees no button; text is text."""

from __future__ import annotations

import json
from collections.abc import Callable

from playwright.sync_api import Page, expect

from jetflow.server import NatsServer
from tests.dashboard.browser.conftest import Site, Watched, serving
from tests.dashboard.browser.flows import HOSTILE, VERY_LARGE

Visit = Callable[..., Page]


def test_a_run_is_begun_by_the_form_that_its_schema_makes(visit: Visit) -> None:
    page = visit("workflows/index-tree/trigger")
    raw = page.get_by_label("As JSON")
    page.get_by_label("root", exact=True).fill("by-form")
    page.get_by_label("files optional").fill("3")
    page.get_by_label("mode optional").select_option("full")
    page.get_by_role("checkbox", name="note").check()
    page.get_by_role("textbox", name="note").fill("hello")
    page.get_by_role("button", name="Add one").click()
    page.get_by_label("1", exact=True).fill("first")
    wanted = {"root": "by-form", "files": 3, "mode": "full", "note": "hello", "tags": ["first"]}
    expect(raw).to_have_value(json.dumps(wanted, indent=2))
    page.get_by_role("textbox", name="Key optional").fill("by-form")
    page.get_by_role("button", name="Trigger index-tree").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("by-form")
    expect(page.locator(".runhead .pill")).to_have_text("succeeded")  # told by an event, and not by a reload
    page.get_by_role("link", name="Input and output").click()
    expect(page.locator(".json").first).to_contain_text('"hello"')


def test_wrong_input_is_told_where_it_is_written(visit: Visit, watched: Watched) -> None:
    watched.expected = ("409 (Conflict)",)
    page = visit("workflows/index-tree/trigger")
    raw, begin = page.get_by_label("As JSON"), page.get_by_role("button", name="Trigger index-tree")
    raw.fill("{")
    expect(page.locator("#raw-wrong")).not_to_be_empty()
    expect(begin).to_be_disabled()
    raw.fill('{"root": "deep", "files": 5001}')
    expect(page.get_by_text("at most 5000")).to_be_visible()
    raw.fill('{"root": "another"}')
    page.get_by_role("textbox", name="Key optional").fill("site")
    begin.click()
    expect(page.get_by_role("alert").filter(has_text="Key conflict")).to_be_visible()


def test_a_queue_is_paused_and_goes_on(visit: Visit) -> None:
    page = visit("queues?q=large")
    row = page.get_by_role("row").filter(has_text="large")
    row.get_by_role("button", name="Pause").click()
    page.get_by_label("How long").select_option("for an hour")
    page.get_by_role("button", name="Pause it").click()
    expect(row).to_contain_text("paused")
    expect(row).to_contain_text("in 59 m")
    row.get_by_role("button", name="Resume").click()
    expect(row).to_contain_text("clear")


def test_a_worker_tells_where_its_code_stands(visit: Visit) -> None:
    page = visit("workers")
    row = page.get_by_role("row").filter(has_text="patient")
    row.first.get_by_role("button", name="Stack").click()
    expect(page.get_by_role("dialog").locator("pre")).to_contain_text("asyncio.sleep(3600)")


def test_many_are_cancelled_after_they_were_counted(visit: Visit, site: Site) -> None:
    page = visit("runs")
    for number in (1, 2):
        page.goto(site.url + "workflows/patient/trigger")
        page.get_by_role("textbox", name="Key optional").fill(f"many-{number}")
        page.get_by_role("button", name="Trigger patient").click()
        expect(page.get_by_role("heading", level=1)).to_have_text(f"many-{number}")
    page.goto(site.url + "runs?workflow=patient&status=open")
    for number in (1, 2):
        page.get_by_role("row").filter(has_text=f"many-{number}").focus()
        page.keyboard.press("x")
    page.get_by_role("button", name="Cancel…").click()
    page.get_by_role("button", name="Cancel 2").click()
    expect(page.get_by_role("dialog")).to_contain_text("2 cancelled")
    page.get_by_role("button", name="Close").last.click()
    expect(page.get_by_role("row").filter(has_text="many-")).to_have_count(0)


def test_hostile_text_is_shown_as_it_is(visit: Visit, site: Site) -> None:
    page = visit(f"runs/{site.runs[HOSTILE]}")
    expect(page.get_by_role("heading", level=1)).to_have_text(HOSTILE)
    expect(page.locator(".trace").first).to_contain_text(HOSTILE)
    for tab in ("values", "errors", "messages"):
        page.goto(site.url + f"runs/{site.runs[HOSTILE]}/{tab}")
        expect(page.locator("main")).to_contain_text("img" if tab == "values" else "index-tree")
    page.goto(site.url + "runs")
    expect(page.get_by_role("row").filter(has_text=HOSTILE)).to_be_visible()
    assert page.locator("img").count() == 0


def test_a_large_output_is_shown_in_part_and_downloaded_whole(visit: Visit, site: Site) -> None:
    page = visit(f"runs/{site.runs['large']}/values")
    expect(page.get_by_text("66 kB of 2.0 MB")).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download Output").click()
    assert download.value.path().stat().st_size == 2_000_002


def test_a_very_large_output_leaves_the_page_usable(nats_server: NatsServer, watched: Watched) -> None:
    with serving(nats_server, "very-large") as site:
        page = watched.open(site, f"runs/{site.runs['very-large']}/values")
        expect(page.get_by_text("66 kB of 67 MB")).to_be_visible()
        page.keyboard.press("1")
        expect(page.get_by_role("grid", name="Steps")).to_contain_text("succeeded")
        page.go_back()
        with page.expect_download() as download:
            page.get_by_role("link", name="Download Output").click()
        assert download.value.path().stat().st_size == VERY_LARGE
        watched.close()


def test_a_filter_of_bulk_survives_reload(visit: Visit, site: Site) -> None:
    page = visit(f"runs/{site.runs['stuck']}/children?status=open")
    page.reload()
    expect(page.get_by_role("group", name="Status").get_by_role("button", name="open")).to_have_attribute(
        "aria-pressed", "true"
    )
    page.get_by_role("button", name="Cancel these…").click()
    question = page.get_by_role("dialog", name="Cancel many")
    expect(question).to_contain_text("All open children")
    expect(question).to_contain_text("runs that come later are not touched")
    expect(question.get_by_role("button", name="Cancel 3")).to_be_enabled()
    question.get_by_role("button", name="Leave them").click()
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_who_may_only_look_has_no_buttons(nats_server: NatsServer, watched: Watched) -> None:
    with serving(nats_server, "read-only") as site:
        page = watched.open(site, "queues")
        expect(page.get_by_role("row").filter(has_text="large")).to_be_visible()
        expect(page.get_by_text("read-only")).to_be_visible()
        expect(page.get_by_role("button", name="Pause")).to_have_count(0)
        page.goto(site.url + f"runs/{site.runs['patient']}")
        expect(page.locator(".runhead .pill")).to_have_text("running")
        expect(page.get_by_role("button", name="Cancel")).to_have_count(0)
        page.goto(site.url + "workflows/index-tree")
        expect(page.get_by_role("link", name="Trigger")).to_have_count(0)
        watched.close()


def test_a_dashboard_without_runs_says_how_to_begin(nats_server: NatsServer, watched: Watched) -> None:
    with serving(nats_server, "empty") as site:
        page = watched.open(site)
        expect(page.get_by_text("Nothing has run here yet")).to_be_visible()
        for path, text in (
            ("runs", "jetflow dev flows.py"),
            ("errors", "Nothing has failed"),
            ("workers", "No worker answers"),
            ("queues", "No queues yet"),
            ("workflows", "No workflow is declared yet"),
            ("doctor", "What is stored"),
        ):
            page.goto(site.url + path)
            expect(page.locator("main").get_by_text(text).first).to_be_visible()
        watched.close()


def test_what_was_known_stays_when_the_dashboard_goes_away(nats_server: NatsServer, watched: Watched) -> None:
    watched.expected = ("Failed to load resource", "ERR_")
    with serving(nats_server) as site:
        page = watched.open(site, "runs")
        expect(page.get_by_role("row").filter(has_text="stubborn")).to_be_visible()
    expect(page.get_by_text("News do not arrive")).to_be_visible()
    expect(page.get_by_role("row").filter(has_text="stubborn")).to_be_visible()
    page.get_by_role("button", name="failed").click()
    expect(page.get_by_text("The dashboard does not answer")).to_be_visible()
    expect(page.get_by_text("No run is like that")).to_have_count(0)
