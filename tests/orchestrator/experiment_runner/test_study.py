"""Studies of Experiment Runner as plans of ours: all rows, the right ids, and half-done campaigns."""

import random
from pathlib import Path

import pytest

from contract.errors import ConfigError
from orchestrator.config import Order
from orchestrator.experiment_runner.export_marks import MARKS, encode_marks
from orchestrator.experiment_runner.run_table_file import METADATA, RUN_TABLE, write_sum
from orchestrator.experiment_runner.study import DESIGN_KEY, Study, StudySource, load_study
from tests.orchestrator.experiment_runner.studies import (
    LLAMA,
    LLAMA_TEMPLATE,
    ONE_FACTOR,
    OVERLAP,
    SHARED,
    TEMPLATE,
    snapshot,
    write_study,
    written_by_experiment_runner,
)

MD5 = "00112233445566778899aabbccddeeff"


def load(folder: Path, model: str = ONE_FACTOR, *, continued: Path | None = None, template: str = TEMPLATE) -> Study:
    config, spec = write_study(folder, model, template=template)
    return load_study(StudySource(config, spec, continued))


def campaign(folder: Path, rows: list[list[object]], columns: list[str]) -> Path:
    theirs = folder / "theirs"
    theirs.mkdir()
    (theirs / RUN_TABLE).write_bytes(written_by_experiment_runner(["__run_id", "__done", *columns], rows))
    (theirs / METADATA).write_bytes(write_sum(MD5))
    return theirs


def test_the_llama_study_plans_900_runs_with_its_own_ids(tmp_path: Path) -> None:
    study = load(tmp_path, LLAMA, template=LLAMA_TEMPLATE)
    runs = study.plan.runs
    assert len(runs) == 900
    assert {run.run_id for run in runs} == {f"run_{i}_repetition_{j}" for i in range(30) for j in range(30)}
    by_id = {run.run_id: run for run in runs}
    assert by_id["run_25_repetition_18"].treatment == {"generation": "3.2", "model_size": "3B", "task": "CB"}
    assert by_id["run_25_repetition_18"].spec.model.source == "hf:meta-llama/Llama-3.2-3B-Instruct"
    order = [run.run_id for run in runs]
    assert order != sorted(order)
    assert order == [run.run_id for run in load(tmp_path, LLAMA, template=LLAMA_TEMPLATE).plan.runs]
    assert any("shuffle has no seed; this order is drawn from seed 0" in note for note in study.notes)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the public LLaMA study is not beside this checkout")
