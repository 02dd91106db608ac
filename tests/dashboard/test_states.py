"""What the page shows when there is little to show: no token, no run yet, a copy, a pause, a run table that is gone."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from playwright.sync_api import expect

from orchestrator.dashboard.command import DashboardOptions
from orchestrator.dashboard.context import Dashboard
from orchestrator.dashboard.standing_store import open_for_page
from orchestrator.dashboard.watch import CampaignWatch
from orchestrator.dashboard_process import LOG, READY, DashboardProcess
from orchestrator.driver import Condition, Driver, driver_key
from orchestrator.store.owner import this_owner
from orchestrator.store.sql_store import SqlStore
from tests.dashboard.campaigns import Served, served
from tests.dashboard.conftest import Watched
from tests.dashboard.test_views import serious
from tests.orchestrator.doubles import plan

PageOf = Callable[..., Watched]
BEGAN = datetime.now(UTC)


def planned(folder: Path) -> SqlStore:
    folder.mkdir(parents=True, exist_ok=True)
    store = SqlStore.open(folder / "run_table.sqlite", create=True)
    store.create_experiment(plan(6))
    return store


def cooling(store: SqlStore, temp_c: float | None) -> None:
    """This process drives, and waits for the gate."""
    driver = Driver(
        owner=this_owner(),
        testbed="box",
        url="http://127.0.0.1:9",
        started_at=BEGAN,
        condition=Condition.GATE,
        since=BEGAN,
        seen_at=datetime.now(UTC),
        until=BEGAN + timedelta(minutes=30),
        temp_c=temp_c,
        idle_temp_c=38.0,
        delta_c=2.0,
    )
    store.remember(driver_key(driver.owner), driver.model_dump(mode="json"))


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory, browser: object) -> Iterator[tuple[Served, SqlStore]]:
    """An experiment of which nothing has run, and a testbed that is away."""
    folder = tmp_path_factory.mktemp("quiet")
    store = planned(folder / "quiet")
    with served(
        folder / "quiet", folder, "--testbed", "http://127.0.0.1:9", token_of_testbed="nobody-is-there"
    ) as page:
        yield page, store
    store.close()


def test_nothing_has_run_yet(quiet: tuple[Served, SqlStore], page_of: PageOf) -> None:
    watched = page_of(quiet[0], size="phone")
    page = watched.go("/")
    expect(page.locator("h1")).to_contain_text("not begun")
    expect(page.locator("main")).to_contain_text("Nothing has run yet.")
    expect(page.locator("#live-note")).to_contain_text("the testbed is away", timeout=30_000)
    assert serious(page) == []
    page = watched.go("/runs?search=nothing-of-this-name")
    expect(page.locator("h2")).to_have_text(["No run fits these filters", "Keyboard", ""])
    assert serious(page) == []
    watched.assert_clean()


def test_cooldown_shows_its_countdown_and_the_gates_curve(quiet: tuple[Served, SqlStore], page_of: PageOf) -> None:
    served_page, store = quiet
    cooling(store, 52.0)
    watched = page_of(served_page)
    page = watched.go("/")
    expect(page.locator(".cooldown")).to_contain_text("the gate opens at 40.0 °C or less")
    left = page.locator(".cooldown [data-until]")
    expect(left).not_to_have_text(left.inner_text())  # it goes on by itself
    cooling(store, 44.0)
    expect(page.locator(".cooldown")).to_contain_text("Hottest sensor 44.0 °C")
    curve = page.locator("canvas.gate").get_attribute("data-curve") or ""
    assert "52.0" in curve and "44.0" in curve
    assert serious(page) == []
    store.forget(driver_key(this_owner()))
    watched.assert_clean()


def test_wrong_token_is_refused_and_the_right_one_opens(quiet: tuple[Served, SqlStore], page_of: PageOf) -> None:
    watched = page_of(quiet[0], token="certainly-not-the-token")
    page = watched.page
    expect(page.get_by_role("alert")).to_have_text("That token is wrong.")
    assert "quiet" not in page.content()
    assert serious(page) == []
    page.get_by_label("Token").fill("a-token-for-the-browser-tests")
    page.get_by_role("button", name="Open").click()
    expect(page.locator("h1")).to_contain_text("test")
    assert "token" not in page.url


def test_run_table_that_is_gone_is_told_and_its_return_is_noticed(
    quiet: tuple[Served, SqlStore], page_of: PageOf
) -> None:
    served_page, _ = quiet
    watched = page_of(served_page)
    path = served_page.folder / "run_table.sqlite"
    page = watched.go("/")
    path.rename(path.with_name("elsewhere"))
    try:
        expect(page.locator("#told")).to_contain_text("is gone")  # the open page says so, and stays
        page.goto(served_page.url + "/runs")
        expect(page.locator("h1")).to_have_text("This cannot be shown now")
        assert serious(page) == []
    finally:
        path.with_name("elsewhere").rename(path)
    page.reload()
    expect(page.locator("tr[data-run]")).to_have_count(6)
    assert watched.external == []


def test_copy_that_cannot_be_written_is_shown_and_left_as_it_is(tmp_path: Path) -> None:
    planned(tmp_path / "one").close()
    before = {path.name: path.read_bytes() for path in (tmp_path / "one").iterdir()}
    store = open_for_page(tmp_path / "one", is_frozen=True)
    board = Dashboard(tmp_path / "one", store, is_writable=False, is_frozen=True)
    glance = CampaignWatch(board).look()
    assert (glance.n_runs, glance.is_driven, glance.remarks) == (6, False, ())
    store.close()
    assert {path.name: path.read_bytes() for path in (tmp_path / "one").iterdir()} == before


def test_copy_with_a_write_ahead_log_is_read_with_what_is_in_it(tmp_path: Path) -> None:
    store = planned(tmp_path / "one")
    claim = store.claim_next("box")  # only in the log so far
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("run_table.sqlite", "run_table.sqlite-wal"):
        (copy / name).write_bytes((tmp_path / "one" / name).read_bytes())
    store.close()
    found = open_for_page(copy, is_frozen=True)
    assert claim is not None
    assert list(found.attempt_ids()) == [claim.attempt_id]
    found.close()
    assert sorted(path.name for path in copy.iterdir()) == ["run_table.sqlite", "run_table.sqlite-wal"]


def test_read_only_page_has_no_buttons(finished_experiment: Path, tmp_path: Path, page_of: PageOf) -> None:
    with served(finished_experiment, tmp_path, "--read-only") as page:
        watched = page_of(page)
        shown = watched.go("/runs")
        expect(shown.locator("tr[data-run]")).to_have_count(12)
        expect(shown.locator("[data-control]")).to_have_count(0)
        expect(shown.get_by_role("note")).to_contain_text("nothing can be changed")
        watched.assert_clean()


def test_page_beside_a_campaign_ends_with_it_and_may_die_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned(tmp_path).close()
    monkeypatch.setenv("JOULEBED_DASHBOARD_TOKEN", "token-of-the-process-test")
    told: list[str] = []
    urls = ["http://127.0.0.1:9"]
    with DashboardProcess(tmp_path, urls, "secret-of-the-testbed", told.append, log_format="json") as page:
        assert told == [f"Dashboard: {page.url}/?token=token-of-the-process-test"]
        process = page._process
        assert process is not None
        arguments = Path(f"/proc/{process.pid}/cmdline").read_text()
        assert "--log-format\0json\0" in arguments
        assert "token-of-the-process-test" not in arguments and "secret-of-the-testbed" not in arguments
        assert os.getpriority(os.PRIO_PROCESS, process.pid) >= 10
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (tmp_path / READY).exists()
    assert (tmp_path / LOG).stat().st_mode & 0o077 == 0


def test_page_that_cannot_start_is_told_and_no_more(tmp_path: Path) -> None:
    told: list[str] = []
    ending = (sys.executable, "-c", "raise SystemExit(2)")
    with DashboardProcess(tmp_path, ["http://127.0.0.1:9"], "secret", told.append, command=ending) as page:
        assert page.url == ""
    assert len(told) == 1
    assert "the campaign goes on without it" in told[0]


def test_port_is_eight_seven_nine_zero_on_loopback_unless_told() -> None:
    options = DashboardOptions(Path("results/x"))
    assert (options.host, options.port) == ("127.0.0.1", 8790)
