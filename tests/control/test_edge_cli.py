"""`python -m control edge`, as a user types it."""

import json
from pathlib import Path

import pytest

from control.cli import main
from testbed.simulation.orin_thermal import HEATING
from tests.testbed.orin_logs import fan_off_rows, fan_on_rows, write_log


@pytest.fixture
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    # The stretches in which the published log heats are places in that log.
    assert HEATING
    monkeypatch.setattr("testbed.simulation.orin_thermal.fit_thermal.__defaults__", (((0, 120),), (600.0, 1200.0)))
    return [
        str(write_log(tmp_path / "on.csv", fan_on_rows())),
        str(write_log(tmp_path / "off.csv", fan_off_rows())),
    ]


def test_train_goes_on_and_evaluate_stops_the_fan(
    logs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "policies"
    arguments = ["edge", "train", *logs, "-o", str(out), "--log-updates", "1", "--json"]
    assert main([*arguments, "--updates", "2"]) == 0
    (first,) = json.loads(capsys.readouterr().out)["learners"]
    assert main([*arguments, "--updates", "3"]) == 0
    (second,) = json.loads(capsys.readouterr().out)["learners"]
    assert (first["n_updates"], second["n_updates"]) == (3, 4)
    assert (out / "training.png").exists()
    result = tmp_path / "evaluation"
    evaluate = ["edge", "evaluate", *logs, second["file"], "-o", str(result), "--batches", "12", "--fan-off-at", "4"]
    assert main(evaluate) == 0
    assert "Simulated" in capsys.readouterr().out
    rows = json.loads((result / "evaluation.json").read_text())
    assert {row["chooser"] for row in rows} == {"grpo", "best_fixed_fan_on", "best_fixed_within_limit", "governor"}
    assert all(row["after"]["n_batches"] == 8 for row in rows)
    assert (result / "grpo-0.png").exists()


def test_what_cannot_be_done_ends_with_2_and_the_next_step(
    logs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["edge", "train", "nowhere.csv", logs[1], "-o", str(tmp_path)]) == 2
    assert "Give the path of a grid log" in capsys.readouterr().err
    (tmp_path / "x.safetensors").write_text("no checkpoint")
    assert main(["edge", "evaluate", *logs, str(tmp_path / "x.safetensors"), "-o", str(tmp_path)]) == 2
    assert "a checkpoint that GRPO wrote" in capsys.readouterr().err
