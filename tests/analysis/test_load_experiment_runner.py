"""Folders of Experiment Runner as experiments: known watts, and everything that can be missing."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from analysis.cli import main
from analysis.detail import all_requests, gauges, requests, traces
from analysis.label_score import with_accuracy
from analysis.load import Experiment, load_runs
from analysis.metrics import with_metrics
from analysis.phases import energy_by_phase
from analysis.summary import summarise
from contract.errors import JouleBedError, UsageError
from tests.analysis.audit.campaign import LEAD_S, TAIL_S, WRAP_J, Campaign

GREENLAB = Path(__file__).resolve().parents[3] / "shared" / "data" / "greenlab"


@pytest.fixture
def campaign(tmp_path: Path) -> Campaign:
    """Two models, three repetitions; the table's energy is not what the logs say, and one row has no log."""
    made = Campaign(tmp_path / "study")
    for repetition in range(3):
        for run, gpu_w in ((0, 300.0), (1, 200.0)):
            made.add_run(
                run, repetition, gpu_w=gpu_w, counter_start_j=WRAP_J - 3000, cells={"size": f"{run + 1}", "energy": "7"}
            )
    made.add_row(1, 3, size="2", energy="7")
    made.write_table()
    return made


def row_of(experiment: Experiment, run_id: str) -> dict[str, Any]:
    return experiment.runs.row(by_predicate=pl.col("run_id") == run_id, named=True)


def why_of(experiment: Experiment, run_id: str) -> str:
    return next(each.why for each in experiment.excluded if each.run_id == run_id)


def test_energy_is_the_prompts_and_never_the_tables(campaign: Campaign) -> None:
    experiment = load_runs(campaign.folder)
    assert (experiment.kind, experiment.name, experiment.factors) == ("experiment_runner", "study", ("model", "size"))
    assert experiment.runs["size"].dtype == pl.Int64
    row = row_of(experiment, "run_0_repetition_1")
    assert row["energy_j"] == pytest.approx((50 + 300) * 100, rel=1e-5)
    assert row["cpu_energy_j"] == pytest.approx(50 * 100, rel=1e-9)
    assert row["load_energy_j"] == pytest.approx((50 + 300) * LEAD_S, rel=1e-4)
    assert (row["duration_s"], row["n_output_tokens"], row["tokens_per_s"]) == (100.0, 2, 0.02)
    assert (row["energy_method"], row["energy_source"], row["energy_domains"]) == (
        "sampled",
        "energibridge",
        "cpu_package, gpu:0",
    )
    # The counter passed its modulus 60 s into the run.
    assert (row["n_wraps"], row["n_gaps"], row["start_temp_c"], row["position"]) == (1, 0, 35.0, 2)
    assert row["dram_energy_j"] is None and row["energy_net_j"] is None
    assert experiment.counted().height == 6
    assert (
        row_of(experiment, "run_1_repetition_3")["state"],
        row_of(experiment, "run_1_repetition_3")["energy_j"],
    ) == (
        "TODO",
        None,
    )
    assert why_of(experiment, "run_1_repetition_3") == "no log in this folder"
    assert [row.means["energy_j"].n for row in summarise(experiment).treatments] == [3, 3]


def test_the_table_or_its_folder_may_be_given(campaign: Campaign) -> None:
    by_folder, by_table = load_runs(campaign.folder), load_runs(campaign.folder / "run_table.csv")
    assert by_folder.runs.equals(by_table.runs)


def test_phases_of_added_domains_sum_to_the_headline(campaign: Campaign) -> None:
    experiment = load_runs(campaign.folder)
    phases = energy_by_phase(experiment)
    measured = (
        phases.filter(pl.col("is_added") & (pl.col("phase") == "measure"))
        .group_by("run_id")
        .agg(pl.col("energy_j").sum().alias("sum_j"))
    )
    both = experiment.counted().join(measured, on="run_id")
    assert both.height == 6
    assert both["sum_j"].to_list() == pytest.approx(both["energy_j"].to_list(), rel=1e-12)
    one = phases.filter((pl.col("run_id") == "run_1_repetition_0") & (pl.col("domain") == "gpu:0"))
    assert dict(zip(one["phase"], one["energy_j"], strict=True)) == pytest.approx(
        {"load": 200.0 * LEAD_S, "measure": 200.0 * 100, "after": 200.0 * TAIL_S}, rel=1e-4
    )
    assert not phases.filter(pl.col("domain") == "cpu_core")["is_added"].any()


