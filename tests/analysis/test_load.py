import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from analysis.columns import COLUMNS, METRIC_COLUMNS
from analysis.load import load_experiment
from analysis.metrics import with_metrics
from contract.attempt_state import AttemptState
from contract.errors import UsageError


def row_of(frame: pl.DataFrame, run_id: str) -> dict[str, Any]:
    return frame.row(by_predicate=pl.col("run_id") == run_id, named=True)


def test_a_finished_experiment_is_one_row_per_run(quickstart: Any) -> None:
    experiment = load_experiment(quickstart.folder)
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
    experiment = load_experiment(table.folder)
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


def test_a_nan_is_refused_not_averaged(write_experiment: Any, result_of: Any) -> None:
    table = write_experiment("nan", {"task": ["a"]}, repetitions=1)
    text = result_of("run_0_repetition_0").model_dump_json().replace('"energy_j":100.0', '"energy_j":NaN')
    table.attempt("run_0_repetition_0", AttemptState.SUCCEEDED, result=text, run_state="DONE")
    experiment = load_experiment(table.folder)
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
    experiment = load_experiment(table.folder)
    assert experiment.counted().height == 0
    assert "2 attempts are accepted" in experiment.excluded[0].why


def test_mixed_levels_become_text_and_a_factor_never_hides_a_measurement(write_experiment: Any) -> None:
    table = write_experiment("odd", {"energy_j": [1, "auto"], "ratio": [1, 0.5], "flash": [True, False]}, 1)
    table.succeed_all()
    experiment = load_experiment(table.folder)
    assert experiment.factors == ("factor_energy_j", "ratio", "flash")
    kinds = [experiment.runs[name].dtype for name in experiment.factors]
    assert kinds == [pl.String, pl.Float64, pl.Boolean]
    assert experiment.runs["energy_j"].dtype == pl.Float64


def test_reading_leaves_the_folder_as_it_was(quickstart: Any, tmp_path: Path) -> None:
    copy = tmp_path / "a copy #1"
    shutil.copytree(quickstart.folder, copy)
    before = sorted((file.name, file.read_bytes()) for file in copy.iterdir())
    assert load_experiment(copy).runs.height == 12
    assert load_experiment(copy / "run_table.sqlite").runs.height == 12
    assert sorted((file.name, file.read_bytes()) for file in copy.iterdir()) == before


def test_what_an_open_campaign_has_committed_is_seen(quickstart: Any, tmp_path: Path) -> None:
    with closing(sqlite3.connect(quickstart.database)) as writer:
        writer.execute("UPDATE run SET state = 'RUNNING' WHERE run_id = 'run_0_repetition_0'")
        writer.commit()
        assert Path(f"{quickstart.database}-wal").stat().st_size > 0
        assert "RUNNING" in load_experiment(quickstart.folder).runs["state"].to_list()
        copy = tmp_path / "copied while it ran"
        copy.mkdir()
        for name in ("run_table.sqlite", "run_table.sqlite-wal"):
            shutil.copy(quickstart.folder / name, copy)
        assert "RUNNING" in load_experiment(copy).runs["state"].to_list()


def test_bad_paths_say_what_to_do(tmp_path: Path, quickstart: Any) -> None:
    with pytest.raises(UsageError, match=r"There is no folder .*orchestrator run"):
        load_experiment(tmp_path / "nothing")
    with pytest.raises(UsageError, match=r"holds 1: give .*'quickstart'"):
        load_experiment(quickstart.folder.parent)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UsageError, match=r"has no run_table\.sqlite"):
        load_experiment(empty)
    (empty / "run_table.sqlite").write_text("this is not a database, but long enough to be looked at " * 20)
    with pytest.raises(UsageError, match="cannot be read as a run table"):
        load_experiment(empty)
    (empty / "run_table.sqlite").write_bytes(b"")
    with pytest.raises(UsageError, match="no such table"):
        load_experiment(empty)


def test_an_empty_experiment_is_told(write_experiment: Any) -> None:
    table = write_experiment("planned", {"task": ["a"]})
    table.execute("DELETE FROM run")
    with pytest.raises(UsageError, match="no planned runs"):
        load_experiment(table.folder)
    table.execute("DELETE FROM experiment")
    with pytest.raises(UsageError, match="is empty"):
        load_experiment(table.folder)


def test_metrics_by_hand_and_none_where_they_would_divide_by_zero(write_experiment: Any) -> None:
    table = write_experiment("metrics", {"task": ["a", "b", "c"]}, repetitions=1)
    table.succeed("run_0_repetition_0", energy_j=100.0, duration_s=10.0, n_output_tokens=500, n_items=16, n_correct=8)
    table.succeed("run_1_repetition_0", energy_j=100.0, n_output_tokens=0, n_correct=0)
    table.succeed("run_2_repetition_0", energy_j=None)
    frame = with_metrics(load_experiment(table.folder).runs)
    assert set(METRIC_COLUMNS) <= set(frame.columns)
    first, second, third = (row_of(frame, f"run_{i}_repetition_0") for i in range(3))
    assert [first[name] for name in METRIC_COLUMNS] == [10.0, 0.2, 6.25, 12.5, 1000.0, 10000.0]
    assert second["energy_per_output_token_j"] is None
    assert second["energy_per_correct_j"] is None
    assert second["energy_per_request_j"] == 6.25
    assert [third[name] for name in METRIC_COLUMNS] == [None] * 6
