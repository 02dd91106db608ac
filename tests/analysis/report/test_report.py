import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from analysis.cli import main
from contract.attempt_state import AttemptState
from tests.analysis.audit.campaign import Campaign
from tests.analysis.report.page import Page

SHARED = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "greenlab"


@pytest.fixture(scope="module")
def campaign_page(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Two models of 350 W and 250 W, three repetitions, with a table that holds the CPU twice."""
    folder = tmp_path_factory.mktemp("page") / "study"
    campaign = Campaign(folder)
    for repetition in range(3):
        for run, gpu_w in enumerate((300.0, 200.0)):
            # 100 s of prompts: 50 W twice and the GPU's.
            wrong_j = (2 * campaign.cpu_w + gpu_w + repetition) * campaign.prompts_s
            cells = {"energy": repr(wrong_j), "time(s)": "100,00"}
            answers = (f"yes {repetition}", "no")
            campaign.add_run(run, repetition, gpu_w=gpu_w + repetition, cells=cells, answers=answers, temp_c=35 + run)
    campaign.write_table()
    out = folder.parent / "report.html"
    assert main(["report", str(folder), "--out", str(out)]) == 0
    return Page(out.read_text())


def report_of(folder: Path, tmp_path: Path, *options: str) -> Any:
    out = tmp_path / "report.html"
    assert main(["report", str(folder), "--out", str(out), *options]) == 0
    return Page(out.read_text())


def test_it_loads_nothing_and_its_ids_are_unique(quickstart: Any, tmp_path: Path) -> None:
    page = report_of(quickstart.folder, tmp_path)
    assert page.loads == []
    assert all(anchor.startswith("#") for anchor in page.anchors)
    assert {anchor[1:] for anchor in page.anchors} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))


def test_sections_units_and_the_word_estimate(quickstart: Any, tmp_path: Path) -> None:
    page = report_of(quickstart.folder, tmp_path)
    for heading in ("Results", "Tests", "Figures", "Design", "Environment", "Excluded runs", "How to cite"):
        assert heading in page.ids or heading in page.text
    assert "All energies are estimates (CPU time x 15 W per busy core)" in page.text
    assert "energy, J, estimate" in page.text
    assert "estimated energy of the measured phase is least" in page.text
    assert "not distinguishable from chance" in page.text
    # What is needed to repeat it.
    for known in ("Example CPU", "fake:m", "r1", "seed of the plan 7", "BLOCKS"):
        assert known in page.text


def test_markdown_and_figures_are_files_that_exist(quickstart: Any, tmp_path: Path) -> None:
    md, figures = tmp_path / "out" / "report.md", tmp_path / "figures"
    assert main(["report", str(quickstart.folder), "--md", str(md), "--figures", str(figures)]) == 0
    text = md.read_text()
    linked = [line.split("](")[1].rstrip(")") for line in text.splitlines() if line.startswith("![")]
    assert linked
    assert all((md.parent / link).is_file() for link in linked)
    assert "| task | concurrency | runs |" in text
    names = {path.stem for path in figures.iterdir()}
    assert {"energy_by_treatment", "energy_per_token", "pareto", "interaction", "edp_ranking"} <= names
    assert all({f"{name}.pdf", f"{name}.svg", f"{name}.png"} <= {p.name for p in figures.iterdir()} for name in names)
    assert not (tmp_path / "report.html").exists()


def test_equal_results_have_equal_hashes_and_changed_ones_do_not(write_experiment: Any, tmp_path: Path) -> None:
    from analysis.load import load_runs
    from analysis.report.citation_section import data_sha256

    tables = [write_experiment(f"e{i}", {"task": ["a", "b"]}) for i in range(3)]
    for i, table in enumerate(tables):
        table.succeed_all(lambda t, r, i=i: {"energy_j": 100.0 + r + (0.001 if i == 2 and t["task"] == "b" else 0)})
    first, second, changed = (data_sha256(load_runs(table.folder)) for table in tables)
    assert first == second != changed


def test_what_is_wrong_in_a_table_stands_beside_the_corrected_value(campaign_page: Any) -> None:
    assert "the CPU counted twice" in campaign_page.text
    assert "a decimal comma" in campaign_page.text
    # 400 W of the table and the 350 W it was, for 100 s.
    assert "40000.0 35,000" in campaign_page.text


def test_known_watts_come_out(campaign_page: Any) -> None:
    # 50 W + 300, 301, 302 W for 100 s: 35,100 J on average; the other model 10,000 J less.
    assert "35,100 J" in campaign_page.text
    assert "25,100 J" in campaign_page.text
    assert "1.40 times as much" in campaign_page.text
    assert "No accuracy: There are no gold labels" in campaign_page.text
    assert campaign_page.loads == []


def test_two_treatments_apart_are_told_apart_and_by_how_much(write_experiment: Any, tmp_path: Path) -> None:
    table = write_experiment("apart", {"model": ["a", "b"]}, repetitions=6)
    table.succeed_all(lambda t, r: {"energy_j": (100.0 if t["model"] == "a" else 200.0) + r, "n_output_tokens": 9 + r})
    page = report_of(table.folder, tmp_path)
    # Two groups of 6 without overlap: H = 12/(12 x 13) x 6 x 2 x 3^2 = 8.308, p = 0.0039 for one degree of freedom.
    assert "H(1) = 8.308, p = 0.004" in page.text
    # 102.5 J against 202.5 J, every value below every other one.
    assert "model=a model=b 0.506" in page.text
    assert "-1.00 large" in page.text
    assert "By ranks (Mann-Whitney)" in page.text


def test_energy_by_phase_stands_beside_the_headline(quickstart: Any, tmp_path: Path) -> None:
    page = report_of(quickstart.folder, tmp_path)
    # Loading is 20 J in every run.
    assert "cpu_package, estimate 20.00" in page.text


def test_no_html_in_a_name_is_taken_for_html(write_experiment: Any, tmp_path: Path) -> None:
    table = write_experiment("x", {"model": ["<script>alert(1)</script>", "b"]})
    table.succeed_all()
    page = report_of(table.folder, tmp_path)
    assert "<script>alert(1)</script>" not in (tmp_path / "report.html").read_text()
    assert "<script>alert(1)</script>" in page.text


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("nothing", "There is no folder"),
        ("empty folder", "has no"),
        ("no result yet", "No run of bad has a result yet"),
        ("no energy", "has an energy"),
        ("empty run table", "no rows"),
        ("logs of another kind", "is not an experiment's folder"),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(
    case: str, said: str, write_experiment: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "results" / "bad"
    if case == "empty folder":
        folder.mkdir(parents=True)
    elif case == "empty run table":
        folder.mkdir(parents=True)
        (folder / "run_table.csv").write_text("__run_id,__done,model\n")
    elif case == "logs of another kind":
        folder.mkdir(parents=True)
        (folder / "power.csv").write_text("time,watts\n0,5\n")
    elif case != "nothing":
        table = write_experiment("bad", {"task": ["a", "b"]})
        if case == "no energy":
            table.succeed_all(lambda *_: {"energy_j": None})
    out = tmp_path / "report.html"
    assert main(["report", str(folder), "--out", str(out)]) == 2
    errors = capsys.readouterr().err
    assert said in errors
    assert "Traceback" not in errors
    assert not out.exists()


def test_one_repetition_has_no_interval_and_no_test(write_experiment: Any, tmp_path: Path) -> None:
    table = write_experiment("once", {"task": ["a", "b"]}, repetitions=1)
    table.succeed_all()
    page = report_of(table.folder, tmp_path)
    assert "no interval and no test" in page.text
    assert "Kruskal" not in page.text
    assert "100.0 ±" not in page.text


def test_one_treatment_is_compared_with_nothing(write_experiment: Any, tmp_path: Path) -> None:
    table = write_experiment("alone", {"task": ["a"]})
    table.succeed_all(lambda _, r: {"energy_j": 100.0 + r})
    page = report_of(table.folder, tmp_path)
    assert "nothing can be compared" in page.text
    assert "Kruskal" not in page.text
    assert "101.0 ± 2.5" in page.text


def test_no_labels_no_accuracy(write_experiment: Any, result_of: Any, tmp_path: Path) -> None:
    table = write_experiment("unlabelled", {"task": ["a", "b"]})
    for i in range(6):
        run_id = f"run_{i // 3}_repetition_{i % 3}"
        result = result_of(run_id, energy_j=100.0 + i)
        unscored = result.model_copy(update={"workload": result.workload.model_copy(update={"score": None})})
        table.attempt(run_id, AttemptState.SUCCEEDED, result=unscored, run_state="DONE")
    page = report_of(table.folder, tmp_path)
    assert "No answers were scored" in page.text
    assert "Accuracy is highest" not in page.text


def test_a_not_finite_energy_is_missing_and_said(write_experiment: Any) -> None:
    from dataclasses import replace

    import polars as pl

    from analysis.load import load_runs
    from analysis.report.source import without_nan

    table = write_experiment("nan", {"task": ["a"]})
    table.succeed_all()
    loaded = load_runs(table.folder)
    broken = replace(
        loaded, runs=loaded.runs.with_columns(energy_j=pl.Series([float("nan"), float("inf"), 5.0], dtype=pl.Float64))
    )
    cleaned, n = without_nan(broken)
    assert n == 2
    assert cleaned.runs["energy_j"].to_list() == [None, None, 5.0]


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium on this machine")
def test_a_browser_without_network_draws_it(quickstart: Any, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    assert main(["report", str(quickstart.folder), "--out", str(out)]) == 0
    dumped = subprocess.run(
        [
            "chromium",
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            # A proxy that is not there: whatever is asked for would fail.
            "--proxy-server=127.0.0.1:9",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--virtual-time-budget=10000",
            "--dump-dom",
            out.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout
    # plotly has drawn: there are two of its charts, each with a main svg.
    assert dumped.count('class="main-svg"') >= 2
    assert dumped.count('<img alt="') >= 4


@pytest.mark.skipif(not SHARED.is_dir(), reason="the public runs are not on this machine")
def test_the_public_study_says_what_was_wrong(tmp_path: Path) -> None:
    page = report_of(SHARED, tmp_path)
    assert "the CPU counted twice" in page.text
    assert "a wrapped counter whose minus sign was dropped" in page.text
    assert "a decimal comma" in page.text
    # 108 contrasts, 18 of them within a task.
    assert "90 of 108 contrasts “per task” compare different tasks" in page.text
    assert "Contrasts within a task: the 18 that the table “per task” should hold" in page.text
    assert "844 844" in page.text
