"""Serving studies from the plan to the table, through both nodes as processes over HTTP."""

import json
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

from contract.trial_result import TrialResult
from tests.end_to_end.nodes import ROOT, running_testbed, start_orchestrator

STUDY = ROOT / "runnerconfig" / "serving_policies.py"

SIMULATED = """
from contract.serving import PolicySpec
from serving_policies import RunnerConfig as Base


class RunnerConfig(Base):
    name = "serving"
    duration_s = 600.0
    arrival_seeds = (0, 1)
    policies = {
        "static_high": PolicySpec(name="static_high"),
        "deadline_energy": PolicySpec(name="deadline_energy"),
    }
"""

FAKE = """
from contract.serving import PolicySpec, ServingSpec
from contract.trial_spec import EngineSpec, MeterSpec, ModelSpec, WorkloadSpec
from orchestrator.config import Cooldown, Factor, RunTableModel, Trial
from orchestrator.config import RunnerConfig as Base


class RunnerConfig(Base):
    name = "serving"
    seed = 1
    cooldown = Cooldown(floor_s=0.0, max_wait_s=0.0)

    def create_run_table_model(self):
        return RunTableModel(factors=[Factor("policy", ["capped 4"]), Factor("continuous", [False, True])])

    def trial(self, treatment):
        arrivals = {"kind": "poisson", "rate_per_s": 20.0}
        lengths = {"n_input_tokens": 8, "n_output_tokens": 10}
        return Trial(
            model=ModelSpec(name="m", source="fake:m"),
            engine=EngineSpec(name="fake", options={"tokens_per_s": 100.0}),
            workload=WorkloadSpec(
                name="open_loop",
                concurrency=4,
                options={"duration_s": 2.0, "arrivals": arrivals, "arrival_seed": 3, **lengths},
            ),
            # Long, so that a busy machine makes no gaps, which would doubt the runs.
            meter=MeterSpec(name="fake", period_s=1.0),
            serving=ServingSpec(
                policy=PolicySpec(name="capped_batch", options={"max_batch": 4}),
                slo_s=1.0,
                ttft_slo_s=0.5,
                continuous=treatment["continuous"],
            ),
        )
"""


def campaign(tmp_path: Path, text: str) -> tuple[list[TrialResult], Path]:
    (tmp_path / "serving_policies.py").write_text(STUDY.read_text())
    config = tmp_path / "config.py"
    config.write_text(text)
    results = tmp_path / "results"
    with running_testbed(tmp_path / "box") as testbed:
        code = start_orchestrator(config, testbed.url, results).wait(timeout=300)
    assert code == 0, (results / "orchestrator.log").read_text() + (tmp_path / "box" / "testbed.log").read_text()
    with sqlite3.connect(results / "serving" / "run_table.sqlite") as connection:
        rows = connection.execute("SELECT result FROM attempt WHERE accepted ORDER BY run_id").fetchall()
    return [TrialResult.model_validate_json(text) for (text,) in rows], results / "serving"


def analysed(folder: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "analysis", "serving", str(folder), *arguments]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=120).stdout


def test_a_simulated_study_ends_in_its_table(tmp_path: Path) -> None:
    trials, folder = campaign(tmp_path, SIMULATED)
    assert len(trials) == 4
    for trial in trials:
        assert trial.serving is not None and trial.serving.is_simulated and trial.reasons == []
        # Ten minutes of a server, and nobody waited for them.
        assert trial.duration_s is not None and trial.duration_s >= 600.0
        assert (trial.finished_at - trial.started_at).total_seconds() < 300
        assert [setting.is_restored for setting in trial.settings] == [True]
    (case,) = json.loads(analysed(folder, "--json"))
    figures: dict[str, Any] = {row["policy"]: row["figures"] for row in case["policies"]}
    saved = figures["deadline_energy"]["service_energy_per_request_j"]["mean"]
    assert saved < figures["static_high"]["service_energy_per_request_j"]["mean"]
    assert "SIMULATED" in analysed(folder, "--out", str(tmp_path / "report"))
    assert (tmp_path / "report" / "case_0.png").exists()


def test_an_engine_in_real_time_serves_batch_by_batch_and_continuously(tmp_path: Path) -> None:
    trials, folder = campaign(tmp_path, FAKE)
    assert {trial.serving.continuous for trial in trials if trial.serving} == {True, False}
    for trial in trials:
        report = trial.serving
        assert report is not None and report.n_served == report.n_arrived > 10 and not report.is_simulated
        assert report.latency.mean_s is not None and report.ttft.mean_s is not None
        assert report.latency.mean_s > report.ttft.mean_s > 0
        assert report.service_energy_per_request_j is not None and report.energy_per_request_j is not None
        assert report.service_energy_per_request_j <= report.energy_per_request_j
        records = [
            json.loads(line)
            for line in (folder / "runs" / trial.run_id / trial.attempt_id / "requests.jsonl").read_text().splitlines()
        ]
        assert all(record["submitted_s"] >= record["arrival_s"] for record in records)
        assert all((record["batch"] is None) == report.continuous for record in records)
