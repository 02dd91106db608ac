import json
import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from analysis.cli import main
from analysis.load import load_runs
from analysis.statistics import mean_interval
from analysis.summary import MEANS, summarise, to_json
from analysis.summary_table import mean_text, number, print_summary
from contract.attempt_state import AttemptState
from contract.errors import UsageError
from contract.trial_result import EnergyMethod

REPOSITORY = Path(__file__).resolve().parents[2]


def text_of(folder: Path, width: int = 100, **options: Any) -> str:
    out = StringIO()
    print_summary(summarise(load_runs(folder), **options), Console(file=out, width=width, highlight=False))
    return out.getvalue()


def flat(text: str) -> str:
    """Without the line breaks that the width made."""
    return " ".join(text.split())


def test_the_quickstart_table(quickstart: Any) -> None:
    text = text_of(quickstart.folder)
    assert text.startswith("quickstart: 12 of 12 runs\n")
    head = text.split("─")[0]
    assert head.count("estimate") == 2  # over the joules and over the joules per token
    (row,) = [line for line in text.splitlines() if line.startswith("COPA   4")]
    cells = row.split()
    assert cells[:3] == ["COPA", "4", "3/3"]
    assert cells[3:6] == ["150.3", "±", "7.5"]  # 0.7 x 1.4 x (150.25, 153.35, 156.45): 150.3, t 4.303 x sd 3.04 / 1.73
    assert cells[6:9] == ["0.4848", "3.717", "83.42"]
    assert cells[9:] == ["44", "%", "[23,", "67]"]
    assert text.count("not distinguishable from chance") == 4
    for said in (
        "12 of 12 runs are counted; 3 runs planned per treatment.",
        "estimate: not measured: to try things out",
        "The meter says: CPU time x 15 W per busy core.",
        "Net energy is not given: no idle baseline was measured",
        "not independent: accuracy interval and test use one repetition's items.",
        "Items: sample of 16 items that comes with JouleBed, not SuperGLUE's own.",
    ):
        assert said in flat(text)


@pytest.mark.parametrize("width", [30, 60, 80, 100, 200])
def test_nothing_is_cut_at_any_width(quickstart: Any, width: int) -> None:
    text = text_of(quickstart.folder, width)
    assert "…" not in text
    # A folder of results has no longer word than 19 letters here, so every line can keep the width.
    assert max(len(line) for line in text.splitlines()) <= width
    for word in ("BoolQ", "COPA", "distinguishable", "estimate", "3/3", "150.3", "0.4848"):
        assert word in text


def test_long_levels_and_markup_in_names_survive(write_experiment: Any) -> None:
    table = write_experiment("long", {"model": ["[bold]a-model-with-a-rather-long-name[/bold]"], "t[x]": ["y" * 90]}, 1)
    table.succeed_all()
    for width in (80, 100):
        text = text_of(table.folder, width)
        assert "[bold]a-model-with-a-rather-long-name[/bold]" in text
        assert "…" not in text


def test_json_has_full_precision_and_the_same_notes(quickstart: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["summary", str(quickstart.folder), "--json"]) == 0
    out = json.loads(capsys.readouterr().out)
    assert (out["experiment"], out["n_planned"], out["n_counted"]) == ("quickstart", 12, 12)
    first = out["treatments"][0]
    assert first["treatment"] == {"task": "BoolQ", "concurrency": 1}
    expected = mean_interval([150.25, 153.35, 156.45])
    assert first["energy_j"]["mean"] == pytest.approx(expected.mean, rel=1e-12)
    assert first["energy_j"]["half_width"] == pytest.approx(expected.half_width, rel=1e-12)
    assert first["is_estimate"] is True
    assert first["energy_net_j"]["mean"] is None
    assert set(MEANS) <= set(first)
    assert (first["accuracy"]["n_items"], first["accuracy"]["n_correct"]) == (16, 9)
    assert first["accuracy"]["verdict"] == "not distinguishable from chance"
    assert any("not measured" in note for note in out["notes"])
    assert out["facts"] == {"idle_temp_c": 38.5}


