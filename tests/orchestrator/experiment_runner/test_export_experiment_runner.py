"""The exported folder: Experiment Runner's layout to the byte, its sum, and nobody's results lost."""

import hashlib
import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from contract.attempt_state import AttemptState
from contract.errors import ChildDiedError, UsageError
from orchestrator.artifacts import ArtifactFolder
from orchestrator.experiment_runner.export import export_experiment_runner
from orchestrator.experiment_runner.export_marks import MARKS, measured_here
from orchestrator.experiment_runner.fingerprint import fingerprint
from orchestrator.experiment_runner.run_table_file import METADATA, RUN_TABLE, read_sum, write_sum
from orchestrator.experiment_runner.study import StudySource, load_study
from orchestrator.export import export_run_table
from orchestrator.store.sql_store import SqlStore
from tests.contract.examples import RESULT
from tests.orchestrator.doubles import plan as small_plan
from tests.orchestrator.experiment_runner.studies import (
    LLAMA,
    LLAMA_TEMPLATE,
    ONE_FACTOR,
    OVERLAP,
    read_as_experiment_runner,
    snapshot,
    write_study,
    written_by_experiment_runner,
)

COLUMNS = 'data_columns=["energy", "reasons", "avg_cpu"]'
MODEL = ONE_FACTOR.replace('data_columns=["energy"]', COLUMNS)


class Experiment:
    """A study of which some runs have ended, in a folder."""

    def __init__(self, folder: Path, source: StudySource) -> None:
        self.folder = folder
        folder.mkdir()
        self.store = SqlStore.open(str(folder / "run_table.sqlite"), owner="me", create=True)
        self.study = load_study(source)
        self.store.create_experiment(self.study.plan)

    def end_next(self, state: AttemptState) -> str:
        claim = self.store.claim_next("box")
        assert claim is not None
        changed = {"attempt_id": claim.attempt_id, "run_id": claim.run_id, "state": state}
        if state is AttemptState.SUCCEEDED:
            changed["reasons"] = []
        error = ChildDiedError("It died.").body() if state is AttemptState.FAILED else None
        self.store.finish(claim.attempt_id, state, result=RESULT.model_copy(update=changed), error=error)
        attempt = ArtifactFolder(self.folder).folder(claim.run_id, claim.attempt_id)
        attempt.mkdir(parents=True)
        (attempt / "energibridge.csv").write_text(f"log of {claim.attempt_id}")
        return claim.run_id


@pytest.fixture
def closing() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def experiment(tmp_path: Path, closing: ExitStack) -> Experiment:
    """Done, suspect, failed three times, untouched."""
    config, spec = write_study(tmp_path, MODEL)
    found = Experiment(tmp_path / "ours", StudySource(config, spec))
    closing.callback(found.store.close)
    for state in (AttemptState.SUCCEEDED, AttemptState.SUSPECT, *[AttemptState.FAILED] * 3):
        found.end_next(state)
    return found


def test_the_table_has_the_studys_columns_to_the_byte(experiment: Experiment, tmp_path: Path) -> None:
    exported = export_experiment_runner(experiment.store, experiment.folder, tmp_path / "out")
    assert (tmp_path / "out" / RUN_TABLE).read_bytes() == (
        b"__run_id,__done,task,energy,reasons,avg_cpu\r\n"
        b"run_0_repetition_0,DONE,BoolQ,35000.5,, \r\n"
        b"run_1_repetition_0,DONE,RTE,35000.5,gap: 3 gaps in gpu:0., \r\n"
        b"run_0_repetition_1,TODO,BoolQ, , , \r\n"
        b"run_1_repetition_1,TODO,RTE, , , \r\n"
    )
    assert any("Left empty, for the template names no source of them: avg_cpu" in note for note in exported.notes)


def test_its_documented_reader_gets_back_what_a_restart_compares(experiment: Experiment, tmp_path: Path) -> None:
    export_experiment_runner(experiment.store, experiment.folder, tmp_path / "out")
    rows = read_as_experiment_runner(tmp_path / "out" / RUN_TABLE)
    design = {run.run_id: run.treatment for run in experiment.study.plan.runs}
    assert [row["__run_id"] for row in rows] == list(design)
    assert all(str(row["task"]) == str(design[row["__run_id"]]["task"]) for row in rows)
    assert set(rows[0]) == {"__run_id", "__done", "task", "energy", "reasons", "avg_cpu"}


