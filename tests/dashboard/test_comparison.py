"""The comparison: the same numbers as the report, only of what was chosen, and never two computations at once."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import pytest
from starlette.testclient import TestClient

from analysis.inference.effect_size import effect_size
from analysis.load import load_runs
from analysis.report.quantity import mean
from analysis.summary import summarise
from contract.errors import JouleBedError, UsageError
from contract.trial_result import EnergyMethod
from orchestrator.dashboard.app import create_app
from orchestrator.dashboard.comparison import FigureName, fingerprint
from orchestrator.dashboard.comparison_view import FIGURES, MAX_DRAWN, Choice, Comparison
from orchestrator.dashboard.context import Dashboard
from orchestrator.dashboard.desk import SHARE, Desk
from orchestrator.dashboard.pair_view import pair
from orchestrator.dashboard.run_index import RunIndex
from orchestrator.store.control import CampaignControl
from tests.dashboard.results import EVIL, Results

TOKEN = "a-token-for-the-comparison"
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def measured(treatment: dict[str, Any], repetition: int) -> dict[str, Any]:
    """Twice the threads: a little less energy, much less time; the large model takes three times as much."""
    size = 3.0 if treatment["model"] == "large" else 1.0
    return {
        "energy_j": size * (100.0 - 5.0 * treatment["threads"] + repetition),
        "duration_s": size * (20.0 / treatment["threads"] + 0.1 * repetition),
        "n_correct": 14 if treatment["model"] == "large" else 9,
    }


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    made = Results(tmp_path_factory.mktemp("results") / "six", {"model": ["small", "large"], "threads": [1, 2, 4]})
    made.succeed_all(measured)
    return made


@pytest.fixture(scope="module")
def comparison(results: Results) -> Comparison:
    return Comparison(results.folder)


def test_table_has_the_numbers_of_the_summary(results: Results, comparison: Comparison) -> None:
    summary = summarise(load_runs(results.folder))
    rows = comparison.tables(Choice())["table"]["rows"]
    assert [row["cells"][1] for row in rows] == [mean(row.means["energy_j"]) for row in summary.treatments]
    assert [row["levels"] for row in rows][:2] == [["small", "1"], ["small", "2"]]
    overview = comparison.overview()
    assert (overview["n_counted"], overview["n_treatments"], overview["is_estimate"]) == (18, 6, False)


def test_the_page_asks_for_the_figures_there_are() -> None:
    assert get_args(FigureName) == tuple(FIGURES)


def test_figures_show_each_run_and_the_front(comparison: Comparison) -> None:
    found = {name: comparison.figure(Choice(), name)["figure"] for name in FIGURES}
    assert list(found) == ["energy", "token", "accuracy", "pareto", "edp"]
    points = sum(len(trace["x"]) for trace in found["energy"]["data"][:-1])
    assert points == 18
    front = next(trace for trace in found["pareto"]["data"] if trace["name"] == "Pareto front")
    assert len(front["x"]) == 2  # the cheapest of each model: no other is both cheaper and more accurate
    assert "template" not in found["energy"]["layout"]


def test_choice_filters_sorts_and_limits(comparison: Comparison) -> None:
    small = comparison.tables(Choice(levels=(("model", "small"),), sort="energy", limit=20))
    assert [row["levels"][1] for row in small["table"]["rows"]] == ["4", "2", "1"]
    assert small["n_matching"] == 3
    found = comparison.tables(Choice(words="LARGE threads=2"))
    assert [row["levels"] for row in found["table"]["rows"]] == [["large", "2"]]
    # A row's number is its place in the whole experiment, whatever is filtered.
    assert [row["id"] for row in found["table"]["rows"]] == [4]
    nothing = comparison.tables(Choice(words="nothing like that"))
    assert (nothing["n_matching"], nothing["table"]["rows"]) == (0, [])
    assert comparison.figure(Choice(words="nothing like that"), "energy") == {"name": "energy", "missing": ""}


def test_ranking_explains_each_configuration(comparison: Comparison) -> None:
    ranking = comparison.tables(Choice())["ranking"]
    assert ranking["rows"][0]["label"] == "model small, threads 4"
    assert ranking["rows"][0]["tie"] == "best"
    said = {row["label"]: row["words"] for row in ranking["rows"]}
    assert said["model large, threads 1"] == "the reference that the others are held against"
    assert said["model large, threads 4"].startswith("faster (-75 %")


def test_ranking_adds_up_the_work(tmp_path: Path) -> None:
    made = Results(tmp_path / "work", {"suite": ["short", "long"], "threads": [1, 2]}, repetitions=2)
    made.succeed_all(lambda treatment, repetition: {"energy_j": 10.0 * treatment["threads"] + repetition})
    ranking = Comparison(made.folder).tables(Choice())["ranking"]
    # A configuration is a number of threads; its energy is that of both suites.
    assert [row["label"] for row in ranking["rows"]] == ["threads 1", "threads 2"]
    assert ranking["rows"][0]["cells"][1].startswith("21 ±")
    assert "2 combinations of suite" in ranking["note"]


def test_pair_has_ratio_and_effect_size(comparison: Comparison) -> None:
    found = pair(comparison.summary, 0, 3)
    assert found["differs"] == [{"factor": "model", "first": "small", "second": "large"}]
    energy = found["rows"][0]
    assert energy[0] == "energy, J"
    assert float(energy[3]) == pytest.approx(1 / 3, abs=0.001)
    values = [[run["energy_j"] for run in comparison.summary.treatments[i].runs] for i in (0, 3)]
    assert energy[6].startswith(f"{effect_size(*values, seed=0).cliffs_delta:+.2f}")
    assert "takes less energy" in found["sentence"]
    same = pair(comparison.summary, 1, 1)
    assert same["differs"] == [] and "cannot be told apart" in same["sentence"]


def test_pair_of_single_runs_claims_nothing(tmp_path: Path) -> None:
    made = Results(tmp_path / "single", {"threads": [1, 2]}, repetitions=1)
    made.succeed_all(lambda treatment, _: {"energy_j": 10.0 * treatment["threads"], "n_items": 16})
    found = pair(Comparison(made.folder).summary, 0, 1)
    assert "cannot be said" in found["sentence"]
    assert found["rows"][0][4:] == ["–", "–", "–", "–"]


def test_an_estimate_never_lacks_the_word(tmp_path: Path) -> None:
    made = Results(tmp_path / "estimated", {"threads": [1, 2]})
    made.succeed_all(lambda *_: {"method": EnergyMethod.ESTIMATE, "source": "estimate"})
    comparison = Comparison(made.folder)
    tables = comparison.tables(Choice())
    assert [name for name in tables["table"]["header"] if "J" in name or "W" in name] == [
        "energy, J, estimate",
        "J per token, estimate",
        "power, W, estimate",
        "EDP, J·s, estimate",
    ]
    assert all("estimate" in name for name in tables["ranking"]["header"][:2])
    for each in [comparison.figure(Choice(), name) for name in FIGURES]:
        if each["name"] != "accuracy":
            assert "estimate" in each["figure"]["layout"]["meta"]["title"]
            assert "estimate" in each["figure"]["layout"]["xaxis"]["title"]["text"]
    found = pair(comparison.summary, 0, 1)
    assert "estimated energy" in found["sentence"]
    assert "estimate" in found["rows"][0][0]
    assert any("estimates" in each["text"] for each in comparison.overview()["cautions"])


def test_many_treatments_are_bounded_and_say_so(tmp_path: Path) -> None:
    made = Results(tmp_path / "many", {"threads": list(range(MAX_DRAWN + 5))}, repetitions=1)
    made.succeed_all(lambda treatment, _: {"energy_j": 10.0 + treatment["threads"]})
    read = Comparison(made.folder)
    found = {name: read.figure(Choice(limit=200), name) for name in ("energy", "pareto")}
    assert len(found["energy"]["figure"]["data"][-1]["x"]) == MAX_DRAWN
    assert f"first {MAX_DRAWN} of {MAX_DRAWN + 5}" in found["energy"]["text"]
    assert sum(len(trace["x"]) for trace in found["pareto"]["figure"]["data"][:-1]) >= MAX_DRAWN + 5


def test_excluded_runs_are_left_out_and_named(tmp_path: Path) -> None:
    made = Results(tmp_path / "excluded", {"threads": [1, 2]})
    made.succeed_all(lambda *_: {"energy_j": 50.0}, but=1)
    made.succeed(energy_j=9000.0)
    index = RunIndex(made.store)
    before = fingerprint(index)
    assert fingerprint(index) == before
    CampaignControl(made.store).exclude("run_1_repetition_2", "the window was open", "Anna")
    assert fingerprint(index) != before
    assert fingerprint(RunIndex(made.store)) == fingerprint(index)
    overview = Comparison(made.folder).overview()
    assert overview["n_counted"] == 5
    assert overview["excluded"][0]["run_id"] == "run_1_repetition_2"
    assert "the window was open" in overview["excluded"][0]["why"]


def test_nothing_to_compare_is_said(tmp_path: Path) -> None:
    made = Results(tmp_path / "empty", {"threads": [1, 2]})
    with pytest.raises(UsageError, match="No run of empty has a result yet"):
        Comparison(made.folder)


def in_a_loop(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """In a thread of its own: the main one has Playwright's loop, once a browser was used."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: asyncio.run(story())).result()


