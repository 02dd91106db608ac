"""Edge studies from the plan to the table, through both nodes as processes over HTTP."""

import json
import sqlite3
import subprocess
import sys
from pathlib import Path

from contract.trial_result import TrialResult
from tests.end_to_end.nodes import ROOT, running_testbed, start_orchestrator

CONFIG = """
from edge_grpo import RunnerConfig as Base


class RunnerConfig(Base):
    name = "edge"
    seeds = (0,)
    n_evaluations = 20
    n_batches = 20
"""


def test_a_simulated_study_ends_in_its_table(tmp_path: Path) -> None:
    for name in ("edge_grid.py", "edge_grpo.py"):
        (tmp_path / name).write_text((ROOT / "runnerconfig" / name).read_text())
    config, results = tmp_path / "config.py", tmp_path / "results"
    config.write_text(CONFIG)
    with running_testbed(tmp_path / "box") as testbed:
        code = start_orchestrator(config, testbed.url, results).wait(timeout=500)
    assert code == 0, (results / "orchestrator.log").read_text() + (tmp_path / "box" / "testbed.log").read_text()
    with sqlite3.connect(results / "edge" / "run_table.sqlite") as connection:
        rows = connection.execute("SELECT result FROM attempt WHERE accepted").fetchall()
    trials = [TrialResult.model_validate_json(text) for (text,) in rows]
    assert len(trials) == 6 * 2
    for trial in trials:
        report = trial.edge
        assert report is not None and report.is_simulated and trial.reasons == []
        assert all(setting.is_restored for setting in trial.settings)
        assert report.n_evaluations == (20 if report.search else 0)
        assert report.overhead.energy_j is not None
    command = [sys.executable, "-m", "analysis", "edge-control", str(results / "edge")]
    run = subprocess.run([*command, "--json"], cwd=ROOT, check=True, capture_output=True, text=True, timeout=120)
    told = json.loads(run.stdout)
    assert len(told) == 12 and all(row["is_simulated"] and row["n_runs"] == 1 for row in told)
    report_dir = tmp_path / "report"
    run = subprocess.run([*command, "--out", str(report_dir)], cwd=ROOT, check=True, capture_output=True, timeout=240)
    assert b"SIMULATED" in run.stdout
    assert {path.name for path in report_dir.glob("*.png")} == {"overview.png", "runs.png"}
    table = (results / "edge" / "run_table.csv").read_text().splitlines()
    assert "choosing_s,choosing_energy_j" in table[0] and len(table) == 13
