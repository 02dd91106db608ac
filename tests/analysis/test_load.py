import json
import math
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from analysis.cli import main
from analysis.columns import (
    CARBON_COLUMNS,
    COLUMNS,
    COST_COLUMNS,
    METRIC_COLUMNS,
    PHASE_COLUMNS,
    TRACE_COLUMNS,
)
from analysis.detail import gauges, requests, traces
from analysis.load import load_runs
from analysis.load_joulebed import device_name
from analysis.metrics import with_carbon, with_cost, with_metrics
from analysis.phases import energy_by_phase
from analysis.report.caution import cautions
from analysis.report.result_section import excluded_section
from analysis.summary import summarise
from contract.attempt_state import AttemptState
from contract.errors import LogFormatError, UsageError
from contract.trial_result import EnergyMethod
from energy.trace import Gauge, Trace
from energy.trace_log import write_gauges, write_traces
from tests.contract.examples import RESULT


def row_of(frame: pl.DataFrame, run_id: str) -> dict[str, Any]:
    return frame.row(by_predicate=pl.col("run_id") == run_id, named=True)


def test_a_finished_experiment_is_one_row_per_run(quickstart: Any) -> None:
    experiment = load_runs(quickstart.folder)
    assert experiment.name == "quickstart"
    assert experiment.factors == ("task", "concurrency")
    assert experiment.runs.height == 12
    assert experiment.excluded == ()
    assert experiment.facts == {"idle_temp_c": 38.5}
    assert experiment.design == {"order": "BLOCKS"}
    assert experiment.runs["position"].to_list() == list(range(12))
    assert set(experiment.runs.columns) == {*COLUMNS, "task", "concurrency"}
    assert experiment.runs["concurrency"].dtype == pl.Int64
    row = row_of(experiment.runs, "run_0_repetition_2")
    assert (row["task"], row["concurrency"], row["repetition"]) == ("BoolQ", 1, 2)
    assert row["energy_j"] == pytest.approx(156.45)
    assert (row["energy_method"], row["energy_source"]) == ("estimate", "estimate")
    assert (row["load_energy_j"], row["uncertainty_j"], row["n_wraps"]) == (20.0, 0.5, 1)
    assert (row["gpu_energy_j"], row["energy_net_j"]) == (None, None)
    assert (row["n_items"], row["n_correct"], row["n_abstained"], row["chance_accuracy"]) == (16, 9, 1, 0.5)
    assert (row["start_temp_c"], row["load_s"], row["temperature"], row["counted"]) == (38.0, 1.5, 0.0, True)


def test_which_attempt_counts_and_what_is_said_of_the_others(write_experiment: Any, result_of: Any) -> None:
    table = write_experiment("mixed", {"task": list("abcdefgh")}, repetitions=1)
    ids = [f"run_{i}_repetition_0" for i in range(8)]
    failed = {"code": "engine", "message": "The engine fell over.", "detail": {}, "retryable": True}
    # Accepted at the second try.
    table.attempt(ids[0], AttemptState.FAILED, error=failed, run_state="TODO")
    table.attempt(ids[0], AttemptState.SUCCEEDED, result=result_of(ids[0], energy_j=7.0), run_state="DONE", number=2)
    doubted = result_of(ids[1], energy_j=9.0, state=AttemptState.SUSPECT, reasons=[("gaps", "12 gaps.")])
    table.attempt(ids[1], AttemptState.SUSPECT, result=doubted, run_state="SUSPECT")
    table.attempt(ids[2], AttemptState.FAILED, error=failed, run_state="FAILED")
    table.attempt(ids[3], AttemptState.MEASURING, run_state="RUNNING")
    table.attempt(ids[4], AttemptState.SUCCEEDED, result="{bro", run_state="DONE")
    table.attempt(ids[5], AttemptState.SUCCEEDED, result=None, run_state="DONE")
    table.attempt(ids[6], AttemptState.SUCCEEDED, result='{"attempt_id": "x"}', run_state="DONE")
    experiment = load_runs(table.folder)
    assert experiment.counted()["energy_j"].to_list() == [7.0]
    assert row_of(experiment.runs, ids[0])["attempt_id"] == f"{ids[0]}-a2"
    assert row_of(experiment.runs, ids[0])["n_attempts"] == 2
    assert sorted(experiment.counted(include_suspect=True)["energy_j"]) == [7.0, 9.0]
    assert row_of(experiment.runs, ids[1])["reasons"] == "gaps: 12 gaps."
    why = {each.run_id: each.why for each in experiment.excluded}
    assert why[ids[1]] == "suspect: gaps: 12 gaps."
    assert why[ids[2]] == "failed, last attempt FAILED, engine: The engine fell over."
    assert why[ids[3]] == "still running"
    assert why[ids[4]] == "its result is not readable JSON"
    assert why[ids[5]] == "its result is missing in the run table"
    assert why[ids[6]].startswith("its result does not fit the contract of this version (protocol_version")
    assert why[ids[7]] == "not run yet"
    assert ids[0] not in why