def desk_of(results: Results, seen: list[str], clock: list[float]) -> Desk:
    def look() -> str:
        return seen[0]

    return Desk(results.folder, look, background=asyncio.Lock(), now=lambda: NOW, now_s=lambda: clock[0])


def test_desk_computes_once_and_within_its_share(results: Results) -> None:
    seen, clock = ["one"], [0.0]

    async def story() -> None:
        desk = desk_of(results, seen, clock)
        try:
            await asyncio.gather(desk.nudge(), desk.nudge(), desk.nudge())
            assert desk.is_making
            found = await desk.ask({"do": "pair", "first": 0, "second": 1})  # waits for the first reading
            assert found["first"]["label"] == "model=small, threads=1"
            assert (desk.version, desk.is_making, desk.status()["n_counted"]) == (1, False, 18)

            clock[0] += 1000.0
            await desk.nudge()
            assert not desk.is_making  # nothing is new

            desk.cost_s = 100.0
            desk._ended_s = clock[0]
            seen[0] = "two"
            clock[0] += 100.0 / SHARE - 101.0
            await desk.nudge()
            assert not desk.is_making and desk.status()["has_news"]
            # The old reading goes on answering.
            assert (await desk.ask({"do": "pair", "first": 2, "second": 1}))["first"]["id"] == 2
            clock[0] += 10.0
            await desk.nudge()
            assert desk.is_making
        finally:
            await desk.close()

    in_a_loop(story)