def test_the_public_llama_table_has_these_rows_and_can_be_continued(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    lines = (SHARED / RUN_TABLE).read_bytes().decode().split("\r\n")
    todo = random.Random(1).sample(range(1, 901), 450)
    for number in todo:
        run_id, _, *factors, _ = lines[number].split(",")
        lines[number] = ",".join([run_id, "TODO", *factors, " "])
    (theirs / RUN_TABLE).write_bytes("\r\n".join(lines).encode())
    (theirs / METADATA).write_bytes((SHARED / METADATA).read_bytes())
    plan = load(tmp_path, LLAMA, continued=theirs, template=LLAMA_TEMPLATE).plan
    assert [run.run_id for run in plan.runs] == [lines[number].split(",")[0] for number in sorted(todo)]
    assert all(
        list(run.treatment.values()) == lines[number].split(",")[2:5]
        for run, number in zip(plan.runs, sorted(todo), strict=True)
    )


def test_an_order_that_is_not_shuffled_is_kept(tmp_path: Path) -> None:
    study = load(tmp_path)
    assert study.config.order is Order.DECLARED
    assert [run.run_id for run in study.plan.runs] == [f"run_{i}_repetition_{j}" for j in (0, 1) for i in (0, 1)]
    assert [run.position for run in study.plan.runs] == [0, 1, 2, 3]


def test_the_pause_is_the_cooldowns_floor_and_the_template_wins(tmp_path: Path) -> None:
    config, spec = write_study(tmp_path, pause_ms="1500")
    assert load_study(StudySource(config, spec)).config.cooldown.floor_s == 1.5
    spec.write_text(TEMPLATE.replace("max_wait_s = 0", "floor_s = 2.5"))
    assert load_study(StudySource(config, spec)).config.cooldown.floor_s == 2.5


def test_a_design_without_factors_is_one_treatment(tmp_path: Path) -> None:
    model = 'self.run_table_model = RunTableModel(factors=[], repetitions=3, data_columns=["x"])'
    assert [run.run_id for run in load(tmp_path, model).plan.runs] == [f"run_0_repetition_{j}" for j in range(3)]


def test_rows_that_experiment_runner_would_lose_are_planned_and_told(tmp_path: Path) -> None:
    study = load(tmp_path, OVERLAP)
    assert [tuple(run.treatment.values()) for run in study.plan.runs] == [(2, "y"), (2, "z"), (3, "y"), (3, "z")]
    assert "lose 1 of 4 treatments (a=2, b=y)" in study.notes[0]


def test_a_campaign_that_lost_rows_is_continued_with_its_own_ids(tmp_path: Path) -> None:
    rows = [["run_2_repetition_0", "TODO", 3, "z", " "], ["run_0_repetition_0", "DONE", 2, "z", 5.5]]
    theirs = campaign(tmp_path, [*rows, ["run_1_repetition_0", "TODO", 3, "y", " "]], ["a", "b", "energy"])
    study = load(tmp_path, OVERLAP, continued=theirs)
    assert [(run.run_id, run.treatment["a"], run.treatment["b"]) for run in study.plan.runs] == [
        ("run_2_repetition_0", 3, "z"),
        ("run_1_repetition_0", 3, "y"),
    ]
    assert any("lost 1 treatments of this design" in note for note in study.notes)


HALF: list[list[object]] = [
    ["run_1_repetition_1", "TODO", "RTE", " "],
    ["run_0_repetition_0", "DONE", "BoolQ", 12.5],
    ["run_1_repetition_0", "TODO", "RTE", " "],
    ["run_0_repetition_1", "DONE", "BoolQ", 13],
]


def test_half_a_campaign_leaves_the_other_half_in_its_order(tmp_path: Path) -> None:
    study = load(tmp_path, continued=campaign(tmp_path, HALF, ["task", "energy"]))
    assert [run.run_id for run in study.plan.runs] == ["run_1_repetition_1", "run_1_repetition_0"]
    assert [run.position for run in study.plan.runs] == [0, 1]
    origin = study.plan.design[DESIGN_KEY]
    assert isinstance(origin, dict)
    assert origin["md5"] == MD5
    assert [(row["run_id"], row["data"]) for row in origin["imported"]["rows"]] == [
        ("run_0_repetition_0", {"energy": "12.5"}),
        ("run_0_repetition_1", {"energy": "13"}),
    ]
    assert "2 runs are DONE" in study.notes[0]
    assert "count in no figure of ours" in study.notes[0]
    # The seed of a run does not depend on what else is to do.
    whole = {run.run_id: run.spec for run in load(tmp_path).plan.runs}
    assert all(run.spec == whole[run.run_id] for run in study.plan.runs)


def test_rows_that_were_exported_by_us_into_their_folder_are_still_ours(tmp_path: Path) -> None:
    theirs = campaign(tmp_path, HALF, ["task", "energy"])
    before = load(tmp_path, continued=theirs).plan
    done = [[row[0], "DONE", row[2], 9.5 if row[3] == " " else row[3]] for row in HALF]
    (theirs / RUN_TABLE).write_bytes(written_by_experiment_runner(["__run_id", "__done", "task", "energy"], done))
    ours = ["run_1_repetition_1", "run_1_repetition_0"]
    (theirs / MARKS).write_bytes(encode_marks("study", before.sha256, ours, [], {}))
    assert load(tmp_path, continued=theirs).plan.sha256 == before.sha256


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        ([["run_0_repetition_0", "TODO", "CB", " "]], ["task", "energy"], "line 2: task of run_0_repetition_0 is 'CB'"),
        ([["run_7_repetition_0", "TODO", "RTE", " "]], ["task", "energy"], "line 2: the configuration has no run_7"),
        (HALF[:3], ["task", "energy"], "1 rows of the configuration are missing, such as run_0_repetition_1"),
        (HALF, ["task", "joules"], "line 1: it has 'joules'"),
        ([[*row[:1], "DONE", *row[2:]] for row in HALF], ["task", "energy"], "All 4 runs .* nothing to continue"),
    ],
)
def test_a_campaign_of_another_configuration_is_refused_and_nothing_written(
    tmp_path: Path, rows: list[list[object]], columns: list[str], message: str
) -> None:
    theirs = campaign(tmp_path, rows, columns)
    write_study(tmp_path)
    before = snapshot(tmp_path)
    with pytest.raises(ConfigError, match=message) as told:
        load(tmp_path, continued=theirs)
    assert str(theirs / RUN_TABLE) in str(told.value)
    assert snapshot(tmp_path) == before


def test_a_name_that_is_no_folder_is_changed_and_told(tmp_path: Path) -> None:
    config, spec = write_study(tmp_path, name="my study, 2nd")
    study = load_study(StudySource(config, spec))
    assert study.plan.experiment == "my_study_2nd"
    assert any("named 'my_study_2nd' here" in note for note in study.notes)
