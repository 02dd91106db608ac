"""The exported run table: Experiment Runner's layout to the byte, and Parquet with types."""

import builtins
import csv
import json
import resource
import signal
import tracemalloc
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from contract.attempt_state import AttemptState
from contract.errors import ChildDiedError, MissingPackageError, UsageError
from contract.units import Scalar
from orchestrator.export import export_run_table
from orchestrator.run_table_columns import DATA_COLUMNS
from orchestrator.store.base import Plan, RunRow, RunTableDamagedError
from orchestrator.store.sql_store import SqlStore
from tests.contract.examples import RESULT
from tests.orchestrator.doubles import plan

DATA = (
    "energy_j,energy_net_j,cpu_energy_j,gpu_energy_j,energy_method,energy_source,duration_s,tokens_per_s,"
    "n_output_tokens,n_prompt_tokens,accuracy,n_abstained,mean_exit_layer,mean_entropy_nats,choosing_s,choosing_energy_j,"
    "start_temp_c,idle_temp_c,cooldown_s,thermal_gate,state,attempt_id,reasons"
)


def two_factors() -> Plan:
    levels: list[dict[str, Scalar]] = [
        {"task": "RTE", "ratio": 0.5},
        {"task": 'a "quoted", one', "ratio": 1},
        {"task": "CB", "ratio": 1},
        {"task": "CB", "ratio": 2},
    ]
    small = plan(4, max_attempts=2)
    return replace(
        small,
        factors=("task", "ratio"),
        runs=tuple(replace(run, treatment=levels[run.position]) for run in small.runs),
        design={"factors": {"task": ["RTE", "CB"], "ratio": [0.5, 1, 2]}},
    )


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlStore]:
    """Done after a failure, suspect, failed, untouched."""
    with closing(SqlStore.open(tmp_path / "run_table.sqlite", owner="me", create=True)) as store:
        store.create_experiment(two_factors())
        error = ChildDiedError("Killed by signal 9.\nLook at its log.").body()
        for state in (
            AttemptState.FAILED,
            AttemptState.SUCCEEDED,
            AttemptState.SUSPECT,
            AttemptState.FAILED,
            AttemptState.FAILED,
        ):
            claim = store.claim_next("box")
            assert claim is not None
            changed = {"attempt_id": claim.attempt_id, "run_id": claim.run_id, "state": state}
            if state is AttemptState.SUCCEEDED:
                changed["reasons"] = []
            store.finish(
                claim.attempt_id,
                state,
                result=RESULT.model_copy(update=changed),
                error=error if state is AttemptState.FAILED else None,
            )
        yield store


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_csv_has_experiment_runners_layout(store: SqlStore, tmp_path: Path) -> None:
    path = export_run_table(store, tmp_path, "csv")
    assert path == tmp_path / "run_table.csv"
    text = path.read_bytes().decode()
    lines = text.split("\r\n")
    assert lines[-1] == ""
    assert "\n" not in text.replace("\r\n", "")
    assert lines[0] == f"__run_id,__done,task,ratio,{DATA}"
    assert lines[1].startswith(
        "run_0_repetition_0,DONE,RTE,0.5,35000.5,27000.5,5000.0,30000.5,sampled,energibridge,100.0,120.0,"
        "12000,9000,0.625,3,,,0.63,18.9,38.5,,,,DONE,run_0_repetition_0-a2-"
    )
    assert lines[2].startswith('run_1_repetition_0,DONE,"a ""quoted"", one",1,35000.5,')
    assert lines[4] == "run_3_repetition_0,TODO,CB,2" + ", " * 23


def test_each_state_is_told(store: SqlStore, tmp_path: Path) -> None:
    done, suspect, failed, untouched = rows_of(export_run_table(store, tmp_path, "csv"))
    assert (done["__done"], done["state"], done["reasons"]) == ("DONE", "DONE", "")
    assert (suspect["__done"], suspect["state"], suspect["reasons"]) == ("DONE", "SUSPECT", "gap: 3 gaps in gpu:0.")
    assert (failed["__done"], failed["state"]) == ("TODO", "FAILED")
    assert failed["reasons"].endswith("child_died: Killed by signal 9. Look at its log.")
    assert failed["energy_j"] == ""  # what a failed attempt measured is not a figure
    assert failed["attempt_id"].startswith("run_2_repetition_0-a2-")
    assert {untouched[column.name] for column in DATA_COLUMNS} == {" "}


def test_a_running_row_is_to_do_and_has_no_figures(store: SqlStore, tmp_path: Path) -> None:
    assert store.claim_next("box") is not None
    row = rows_of(export_run_table(store, tmp_path, "csv"))[3]
    assert (row["__done"], row["state"], row["energy_j"]) == ("TODO", "RUNNING", "")


def test_what_was_not_measured_is_empty_and_not_zero(tmp_path: Path) -> None:
    with closing(SqlStore.open(tmp_path / "run_table.sqlite", create=True)) as store:
        store.create_experiment(plan(1))
        claim = store.claim_next("box")
        assert claim is not None
        bare = RESULT.model_copy(
            update={"state": AttemptState.SUCCEEDED, "summary": None, "workload": None, "start_temp_c": None}
        )
        store.finish(claim.attempt_id, AttemptState.SUCCEEDED, result=bare)
        (row,) = rows_of(export_run_table(store, tmp_path, "csv"))
    empty = {"energy_j", "energy_net_j", "energy_method", "n_output_tokens", "accuracy", "n_abstained", "start_temp_c"}
    assert {row[name] for name in empty} == {""}
    assert row["duration_s"] == "100.0"