def leave_out(table: Any, run_id: str, reason: str) -> None:
    """As `orchestrator exclude` writes it."""
    value = {"by": "anna@lab", "reason": reason, "at": "2026-11-21T12:00:00Z"}
    table.execute("INSERT INTO fact VALUES (?, ?)", (f"excluded/{run_id}", json.dumps(value)))


def test_what_a_person_left_out_is_in_no_mean_and_named(write_experiment: Any, result_of: Any, tmp_path: Path) -> None:
    table = write_experiment("left", {"task": ["a", "b"]}, repetitions=3)
    table.succeed_all(lambda treatment, repetition: {"energy_j": 100.0 * 10**repetition})
    odd, doubted = "run_0_repetition_2", "run_1_repetition_2"
    table.execute("UPDATE run SET state = 'SUSPECT' WHERE run_id = ?", (doubted,))
    table.execute("UPDATE attempt SET state = 'SUSPECT', accepted = 0 WHERE run_id = ?", (doubted,))
    assert load_runs(table.folder).counted(include_suspect=True).height == 6
    leave_out(table, odd, "the window was open")
    leave_out(table, doubted, "the cat")
    experiment = load_runs(table.folder)
    for include_suspect in (False, True):
        counted = experiment.counted(include_suspect=include_suspect)
        assert sorted(counted["energy_j"]) == [100.0, 100.0, 1000.0, 1000.0]
    # The evidence stays to be looked at.
    assert row_of(experiment.runs, odd)["energy_j"] == 10000.0
    why = {each.run_id: each.why for each in experiment.excluded}
    assert why[odd] == "excluded by anna@lab on 2026-11-21: the window was open"
    assert why[doubted].startswith("excluded by anna@lab on 2026-11-21: the cat; besides, suspect")
    for include_suspect in (False, True):
        summary = summarise(load_runs(table.folder), include_suspect=include_suspect)
        assert [row.n_counted for row in summary.treatments] == [2, 2]
        assert summary.treatments[0].means["energy_j"].mean == pytest.approx(550.0)
        notes = " ".join(summary.notes)
        assert f"Not counted, 1 run ({odd}): excluded by anna@lab on 2026-11-21: the window was open." in notes
        assert "the cat" in notes
        section = excluded_section(summary)
        assert "the window was open" in str(section)
        assert any("the window was open" in caution.text for caution in cautions(summary))


def test_a_nan_is_refused_not_averaged(write_experiment: Any, result_of: Any) -> None:
    table = write_experiment("nan", {"task": ["a"]}, repetitions=1)
    text = result_of("run_0_repetition_0").model_dump_json().replace('"energy_j":100.0', '"energy_j":NaN')
    table.attempt("run_0_repetition_0", AttemptState.SUCCEEDED, result=text, run_state="DONE")
    experiment = load_runs(table.folder)
    assert experiment.counted().height == 0
    assert "not readable" in experiment.excluded[0].why


def test_two_accepted_attempts_are_told(write_experiment: Any, result_of: Any) -> None:
    table = write_experiment("twice", {"task": ["a"]}, repetitions=1)
    for number in (1, 2):
        table.attempt(
            "run_0_repetition_0",
            AttemptState.SUCCEEDED,
            result=result_of(attempt=number),
            run_state="DONE",
            number=number,
        )
    experiment = load_runs(table.folder)
    assert experiment.counted().height == 0
    assert "2 attempts are accepted" in experiment.excluded[0].why


def test_mixed_levels_become_text_and_a_factor_never_hides_a_measurement(write_experiment: Any) -> None:
    table = write_experiment("odd", {"energy_j": [1, "auto"], "ratio": [1, 0.5], "flash": [True, False]}, 1)
    table.succeed_all()
    experiment = load_runs(table.folder)
    assert experiment.factors == ("factor_energy_j", "ratio", "flash")
    kinds = [experiment.runs[name].dtype for name in experiment.factors]
    assert kinds == [pl.String, pl.Float64, pl.Boolean]
    assert experiment.runs["energy_j"].dtype == pl.Float64