def test_desk_tells_why_there_is_nothing(tmp_path: Path) -> None:
    made = Results(tmp_path / "empty", {"threads": [1, 2]})

    async def story() -> None:
        desk = desk_of(made, ["one"], [0.0])
        try:
            with pytest.raises(JouleBedError, match="No run of empty has a result yet"):
                await desk.ask({"do": "pair", "first": 0, "second": 1})
            assert desk.first is None and "no result" not in desk.problem
            assert desk.status()["version"] == 1
        finally:
            await desk.close()

    in_a_loop(story)


@pytest.fixture(scope="module")
def client(results: Results) -> Iterator[TestClient]:
    app = create_app(Dashboard(results.folder, results.store, name=EVIL), TOKEN)
    with TestClient(app, headers={"Authorization": f"Bearer {TOKEN}"}, raise_server_exceptions=False) as client:
        yield client


def test_pages_of_the_comparison(client: TestClient) -> None:
    assert "Reading the results" in client.get("/comparison").text
    tables = client.get("/comparison/tables", params={"q": "small", "factor.threads": "2"})
    assert tables.status_code == 200
    assert "1 treatment match" in tables.text
    page = client.get("/comparison").text
    assert "In short" in page and EVIL not in page
    assert client.get("/api/comparison").json()["n_counted"] == 18
    assert client.get("/api/comparison/figures/energy?sort=edp").json()["figure"]["data"]
    assert client.get("/api/comparison/figures/token").json()["name"] == "token"
    assert client.get("/api/comparison/figures/weather").status_code == 422
    assert client.get("/api/comparison/pair/figure?first=0&second=3").json()["figure"]["data"]
    assert "takes less energy" in client.get("/comparison/pair?first=0&second=3").text
    assert client.get("/comparison/pair?first=0&second=99").status_code == 400
    assert client.get(f"/comparison/tables?q={'x' * 300}").status_code == 422


def test_report_is_made_on_request_and_sandboxed(client: TestClient) -> None:
    assert client.get("/report/report.html").status_code == 404
    assert "Make the report" in client.get("/report").text
    assert client.post("/api/report").status_code == 200
    assert "being made" in client.get("/report/part").text
    deadline_s = time.monotonic() + 120.0
    while (status := client.get("/api/report").json())["is_making"] and time.monotonic() < deadline_s:
        time.sleep(0.05)
    assert status["problem"] == "" and status["at"] is not None
    answer = client.get("/report/report.html")
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("sandbox allow-scripts") and "allow-same-origin" not in policy
    assert "default-src 'none'" in policy and "connect-src" not in policy
    assert "model=small" in answer.text
    download = client.get("/report/report.html?download=true")
    assert download.headers["content-disposition"].startswith("attachment")
    assert "Open the report" in client.get("/report").text
