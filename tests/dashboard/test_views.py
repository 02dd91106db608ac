"""The page in a browser, over a campaign that really runs."""

import re
from collections.abc import Callable

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.dashboard.campaigns import Served
from tests.dashboard.conftest import Watched

PageOf = Callable[..., Watched]


def serious(page: Page) -> list[str]:
    """What axe finds serious or critical."""
    found = Axe().run(page).response["violations"]
    return [
        f"{each['id']}: {each['nodes'][0]['html'][:200]}" for each in found if each["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", ["desktop", "phone"])
def test_pages_are_accessible_and_clean(running: Served, page_of: PageOf, theme: str, size: str) -> None:
    watched = page_of(running, theme=theme, size=size)
    for path in ("/", "/runs?state=FAILED" if size == "phone" else "/runs"):
        page = watched.go(path)
        expect(page.locator("h1")).to_be_visible()
        expect(page.locator("#connection")).to_have_text("live")
        assert serious(page) == []
        # Nothing sticks out: a page that scrolls sideways is unreadable on a phone.
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    watched.assert_clean()


def test_live_points_arrive_and_go_on_arriving(running: Served, page_of: PageOf) -> None:
    watched = page_of(running)
    page = watched.go("/")
    live = page.locator("#live")
    expect(live).to_have_attribute("data-points", re.compile(r"^[1-9]"))
    for _ in range(3):
        expect(live).not_to_have_attribute("data-points", live.get_attribute("data-points") or "")
    expect(page.locator("#live-charts canvas").first).to_have_attribute(
        "aria-label", re.compile(r"cpu_package \(estimate\) .* W")
    )
    watched.assert_clean()


def test_progress_moves_by_itself(running: Served, page_of: PageOf) -> None:
    watched = page_of(running)
    page = watched.go("/")
    done = page.locator(".legend .DONE b").inner_text()
    expect(page.locator(".legend .DONE b")).not_to_have_text(done)
    expect(page.locator(".facts")).to_contain_text("in 9 cases of 10", timeout=60_000)
    watched.assert_clean()


def test_connection_is_opened_again_by_itself(running: Served, page_of: PageOf) -> None:
    watched = page_of(running)
    page = watched.page
    page.route("**/api/stream", lambda route: route.abort())
    page.goto(running.url + "/")
    expect(page.locator("#connection")).to_have_text("reconnecting")
    page.unroute("**/api/stream")
    expect(page.locator("#connection")).to_have_text("live")
    expect(page.locator("#live")).to_have_attribute("data-points", re.compile(r"^[1-9]"))


def test_run_is_retried_from_the_page_and_told_in_the_events(running: Served, page_of: PageOf) -> None:
    watched = page_of(running)
    page = watched.go("/")
    button = page.locator('button[data-control="retry"]').first
    button.wait_for(timeout=60_000)
    run_id = button.get_attribute("data-run")
    # Not the first of that moment: another may have come before it.
    page.locator(f'button[data-control="retry"][data-run="{run_id}"]').click()
    page.get_by_label("Your name, for the record").fill("Anna")
    page.locator("#ask-yes").click()
    expect(page.locator("#told")).to_contain_text(f"{run_id} is to do again")
    expect(page.locator(".events")).to_contain_text("as asked by dashboard (Anna)")
    watched.assert_clean()


def test_pause_and_resume_are_told_to_every_page(running: Served, page_of: PageOf) -> None:
    mine, other = page_of(running), page_of(running)
    page, theirs = mine.go("/"), other.go("/")
    page.get_by_role("button", name="Pause").click()
    page.get_by_label("Reason").fill("the room is too warm")
    page.get_by_label("Your name, for the record").fill("Anna")
    page.locator("#ask-yes").click()
    try:
        expect(theirs.locator(".banner-pause")).to_contain_text("dashboard (Anna)")
        expect(theirs.locator(".banner-pause")).to_contain_text("the room is too warm")
    finally:
        page.get_by_role("button", name="Resume").click()
        # Remembered.
        expect(page.get_by_label("Your name, for the record")).to_have_value("Anna")
        page.locator("#ask-yes").click()
    expect(theirs.locator(".banner-pause")).to_have_count(0)
    mine.assert_clean()


def test_exclusion_needs_a_reason_and_can_be_taken_back(running: Served, page_of: PageOf) -> None:
    watched = page_of(running)
    page = watched.go("/runs?state=DONE&sort=-position")
    row = page.locator("tr[data-run]").first
    run_id = row.get_attribute("data-run") or ""
    page.get_by_role("button", name=f"Exclude {run_id}").click()
    page.locator("#ask-yes").click()
    expect(page.locator("#ask")).to_be_visible()  # without a reason nothing is sent
    page.get_by_label("Reason", exact=True).last.fill("the window was open")
    page.locator("#ask-yes").click()
    page.goto(running.url + "/runs?state=EXCLUDED")
    excluded = page.locator(f'tr[data-run="{run_id}"]')
    expect(excluded).to_contain_text("the window was open")
    page.get_by_role("button", name=f"Include {run_id}").click()
    page.locator("#ask-yes").click()
    expect(excluded).to_have_count(0)
    watched.assert_clean()


def test_table_is_filtered_sorted_and_walked_with_the_keys(finished: Served, page_of: PageOf) -> None:
    watched = page_of(finished)
    page = watched.go("/runs")
    expect(page.locator("tr[data-run]")).to_have_count(12)
    page.locator('select[name="factor.model"]').select_option("small")
    expect(page.locator("tr[data-run]")).to_have_count(6)
    expect(page).to_have_url(re.compile("factor.model=small"))
    page.get_by_role("link", name="Tokens/s").click()
    expect(page.locator('th[aria-sort="ascending"]')).to_contain_text("Tokens/s")
    values = [float(cell.replace("\u202f", "")) for cell in page.locator('td[data-label="Tokens/s"]').all_inner_texts()]
    assert values == sorted(values)
    page.go_back()
    expect(page.locator('th[aria-sort="ascending"]')).to_contain_text("Run")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    second = page.locator("tr[data-run]").nth(1).get_attribute("data-run")
    assert page.evaluate("document.activeElement.textContent") == second
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(f"/runs/{second}$"))


def test_search_stays_in_the_address_and_through_a_reload(finished: Served, page_of: PageOf) -> None:
    watched = page_of(finished)
    page = watched.go("/runs")
    page.locator("#search").fill("run_1_")
    expect(page).to_have_url(re.compile("search=run_1_"))
    n_found = page.locator("tr[data-run]").count()
    assert 0 < n_found < 12
    page.reload()
    expect(page.locator("#search")).to_have_value("run_1_")
    expect(page.locator("tr[data-run]")).to_have_count(n_found)
    watched.assert_clean()


def test_keys_theme_and_help(finished: Served, page_of: PageOf) -> None:
    watched = page_of(finished)
    page = watched.go("/")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("?")
    expect(page.locator("#help")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("t")
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    page.reload()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    page.keyboard.press("g")
    page.keyboard.press("r")
    expect(page).to_have_url(re.compile("/runs$"))
    watched.assert_clean()