def test_samples_are_there_when_asked_for(campaign: Campaign) -> None:
    experiment = load_runs(campaign.folder)
    frame = traces(experiment, "run_0_repetition_0")
    cpu = frame.filter(pl.col("domain") == "cpu_package")
    # Across the wrap as anywhere else.
    assert cpu["power_w"].to_list() == pytest.approx([50.0] * cpu.height, rel=1e-6)
    assert cpu["energy_j"].sum() == pytest.approx(50.0 * campaign.whole_s, rel=1e-9)
    assert (cpu["time_s"][0], cpu["duration_s"].sum()) == (0.0, pytest.approx(campaign.whole_s))
    assert gauges(experiment, "run_0_repetition_0").filter(pl.col("quantity") == "temp_c")[
        "value"
    ].unique().to_list() == [35.0]
    asked = requests(experiment, "run_0_repetition_0")
    assert asked["answer"].to_list() == ["yes", "no"]
    assert asked["start_s"].to_list() == [0.0, 50.0]
    assert asked["n_output_tokens"].sum() == 2
    with pytest.raises(UsageError, match="has no run 'run_9'"):
        traces(experiment, "run_9")
    with pytest.raises(UsageError, match="has no result: no log in this folder"):
        traces(experiment, "run_1_repetition_3")


def test_a_broken_run_is_reported_and_costs_that_run_only(campaign: Campaign) -> None:
    def log(run_id: str) -> Path:
        return campaign.folder / run_id / "energibridge.csv"

    log("run_0_repetition_0").write_text("")
    lines = log("run_0_repetition_1").read_text().splitlines()
    lines[5] = lines[5].replace(lines[5].split(",")[2], "NaN")
    log("run_0_repetition_1").write_text("\n".join(lines))
    log("run_1_repetition_0").unlink()
    sheet = campaign.folder / "run_1_repetition_1" / "prompts_out.tsv"
    sheet.write_text(sheet.read_text().replace("17600", "17700"))
    (campaign.folder / "run_1_repetition_2" / "prompts_out.tsv").write_text("start\tend\n?\t?\n")
    experiment = load_runs(campaign.folder)
    assert row_of(experiment, "run_0_repetition_0")["state"] == "FAILED"
    assert "energibridge.csv" in why_of(experiment, "run_0_repetition_0")
    assert "line 6" in why_of(experiment, "run_0_repetition_1")
    assert why_of(experiment, "run_1_repetition_0") == "no log in this folder"
    doubted = row_of(experiment, "run_1_repetition_1")
    assert (doubted["state"], doubted["counted"], doubted["energy_j"]) == ("SUSPECT", False, None)
    assert "stale file" in why_of(experiment, "run_1_repetition_1")
    # Without the prompts' times the whole log is another quantity: it is doubted, and says so.
    whole = row_of(experiment, "run_1_repetition_2")
    assert whole["state"] == "SUSPECT" and whole["load_energy_j"] is None and whole["tokens_per_s"] is None
    assert "whole log" in whole["energy_notes"]
    assert experiment.counted()["run_id"].to_list() == ["run_0_repetition_2"]
    assert experiment.counted()["energy_j"][0] == pytest.approx(350.0 * 100, rel=1e-5)


def test_requests_of_a_broken_run_are_told_among_the_others(campaign: Campaign) -> None:
    (campaign.folder / "run_0_repetition_1" / "prompts_out.tsv").unlink()
    found = dict(all_requests(load_runs(campaign.folder)))
    assert isinstance(found["run_0_repetition_1"], JouleBedError)
    assert sum(isinstance(each, pl.DataFrame) for each in found.values()) == 5


def test_one_repetition_has_its_factors(tmp_path: Path) -> None:
    campaign = Campaign(tmp_path)
    for run in range(4):
        campaign.add_run(run, 0, level=f"m{run // 2}", cells={"batch": f"{run % 2}", "kind": "x", "energy": f"{run}.5"})
    campaign.write_table()
    experiment = load_runs(tmp_path)
    assert experiment.factors == ("model", "batch")
    summary = summarise(experiment)
    assert [row.means["energy_j"].half_width for row in summary.treatments] == [None] * 4


def test_one_treatment_and_no_table_are_experiments_too(tmp_path: Path) -> None:
    campaign = Campaign(tmp_path)
    campaign.add_run(0, 0)
    campaign.add_run(0, 1)
    without_table = load_runs(tmp_path)
    assert (without_table.factors, without_table.runs["run"].to_list()) == (("run",), [0, 0])
    campaign.write_table()
    experiment = load_runs(tmp_path)
    assert experiment.factors == ()
    assert [row.label for row in summarise(experiment).treatments] == ["all runs"]