def test_reading_leaves_the_folder_as_it_was(quickstart: Any, tmp_path: Path) -> None:
    copy = tmp_path / "a copy #1"
    shutil.copytree(quickstart.folder, copy)
    before = sorted((file.name, file.read_bytes()) for file in copy.iterdir())
    assert load_runs(copy).runs.height == 12
    assert load_runs(copy / "run_table.sqlite").runs.height == 12
    assert sorted((file.name, file.read_bytes()) for file in copy.iterdir()) == before


def test_what_an_open_campaign_has_committed_is_seen(quickstart: Any, tmp_path: Path) -> None:
    with closing(sqlite3.connect(quickstart.database)) as writer:
        writer.execute("UPDATE run SET state = 'RUNNING' WHERE run_id = 'run_0_repetition_0'")
        writer.commit()
        assert Path(f"{quickstart.database}-wal").stat().st_size > 0
        assert "RUNNING" in load_runs(quickstart.folder).runs["state"].to_list()
        copy = tmp_path / "copied while it ran"
        copy.mkdir()
        for name in ("run_table.sqlite", "run_table.sqlite-wal"):
            shutil.copy(quickstart.folder / name, copy)
        assert "RUNNING" in load_runs(copy).runs["state"].to_list()


def test_bad_paths_say_what_to_do(tmp_path: Path, quickstart: Any) -> None:
    with pytest.raises(UsageError, match=r"There is no folder .*orchestrator run"):
        load_runs(tmp_path / "nothing")
    with pytest.raises(UsageError, match=r"holds 1: give .*'quickstart'"):
        load_runs(quickstart.folder.parent)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UsageError, match=r"has no run_table\.sqlite"):
        load_runs(empty)
    (empty / "run_table.sqlite").write_text("this is not a database, but long enough to be looked at " * 20)
    with pytest.raises(UsageError, match="cannot be read as a run table"):
        load_runs(empty)
    (empty / "run_table.sqlite").write_bytes(b"")
    with pytest.raises(UsageError, match="no such table"):
        load_runs(empty)


def test_an_empty_experiment_is_told(write_experiment: Any) -> None:
    table = write_experiment("planned", {"task": ["a"]})
    table.execute("DELETE FROM run")
    with pytest.raises(UsageError, match="no planned runs"):
        load_runs(table.folder)
    table.execute("DELETE FROM experiment")
    with pytest.raises(UsageError, match="is empty"):
        load_runs(table.folder)


def test_metrics_by_hand_and_none_where_they_would_divide_by_zero(write_experiment: Any) -> None:
    table = write_experiment("metrics", {"task": ["a", "b", "c"]}, repetitions=1)
    table.succeed("run_0_repetition_0", energy_j=100.0, duration_s=10.0, n_output_tokens=500, n_items=16, n_correct=8)
    table.succeed("run_1_repetition_0", energy_j=100.0, n_output_tokens=0, n_correct=0)
    table.succeed("run_2_repetition_0", energy_j=None)
    frame = with_metrics(load_runs(table.folder).runs)
    assert set(METRIC_COLUMNS) <= set(frame.columns)
    first, second, third = (row_of(frame, f"run_{i}_repetition_0") for i in range(3))
    gross = [name for name in METRIC_COLUMNS if "net" not in name]
    assert [first[name] for name in gross] == [10.0, 0.2, 6.25, 12.5, 1000.0, 10000.0]
    # Without an idle baseline there is no net figure.
    assert [first[name] for name in METRIC_COLUMNS if "net" in name] == [None] * 6
    assert second["energy_per_output_token_j"] is None
    assert second["energy_per_correct_j"] is None
    assert second["energy_per_request_j"] == 6.25
    assert [third[name] for name in METRIC_COLUMNS] == [None] * 12


def test_net_metrics_by_hand(write_experiment: Any) -> None:
    table = write_experiment("net", {"task": ["a"]}, repetitions=1)
    table.succeed(
        "run_0_repetition_0", energy_j=100.0, energy_net_j=80.0, duration_s=10.0, n_output_tokens=500, n_correct=8
    )
    row = row_of(with_metrics(load_runs(table.folder).runs), "run_0_repetition_0")
    assert [row[name] for name in METRIC_COLUMNS if "net" in name] == [8.0, 0.16, 5.0, 10.0, 800.0, 8000.0]