def test_suspects_stay_out_of_the_means_unless_asked_for(write_experiment: Any, result_of: Any) -> None:
    table = write_experiment("doubt", {"task": ["a", "b"]}, repetitions=2)
    for run_id in ("run_0_repetition_0", "run_1_repetition_0", "run_1_repetition_1"):
        table.succeed(run_id, energy_j=100.0)
    doubted = result_of(
        "run_0_repetition_1", energy_j=300.0, state=AttemptState.SUSPECT, reasons=[("gaps", "12 gaps in gpu:0.")]
    )
    table.attempt("run_0_repetition_1", AttemptState.SUSPECT, result=doubted, run_state="SUSPECT")
    without, with_it = text_of(table.folder), text_of(table.folder, include_suspect=True)
    assert "Not counted, 1 run (run_0_repetition_1): suspect: gaps: 12 gaps in gpu:0." in flat(without)
    assert "--include-suspect" in without
    assert "1 of 2 treatments" in flat(without)
    assert "Doubted, 1 run (run_0_repetition_1): suspect: gaps: 12 gaps in gpu:0." in flat(with_it)
    assert "SUSPECT runs in the means, as asked by --include-suspect: 1." in flat(with_it)
    means = [
        summarise(load_runs(table.folder), include_suspect=include).treatments[0].means["energy_j"].mean
        for include in (False, True)
    ]
    assert means == [100.0, 200.0]


def test_one_repetition_has_no_interval(write_experiment: Any) -> None:
    table = write_experiment("once", {"task": ["a"]}, repetitions=1)
    table.succeed_all()
    text = text_of(table.folder)
    assert "±" not in text.split("1 of 1 runs are counted")[0]
    assert "With one counted run there is no interval (1 of 1 treatments)" in flat(text)
    assert to_json(summarise(load_runs(table.folder)))["treatments"][0]["energy_j"]["half_width"] is None


def test_methods_that_differ_are_in_the_cells(write_experiment: Any) -> None:
    table = write_experiment("methods", {"meter": ["rapl", "estimate"]})
    table.succeed_all(
        lambda treatment, r: {
            "energy_j": 100.0 + r,
            "energy_net_j": 80.0,
            "source": treatment["meter"],
            "method": EnergyMethod.COUNTER if treatment["meter"] == "rapl" else EnergyMethod.ESTIMATE,
        }
    )
    text = text_of(table.folder)
    assert "estimate" not in text.split("─")[0]
    body = text.split("6 of 6 runs are counted")[0]
    assert "counter by rapl" in body
    assert body.split("─")[-1].count("estimate") == 3  # the level, the joules, the joules per token
    assert text_of(table.folder, 20).split("6 of 6 runs are")[0].count("estimate") == 3
    assert "Energy net of the idle baseline is in --json" in flat(text)
    merged = text_of(table.folder, by=[])
    assert merged == text  # no --by is all factors