def test_rows_and_logs_that_do_not_match_are_told(tmp_path: Path) -> None:
    campaign = Campaign(tmp_path)
    for run in range(2):
        for repetition in range(2):
            campaign.add_run(run, repetition)
    campaign.rows = [*campaign.rows[:3], campaign.rows[0] | {"__done": "DONE"}]
    campaign.write_table()
    experiment = load_runs(tmp_path)
    assert why_of(experiment, "run_1_repetition_1") == "it has no row in run_table.csv"
    assert why_of(experiment, "run_0_repetition_0") == "it has 2 rows in run_table.csv"
    assert experiment.counted().height == 2


@pytest.mark.parametrize(
    ("cells", "dtype", "first"),
    [
        (["1", "2"], pl.Int64, 1),
        (["0.5", "1.0"], pl.Float64, 0.5),
        (["3", "3.1"], pl.String, "3"),
        (["3.10", "3.2"], pl.String, "3.10"),
        (["007", "1"], pl.String, "007"),
        (["True", "False"], pl.Boolean, True),
        (["nan", "1.0"], pl.String, "nan"),
    ],
)
def test_levels_are_numbers_only_where_nothing_is_lost(
    cells: list[str], dtype: Any, first: Any, tmp_path: Path
) -> None:
    campaign = Campaign(tmp_path, prompts_s=2)
    for run, cell in enumerate(cells):
        for repetition in range(2):
            campaign.add_run(run, repetition, cells={"level": cell})
    campaign.write_table()
    runs = load_runs(tmp_path).runs
    assert (runs["level"].dtype, runs["level"][0]) == (dtype, first)


def test_missing_labels_are_a_note_and_given_ones_must_be_there(campaign: Campaign, tmp_path: Path) -> None:
    experiment = with_accuracy(load_runs(campaign.folder))
    assert experiment.runs["accuracy"].null_count() == experiment.runs.height
    assert "There are no gold labels" in experiment.notes[0]
    assert with_metrics(experiment.runs)["energy_per_correct_j"].null_count() == experiment.runs.height
    with pytest.raises(UsageError, match="no gold labels"):
        with_accuracy(experiment, tmp_path / "nowhere")


def test_answers_are_scored_against_labels(campaign: Campaign) -> None:
    (campaign.folder / "prompts").mkdir()
    items = [
        {"prompt": f"question {i}", "task_type": "BoolQ", "idx": i, "original_data": {"label": True}} for i in range(2)
    ]
    text = "\n".join(json.dumps(item) for item in items)
    (campaign.folder / "prompts" / "boolq.jsonl").write_text(text)
    runs = with_metrics(with_accuracy(load_runs(campaign.folder)).counted())
    assert runs["n_items"].to_list() == [2] * 6
    assert runs["n_correct"].to_list() == [1] * 6
    assert runs["energy_per_correct_j"].to_list() == pytest.approx(runs["energy_j"].to_list())


@pytest.mark.parametrize(
    ("case", "said"), [("no logs", "no EnergiBridge log"), ("header only", "no rows"), ("nothing", "has no run_table")]
)
def test_bad_folders_are_one_message(case: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if case != "nothing":
        rows = "" if case == "header only" else "run_0_repetition_0,DONE,x\n"
        (tmp_path / "run_table.csv").write_text("__run_id,__done,model\n" + rows)
    assert main(["runs", str(tmp_path)]) == 2
    errors = capsys.readouterr().err
    assert said in errors and "Traceback" not in errors


@pytest.mark.skipif(not GREENLAB.is_dir(), reason="needs the public runs in ../shared")
def test_public_runs(capsys: pytest.CaptureFixture[str]) -> None:
    experiment = load_runs(GREENLAB)
    assert experiment.factors == ("generation", "model_size", "task")
    assert sorted(experiment.runs["generation"].unique()) == ["2", "3", "3.1", "3.2"]
    runs = experiment.counted()
    assert runs.height == 60 and experiment.runs.height == 900
    assert {each.why for each in experiment.excluded} == {"no log in this folder"}
    assert runs.filter(pl.col("n_wraps") > 0)["run_id"].to_list() == ["run_4_repetition_0"]
    assert runs["energy_j"].min() > 0 and runs["n_gaps"].sum() == 0
    # Both processors and GPU are in, once each.
    both = runs["cpu_energy_j"] + runs["gpu_energy_j"]
    assert both.to_list() == pytest.approx(runs["energy_j"].to_list())
    assert main(["runs", str(GREENLAB), "--phases", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert {row["phase"] for row in document["rows"]} == {"load", "measure", "after"}