def test_cost_and_carbon_are_of_what_was_stated(write_experiment: Any) -> None:
    table = write_experiment("cost", {"task": ["a", "b"]}, repetitions=1)
    table.succeed("run_0_repetition_0", energy_j=3.6e6, n_correct=8)
    table.succeed("run_1_repetition_0", energy_j=None)
    runs = with_carbon(with_cost(load_runs(table.folder).runs, 0.25, "EUR"), 400)
    assert set(runs.columns) >= {*COST_COLUMNS, *CARBON_COLUMNS}
    one_kwh, unmeasured = (row_of(runs, f"run_{i}_repetition_0") for i in range(2))
    assert (one_kwh["cost"], one_kwh["cost_per_correct"]) == pytest.approx((0.25, 0.25 / 8), rel=1e-12)
    assert one_kwh["cost_currency"] == "EUR"
    assert (one_kwh["carbon_g"], one_kwh["carbon_per_correct_g"]) == pytest.approx((400.0, 50.0), rel=1e-12)
    assert (unmeasured["cost"], unmeasured["carbon_g"], unmeasured["grid_intensity_g_per_kwh"]) == (None, None, 400.0)
    for wrong in (-1.0, math.nan, math.inf):
        with pytest.raises(UsageError, match="finite number of at least 0"):
            with_carbon(runs, wrong)
        with pytest.raises(UsageError, match="price per kWh"):
            with_cost(runs, wrong)


def test_phases_are_those_of_the_results(quickstart: Any) -> None:
    experiment = load_runs(quickstart.folder)
    phases = energy_by_phase(experiment)
    assert phases.columns == list(PHASE_COLUMNS)
    assert phases.height == 24
    measured = phases.filter(pl.col("is_added") & (pl.col("phase") == "measure"))
    joined = experiment.runs.join(measured.select("run_id", pl.col("energy_j").alias("of_phase_j")), on="run_id")
    assert joined["of_phase_j"].to_list() == joined["energy_j"].to_list()
    assert phases.filter(pl.col("phase") == "load")["energy_j"].unique().to_list() == [20.0]
    assert set(phases["method"]) == {"estimate"}


def test_samples_and_requests_are_read_when_asked_for(quickstart: Any) -> None:
    experiment = load_runs(quickstart.folder)
    run_id = "run_0_repetition_0"
    with pytest.raises(UsageError, match="Copy the whole experiment"):
        traces(experiment, run_id)
    attempt = quickstart.folder / "runs" / run_id / f"{run_id}-a1"
    attempt.mkdir(parents=True)
    with pytest.raises(UsageError, match="has left no samples"):
        traces(experiment, run_id)
    with pytest.raises(UsageError, match="has kept no requests"):
        requests(experiment, run_id)
    time_s = np.arange(100.0, 111.0)
    # 5 W, counted with a wrap at 30 J; and 2 W, sampled.
    counter = Trace("cpu_package", "cpu", "counter", EnergyMethod.COUNTER, "rapl", time_s, (time_s * 5) % 30, wrap_j=30)
    power = Trace("gpu:0", "gpu", "power", EnergyMethod.SAMPLED, "nvml", time_s, np.full(11, 2.0))
    write_traces(attempt / "trace_rapl.csv", [counter])
    write_traces(attempt / "trace_nvml.csv", [power])
    write_gauges(attempt / "gauges_nvml.csv", [Gauge("gpu:0", "temp_c", "nvml", time_s, np.full(11, 40.0))])
    frame = traces(experiment, run_id)
    assert frame.columns == list(TRACE_COLUMNS)
    sums = dict(frame.group_by("domain").agg(pl.col("energy_j").sum()).iter_rows())
    assert sums == pytest.approx({"cpu_package": 50.0, "gpu:0": 20.0})
    assert set(frame["power_w"].round(9)) == {5.0, 2.0}
    assert gauges(experiment, run_id)["time_s"].to_list() == list(range(11))
    line = {
        "item_id": "BoolQ-1",
        "submitted_s": 101.0,
        "first_token_s": 101.5,
        "finished_s": 103.0,
        "n_prompt_tokens": 30,
        "n_output_tokens": 4,
        "messages": [{"role": "user", "content": "Is it?"}],
        "answer": "Yes",
        "gold_label": "True",
        "predicted_label": "True",
        "is_correct": True,
    }
    (attempt / "requests.jsonl").write_text(f"{json.dumps(line)}\n")
    (attempt / "request_energy.csv").write_text(
        "index,item_id,prefill_s,decode_s,prefill_energy_j,decode_energy_j,energy_j\n0,BoolQ-1,0.5,1.4,3.5,9.8,13.3\n"
    )
    row = requests(experiment, run_id).row(0, named=True)
    assert (row["prompt"], row["duration_s"], row["prefill_s"], row["energy_j"]) == ("Is it?", 2.0, 0.5, 13.3)
    assert not {"device", "exit_layer", "entropy_nats"} & set(row)
    early = line | {"token_exit_layer": [30, 24, 24, 24], "token_entropy_nats": [1.0, 0.5, 0.5, 1.0]}
    (attempt / "requests.jsonl").write_text(f"{json.dumps(early)}\n")
    row = requests(experiment, run_id).row(0, named=True)
    assert (row["exit_layer"], row["entropy_nats"]) == (25.5, 0.75)
    (attempt / "requests.jsonl").write_text(f"{json.dumps(line)}\n{{bro")
    with pytest.raises(LogFormatError, match="line 2 is not a request"):
        requests(experiment, run_id)