def test_the_columns_are_described_with_units(store: SqlStore, tmp_path: Path) -> None:
    export_run_table(store, tmp_path, "csv")
    document = json.loads((tmp_path / "run_table.columns.json").read_text())
    columns = {column["name"]: column for column in document["columns"]}
    assert list(columns) == ["__run_id", "__done", "task", "ratio", *DATA.split(",")]
    assert columns["energy_j"]["unit"] == "J"
    assert columns["tokens_per_s"]["unit"] == "1/s"
    assert columns["ratio"]["levels"] == [0.5, 1, 2]
    assert all(column["description"] for column in columns.values() if column["role"] == "data")


def test_parquet_has_types(store: SqlStore, tmp_path: Path) -> None:
    polars = pytest.importorskip("polars")
    table = polars.read_parquet(export_run_table(store, tmp_path, "parquet"))
    assert table.columns == ["__run_id", "__done", "task", "ratio", *DATA.split(",")]
    assert table["__run_id"].to_list() == [f"run_{i}_repetition_0" for i in range(4)]
    assert table["ratio"].to_list() == [0.5, 1.0, 1.0, 2.0]
    assert table["energy_j"].to_list() == [35000.5, 35000.5, None, None]
    assert table["n_output_tokens"].dtype == polars.Int64
    assert table["state"].to_list() == ["DONE", "SUSPECT", "FAILED", None]


def test_parquet_without_polars_names_the_extra(
    store: SqlStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    really = builtins.__import__

    def without_polars(name: str, *rest: Any) -> Any:
        if name == "polars":
            raise ModuleNotFoundError("No module named 'polars'")
        return really(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without_polars)
    with pytest.raises(MissingPackageError, match=r"joulebed\[analysis\]"):
        export_run_table(store, tmp_path, "parquet")
    assert not (tmp_path / "run_table.parquet").exists()


def test_a_table_is_replaced_as_a_whole(store: SqlStore, tmp_path: Path) -> None:
    path = export_run_table(store, tmp_path, "csv")
    before = path.read_bytes()
    with path.open("rb") as old:
        assert store.claim_next("box") is not None
        export_run_table(store, tmp_path, "csv")
        assert old.read() == before  # a reader that had it open saw nothing of the change
    assert path.read_bytes() != before
    assert not list(tmp_path.glob(".run_table*"))


class RepeatingReader:
    """A store whose runs come several times, and then an error."""

    def __init__(self, store: SqlStore, times: int = 1, error: Exception | None = None) -> None:
        self._store, self._times, self._error = store, times, error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def each_run(self) -> Iterator[RunRow]:
        for _ in range(self._times):
            yield from self._store.each_run()
        if self._error is not None:
            raise self._error


def test_a_run_table_that_breaks_halfway_leaves_the_old_file(store: SqlStore, tmp_path: Path) -> None:
    path = export_run_table(store, tmp_path, "csv")
    before = path.read_bytes()
    assert store.claim_next("box") is not None
    with pytest.raises(RunTableDamagedError, match="no sense"):
        export_run_table(RepeatingReader(store, error=RunTableDamagedError("It makes no sense.")), tmp_path, "csv")
    assert path.read_bytes() == before
    assert not list(tmp_path.glob(".run_table*"))


@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_a_full_disk_is_told_and_leaves_the_old_file(store: SqlStore, tmp_path: Path, format: str) -> None:
    path = export_run_table(store, tmp_path, format)
    before = path.read_bytes()
    # What a full disk does to whoever writes to a file of this process, polars' own code included.
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (512, limits[1]))
    try:
        with pytest.raises(UsageError, match=rf"run_table.{format} cannot be written .*the run table itself is safe"):
            export_run_table(store, tmp_path, format)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, old)
    assert path.read_bytes() == before
    assert not list(tmp_path.glob(".run_table*"))


def test_an_export_does_not_hold_the_whole_table(store: SqlStore, tmp_path: Path) -> None:
    peaks = []
    for times in (1, 10, 600):
        tracemalloc.start()
        try:
            path = export_run_table(RepeatingReader(store, times), tmp_path, "csv")
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert path.stat().st_size > 350_000
    assert peaks[2] < peaks[1] + 150_000, peaks


def test_what_cannot_be_exported_is_told(store: SqlStore, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no export format 'xlsx'. Choose one of: csv, parquet"):
        export_run_table(store, tmp_path, "xlsx")
    with pytest.raises(UsageError, match=r"run_table.csv cannot be written .*the run table itself is safe"):
        export_run_table(store, tmp_path / "absent", "csv")
    with (
        closing(SqlStore.open(tmp_path / "empty.sqlite", create=True)) as empty,
        pytest.raises(UsageError, match="nothing was planned"),
    ):
        export_run_table(empty, tmp_path, "csv")
