"""The pages of results in a browser: a run, the comparison, the report; while a campaign runs, and after it."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from orchestrator.experiment_folder import open_run_table
from orchestrator.store.base import RunRow
from tests.dashboard.campaigns import Served, served
from tests.dashboard.results import EVIL, Results
from tests.dashboard.test_views import PageOf, serious

SLOW_MS = 60_000
"""The first reading is at the lowest priority: on a busy machine it takes its time."""


@pytest.fixture(scope="module")
def evil(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """An experiment whose model answers with markup, whose levels are markup, and whose last run failed."""
    made = Results(tmp_path_factory.mktemp("evil") / "evil", {"prompt": ["plain", EVIL]}, repetitions=2)
    made.succeed_all(lambda *_: {"answer": EVIL}, but=1)
    made.fail(f"It died. {EVIL}", log_tail=["line one", EVIL])
    made.store.close()
    with served(made.folder, tmp_path_factory.mktemp("page")) as page:
        yield page


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", ["desktop", "phone"])
def test_result_pages_are_accessible_and_clean(finished: Served, page_of: PageOf, theme: str, size: str) -> None:
    watched = page_of(finished, theme=theme, size=size)
    page = watched.go("/runs/run_0_repetition_0")
    expect(page.locator("#figures .main-svg").first).to_be_visible()
    expect(page.locator("#answers details").first).to_be_visible()
    page.locator("#answers details summary").first.click()
    assert serious(page) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page = watched.go("/comparison?first=0&second=3")
    page.locator("#plots section").first.scroll_into_view_if_needed(timeout=SLOW_MS)
    expect(page.locator("#plots .main-svg").first).to_be_visible(timeout=SLOW_MS)
    expect(page.locator(".pair-said")).to_be_visible(timeout=SLOW_MS)
    assert serious(page) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page = watched.go("/report")
    assert serious(page) == []
    watched.assert_clean()


def test_a_failed_run_shows_its_error_and_no_figure(evil: Served, page_of: PageOf) -> None:
    watched = page_of(evil)
    page = watched.go("/runs/run_1_repetition_1")
    expect(page.locator("[data-part=head] .state")).to_have_text("failed")
    expect(page.locator(".caution.wrong").first).to_contain_text(f"child_died: It died. {EVIL}")
    page.get_by_text("Its last output").click()
    expect(page.locator("pre.raw").first).to_contain_text(EVIL)
    expect(page.locator("#figures")).to_contain_text("no power to draw")
    watched.assert_clean()


def test_keys_and_links_lead_to_the_neighbours(finished: Served, page_of: PageOf) -> None:
    watched = page_of(finished)
    page = watched.go("/runs/run_0_repetition_0")
    page.keyboard.press("j")
    expect(page.locator("#run-title")).not_to_have_text("run_0_repetition_0")
    page.locator("#before").click()
    expect(page.locator("#run-title")).to_have_text("run_0_repetition_0")
    watched.assert_clean()


def test_an_artifact_is_downloaded(finished: Served, page_of: PageOf) -> None:
    watched = page_of(finished)
    page = watched.go("/runs/run_0_repetition_0")
    with page.expect_download() as download:
        page.get_by_role("link", name="requests.jsonl").first.click()
    assert download.value.suggested_filename.endswith("_requests.jsonl")
    assert '"answer"' in download.value.path().read_text()


def test_theme_changes_the_figures(finished: Served, page_of: PageOf) -> None:
    watched = page_of(finished, theme="light")
    page = watched.go("/runs/run_0_repetition_0")
    text = page.locator("#figures .main-svg .xtick text").first
    colour = "element => getComputedStyle(element).fill"
    before = text.evaluate(colour)
    page.keyboard.press("t")  # from automatic, which is light, to dark
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    expect(page.locator("#theme-word")).to_have_text("dark")
    page.wait_for_timeout(500)
    assert page.locator("#figures .main-svg .xtick text").first.evaluate(colour) != before
    watched.assert_clean()


def test_choice_is_in_the_address_and_comes_back(finished: Served, page_of: PageOf) -> None:
    watched = page_of(finished)
    page = watched.go("/comparison")
    expect(page.locator("#matching-line")).to_have_text(re.compile(r"6 treatments"), timeout=SLOW_MS)
    page.select_option("select[name='factor.model']", "small")
    expect(page.locator("#matching-line")).to_have_text(re.compile(r"3 treatments match"), timeout=SLOW_MS)
    page.fill("#search", "concurrency=4")
    expect(page.locator("#matching-line")).to_have_text(re.compile(r"1 treatment match"), timeout=SLOW_MS)
    assert "factor.model=small" in page.url and "concurrency%3D4" in page.url
    page.reload()
    expect(page.locator("#matching-line")).to_have_text(re.compile(r"1 treatment match"), timeout=SLOW_MS)
    expect(page.locator("select[name='factor.model']")).to_have_value("small")
    watched.assert_clean()


def test_two_rows_are_compared(finished: Served, page_of: PageOf) -> None:
    watched = page_of(finished)
    page = watched.go("/comparison")
    page.get_by_role("button", name="Compare small, 1", exact=True).click(timeout=SLOW_MS)
    page.get_by_role("button", name="Compare large, 1", exact=True).click()
    expect(page.locator(".pair-said")).to_contain_text("the second", timeout=SLOW_MS)
    expect(page.locator("#pair")).to_contain_text("They differ in model (small, large)")
    # The fake meter's figures are estimates.
    expect(page.locator("#pair")).to_contain_text("estimate")
    watched.assert_clean()


def test_report_is_made_and_opened(finished: Served, page_of: PageOf) -> None:
    watched = page_of(finished)
    page = watched.go("/report")
    page.locator("#make").click()
    with page.expect_popup() as popup:
        page.get_by_role("link", name="Open the report").click(timeout=120_000)
    report = popup.value
    expect(report.locator("h1")).to_contain_text("finished")
    # It has an origin of its own: the dashboard's cookie and answers are out of its reach.
    assert report.evaluate("self.origin") == "null"
    watched.assert_clean()


def test_what_a_model_says_is_text(evil: Served, page_of: PageOf) -> None:
    watched = page_of(evil)
    page = watched.go("/runs/run_1_repetition_0")
    page.locator("#answers details summary").first.click()
    expect(page.locator("#answers pre").nth(1)).to_have_text(EVIL)
    page = watched.go("/comparison?first=0&second=1")
    page.locator("#plots section").first.scroll_into_view_if_needed(timeout=SLOW_MS)
    expect(page.locator("#plots .main-svg").first).to_be_visible(timeout=SLOW_MS)
    expect(page.locator(".pair-said")).to_be_visible(timeout=SLOW_MS)
    assert page.locator("main img").count() == 0
    assert "owned" not in page.title()
    watched.assert_clean()


@pytest.mark.timeout(1200)
def test_comparison_of_a_campaign_that_runs_moves_on(running: Served, page_of: PageOf) -> None:
    watched = page_of(running)
    page = watched.go("/comparison")
    expect(page.locator("#asof")).to_contain_text("As of", timeout=SLOW_MS)
    counted = re.search(r"As of (\d+)", page.locator("#asof").inner_text())
    assert counted is not None
    # It is read again when reading has taken at most 5 % of the time, 20 times as long as it took at the lowest
    # priority, beside other tests: 8 s were seen.
    expect(page.locator("#asof")).not_to_contain_text(f"As of {counted[1]} of", timeout=15 * SLOW_MS)
    watched.assert_clean()


def test_page_of_a_run_that_runs_follows_it(running: Served, page_of: PageOf) -> None:
    watched = page_of(running)
    store = open_run_table(running.folder, create=False)
    rows: list[RunRow] = list(store.runs())
    store.close()
    # Far enough ahead to be looked at before it begins; of the model that does not fail.
    ahead = [row for row in rows if not row.attempts and row.treatment["model"] == "small"][2]
    page = watched.go(f"/runs/{ahead.run_id}")
    expect(page.locator("[data-part=head] .state")).to_have_text("to do")
    expect(page.locator("#run")).to_have_attribute("data-open", "no", timeout=SLOW_MS)
    expect(page.locator("#figures .main-svg").first).to_be_visible(timeout=SLOW_MS)
    watched.assert_clean()


def test_an_experiment_without_results_says_so(tmp_path: Path, page_of: PageOf) -> None:
    made = Results(tmp_path / "empty", {"threads": [1, 2]})
    made.store.close()
    with served(made.folder, tmp_path) as empty:
        watched = page_of(empty)
        page = watched.go("/comparison")
        expect(page.locator(".empty")).to_contain_text("No run of empty has a result yet", timeout=SLOW_MS)
        expect(watched.go("/report").locator("#report")).to_contain_text("No run has ended yet")
        page = watched.go("/runs/run_0_repetition_0")
        expect(page.locator("#figures")).to_contain_text("no power to draw")
        assert serious(page) == []
        watched.assert_clean()