def test_early_exit_shows_layers_and_entropy_and_only_then(
    write_experiment: Any, capsys: pytest.CaptureFixture[str], quickstart: Any
) -> None:
    table = write_experiment("exits", {"exit": ["16", "9", "plain"]}, repetitions=2)
    early = {"16": {"exit_layer": 16.0, "entropy_nats": 2.125}, "9": {"exit_layer": 9.0, "entropy_nats": 0.5}}
    table.succeed_all(lambda treatment, repetition: early.get(treatment["exit"], {}))
    for width in (100, 30):
        text = text_of(table.folder, width)
        assert "2.125" in text and "entropy" in text and "layers" in text
        assert "entropy" not in text_of(quickstart.folder, width)
    rows = load_runs(table.folder).runs.sort("run_id")
    assert set(rows.filter(rows["exit"] == "9")["mean_entropy_nats"]) == {0.5}
    assert rows.filter(rows["exit"] == "plain")["mean_exit_layer"].is_null().all()
    assert main(["runs", str(table.folder), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert {row["mean_exit_layer"] for row in shown["rows"]} == {16.0, 9.0, None}
    assert [each["unit"] for each in shown["columns"] if each["name"] == "mean_entropy_nats"] == ["nats"]


def test_by_averages_over_the_other_factors_and_says_so(quickstart: Any) -> None:
    summary = summarise(load_runs(quickstart.folder), by=["concurrency"])
    assert [row.treatment for row in summary.treatments] == [{"concurrency": 1}, {"concurrency": 4}]
    assert [row.n_counted for row in summary.treatments] == [6, 6]
    accuracy = summary.treatments[0].accuracy
    assert accuracy is not None
    assert (accuracy.n_items, accuracy.n_correct) == (32, 16)  # one repetition of each of two tasks
    # The two concurrencies gave the same answers to the same items: not twice the evidence.
    merged = summarise(load_runs(quickstart.folder), by=["task"]).treatments[0].accuracy
    assert merged is not None
    assert (merged.n_items, merged.n_correct, merged.repetitions_identical) == (16, 9, True)
    assert any(note.startswith("Rows average over task") for note in summary.notes)


def test_different_machines_and_models_are_told(write_experiment: Any) -> None:
    table = write_experiment("machines", {"task": ["a"]}, repetitions=2)
    table.succeed_all(lambda _, r: {"hardware": "ab"[r]})
    assert "machines with different hardware" in flat(text_of(table.folder))


def test_equal_reasons_share_a_line(write_experiment: Any) -> None:
    table = write_experiment("begun", {"task": [f"t{i}" for i in range(10)]}, repetitions=1)
    table.succeed("run_0_repetition_0")
    assert "Not counted, 9 runs (" in text_of(table.folder)
    assert "and 5 more): not run yet." in flat(text_of(table.folder))


def test_no_finished_run_is_a_clear_error(write_experiment: Any) -> None:
    table = write_experiment("planned", {"task": ["a", "b"]}, repetitions=1)
    error = {"code": "model_not_found", "message": "No model there. Download it."}
    table.attempt("run_1_repetition_0", AttemptState.FAILED, error=error, run_state="FAILED")
    with pytest.raises(UsageError) as caught:
        summarise(load_runs(table.folder))
    said = caught.value.message
    assert "No run of planned has a result yet" in said
    assert "1 TODO" in said
    assert "1 FAILED" in said
    assert "model_not_found: No model there. Download it." in said
    assert "orchestrator run" in said


def test_bad_input_is_one_line_and_exit_code_2(quickstart: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["summary", "/nowhere/at/all"]) == 2
    assert main(["summary", str(quickstart.folder), "--by", "colour"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("Error: There is no folder /nowhere/at/all.")
    assert lines[1] == "Error: quickstart has no factor 'colour'. Its factors: ['task', 'concurrency']."
    assert main(["summary"]) == 2
    assert main(["--help"]) == 0


def test_the_command_as_a_person_types_it(quickstart: Any) -> None:
    command = [sys.executable, "-m", "analysis", "summary", str(quickstart.folder)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "not distinguishable" in done.stdout
    assert "…" not in done.stdout


def test_a_summary_loads_no_plotting_and_no_statistics_package(quickstart: Any) -> None:
    code = (
        "import sys; from analysis.cli import main; main(['summary', sys.argv[1]]); "
        "heavy = {'matplotlib', 'scipy.stats', 'orchestrator', 'testbed', 'torch'} & set(sys.modules); "
        "sys.exit(', '.join(heavy) or 0)"
    )
    command = [sys.executable, "-c", code, str(quickstart.folder)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (0.0, "0"), (0.012344, "0.01234"), (5.5566, "5.557"), (12345.6, "12,346"), (-3.0, "-3.000")],
)
def test_numbers_have_four_digits_and_no_exponent(value: float | None, text: str) -> None:
    assert number(value) == text


def test_a_mean_is_given_to_its_uncertainty() -> None:
    assert mean_text(mean_interval([])) == "–"
    assert mean_text(mean_interval([12.3456])) == "12.35"
    assert mean_text(mean_interval([5.0, 5.0])) == "5.000"
    assert mean_text(mean_interval([26000.0, 26400.0, 25600.0])) == "26,000 ± 994"
    assert mean_text(mean_interval([1e6, 1e6 + 1e-7])) == "1,000,000 ± 0"