def test_runs_with_a_result_have_a_folder_with_their_files(experiment: Experiment, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export_experiment_runner(experiment.store, experiment.folder, out)
    assert sorted(path.name for path in out.iterdir()) == [
        MARKS,
        METADATA,
        "run_0_repetition_0",
        "run_1_repetition_0",
        RUN_TABLE,
    ]
    assert (out / "run_0_repetition_0" / "energibridge.csv").read_text().startswith("log of run_0_repetition_0-a1-")
    assert measured_here(out) == {"run_0_repetition_0", "run_1_repetition_0"}


def test_the_folder_is_in_the_experiments_own_unless_told(experiment: Experiment) -> None:
    exported = export_experiment_runner(experiment.store, experiment.folder)
    assert exported.folder == experiment.folder / "experiment_runner" / "study"


def test_the_sum_ignores_comments_lines_and_doc_strings_and_nothing_else() -> None:
    text = 'class RunnerConfig:\n    """Doc."""\n    name = "a"\n'
    same = '# comment\n\n\nclass RunnerConfig:\n\n    """Other."""\n\n    name  =  "a"  # note\n'
    assert fingerprint(text)[0] == fingerprint(same)[0]
    assert fingerprint(text)[0] != fingerprint(text.replace('"a"', '"b"'))[0]


def test_the_sum_may_be_computed_by_the_python_that_experiment_runner_has(
    experiment: Experiment, tmp_path: Path
) -> None:
    for number, python in enumerate((None, Path(sys.executable))):
        export_experiment_runner(experiment.store, experiment.folder, tmp_path / str(number), python)
    text = (tmp_path / "RunnerConfig.py").read_text()
    assert read_sum(tmp_path / "0") == read_sum(tmp_path / "1") == fingerprint(text)[0]
    with pytest.raises(UsageError, match="did not compute the configuration's sum"):
        export_experiment_runner(experiment.store, experiment.folder, tmp_path / "2", tmp_path / "no-python")
    assert not (tmp_path / "2").exists()


def test_without_dill_a_sum_that_may_differ_is_said_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dill", None)
    assert fingerprint("x = 1") == (fingerprint("x = 1")[0], True)
    assert fingerprint("x = ...")[1] is False
    assert fingerprint("x = 2j")[1] is False


def test_results_of_others_are_never_overwritten(experiment: Experiment, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export_experiment_runner(experiment.store, experiment.folder, out)
    export_experiment_runner(experiment.store, experiment.folder, out)  # the same again is fine
    table = (out / RUN_TABLE).read_bytes()
    (out / RUN_TABLE).write_bytes(
        table.replace(b"run_1_repetition_1,TODO,RTE, , , ", b"run_1_repetition_1,DONE,RTE,9.5,,")
    )
    before = snapshot(out)
    with pytest.raises(UsageError, match="line 5: run_1_repetition_1 is DONE there with other results than here"):
        export_experiment_runner(experiment.store, experiment.folder, out)
    assert snapshot(out) == before


def test_a_continued_campaign_comes_back_whole(tmp_path: Path, closing: ExitStack) -> None:
    theirs = tmp_path / "theirs"
    (theirs / "run_0_repetition_0").mkdir(parents=True)
    (theirs / "run_0_repetition_0" / "energibridge.csv").write_text("their log")
    rows: list[list[object]] = [
        ["run_1_repetition_1", "TODO", "RTE", " "],
        ["run_0_repetition_0", "DONE", "BoolQ", "12.50"],
        ["run_1_repetition_0", "TODO", "RTE", " "],
        ["run_0_repetition_1", "DONE", "BoolQ", "13"],
    ]
    (theirs / RUN_TABLE).write_bytes(written_by_experiment_runner(["__run_id", "__done", "task", "energy"], rows))
    md5 = hashlib.md5(b"theirs").hexdigest()
    (theirs / METADATA).write_bytes(write_sum(md5))
    config, spec = write_study(tmp_path)
    found = Experiment(tmp_path / "ours", StudySource(config, spec, theirs))
    closing.callback(found.store.close)
    assert found.end_next(AttemptState.SUCCEEDED) == "run_1_repetition_1"
    exported = export_experiment_runner(found.store, found.folder, tmp_path / "out")
    assert (tmp_path / "out" / RUN_TABLE).read_bytes() == (
        b"__run_id,__done,task,energy\r\n"
        b"run_1_repetition_1,DONE,RTE,35000.5\r\n"
        b"run_0_repetition_0,DONE,BoolQ,12.50\r\n"
        b"run_1_repetition_0,TODO,RTE, \r\n"
        b"run_0_repetition_1,DONE,BoolQ,13\r\n"
    )
    assert read_sum(tmp_path / "out") == md5  # theirs, whatever Python made it
    assert (tmp_path / "out" / "run_0_repetition_0" / "energibridge.csv").read_text() == "their log"
    assert measured_here(tmp_path / "out") == {"run_1_repetition_1"}
    assert any("1 runs of Experiment Runner have no folder" in note for note in exported.notes)
    # And into their own folder.
    export_experiment_runner(found.store, found.folder, theirs)
    assert (theirs / RUN_TABLE).read_bytes() == (tmp_path / "out" / RUN_TABLE).read_bytes()
    assert (theirs / "run_0_repetition_0" / "energibridge.csv").read_text() == "their log"
    # In our own table their rows are marked, and have no figure.
    lines = export_run_table(found.store, found.folder, "csv").read_text().splitlines()
    told = [line for line in lines if "IMPORTED" in line]
    assert [line.split(",")[0] for line in told] == ["run_0_repetition_0", "run_0_repetition_1"]
    assert told[0].startswith("run_0_repetition_0,DONE,BoolQ" + "," * 21 + "IMPORTED,,")
    assert told[0].endswith("measured by Experiment Runner: energy=12.50")
    assert sum(found.store.counts().values()) == 2


def test_900_rows_round_trip_through_the_documented_reader(tmp_path: Path, closing: ExitStack) -> None:
    config, spec = write_study(tmp_path, LLAMA, template=LLAMA_TEMPLATE)
    found = Experiment(tmp_path / "ours", StudySource(config, spec))
    closing.callback(found.store.close)
    export_experiment_runner(found.store, found.folder, tmp_path / "out")
    rows = read_as_experiment_runner(tmp_path / "out" / RUN_TABLE)
    planned = [(run.run_id, *map(str, run.treatment.values())) for run in found.study.plan.runs]
    read = [(row["__run_id"], *(str(row[name]) for name in ("generation", "model_size", "task"))) for row in rows]
    assert read == planned
    assert {row["energy"] for row in rows} == {" "}


def test_what_cannot_be_restarted_is_told(tmp_path: Path, closing: ExitStack) -> None:
    config, spec = write_study(tmp_path, OVERLAP)
    found = Experiment(tmp_path / "ours", StudySource(config, spec))
    closing.callback(found.store.close)
    notes = export_experiment_runner(found.store, found.folder).notes
    assert any("cannot restart it: it would lose rows" in note for note in notes)


def test_an_experiment_of_ours_has_our_columns_and_no_sum(tmp_path: Path, closing: ExitStack) -> None:
    store = SqlStore.open(str(tmp_path / "run_table.sqlite"), create=True)
    closing.callback(store.close)
    with pytest.raises(UsageError, match="nothing was planned"):
        export_experiment_runner(store, tmp_path)
    store.create_experiment(small_plan(2))
    exported = export_experiment_runner(store, tmp_path)
    assert not (exported.folder / METADATA).exists()
    assert exported.folder == tmp_path / "experiment_runner" / "test"
    rows = read_as_experiment_runner(exported.folder / RUN_TABLE)
    assert list(rows[0])[:4] == ["__run_id", "__done", "number", "energy_j"]
    assert json.loads((exported.folder / MARKS).read_text())["measured_by_joulebed"] == []