def test_energibridges_clock_is_brought_to_that_of_the_other_meters(quickstart: Any) -> None:
    experiment = load_runs(quickstart.folder)
    run_id = "run_0_repetition_0"
    attempt = quickstart.folder / "runs" / run_id / f"{run_id}-a1"
    attempt.mkdir(parents=True)
    time_s = np.arange(100.0, 111.0)
    write_traces(
        attempt / "trace_nvml.csv",
        [Trace("gpu:0", "gpu", "power", EnergyMethod.SAMPLED, "nvml", time_s, np.full(11, 2.0))],
    )
    lines = ["Delta,Time,PACKAGE_ENERGY (J)", *(f"200,{1_760_000_100_000 + 200 * i},{i}" for i in range(50))]
    (attempt / "energibridge.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(UsageError, match="two clocks"):
        traces(experiment, run_id)
    (attempt / "record.json").write_text(json.dumps({"unix_minus_monotonic_s": 1_760_000_000.0}))
    frame = traces(experiment, run_id)
    assert dict(frame.group_by("domain").agg(pl.col("time_s").min()).iter_rows()) == {"gpu:0": 0.0, "cpu_package": 0.0}
    # What the run calls an estimate stays one, whatever its log looks like.
    assert set(frame.filter(pl.col("domain") == "cpu_package")["method"]) == {"estimate"}


def test_files_say_what_their_columns_mean(quickstart: Any, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "runs.parquet"
    arguments = ["runs", str(quickstart.folder), "--parquet", str(out), "--csv", str(tmp_path / "runs.csv")]
    assert main([*arguments, "--metrics", "--price", "0.3", "--grid-intensity", "300"]) == 0
    frame = pl.read_parquet(out)
    expected = with_carbon(with_cost(with_metrics(load_runs(quickstart.folder).runs), 0.3), 300)
    assert frame.equals(expected)
    assert pl.read_csv(tmp_path / "runs.csv")["energy_j"].to_list() == frame["energy_j"].to_list()
    meanings = json.loads((tmp_path / "runs.columns.json").read_text())
    assert [each["name"] for each in meanings] == frame.columns
    assert next(each for each in meanings if each["name"] == "carbon_g")["unit"] == "g"
    assert next(each for each in meanings if each["name"] == "task")["kind"] == "factor"
    assert main(["runs", str(quickstart.folder), "--csv", str(tmp_path / "runs.xlsx")]) == 2
    assert "neither .parquet nor .csv" in capsys.readouterr().err


def test_no_estimate_is_listed_without_the_word(quickstart: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", str(quickstart.folder)]) == 0
    said = capsys.readouterr().out
    rows = [line for line in said.splitlines() if "_repetition_" in line]
    assert len(rows) == 12 and all("estimate" in line for line in rows)
    assert main(["columns", "--json"]) == 0
    described = json.loads(capsys.readouterr().out)
    assert [each["name"] for each in described["runs"]] == list(COLUMNS)
    assert all(each["doc"] for columns in described.values() for each in columns)


def test_a_device_is_named_without_its_serial_number() -> None:
    assert device_name(RESULT.model_copy(update={"devices": [], "load": None})) == "NVIDIA GeForce RTX 4090"
