"""The study behind device models: its plan by machine, and the whole way from a simulated device to its model."""

import subprocess
import sys
from pathlib import Path

import pytest

from contract.errors import ConfigError
from control.cli import main as control
from control.device_model import read_device_model
from orchestrator.config_loader import load_config
from orchestrator.design import Plan, expand

STUDY = Path(__file__).parents[2] / "runnerconfig" / "dvfs_profile.py"
LENGTHS = {(50, 50), (250, 150), (500, 300)}
DERIVED = """
from dvfs_profile import RunnerConfig as Base
from orchestrator.config import Cooldown


class RunnerConfig(Base):
    name = "simulated_profile"
    arm = "simulated"
    clocks_mhz = (705, 1410)
    batches = (1, 4)
    lengths = ((50, 20),)
    repetitions = 1
    cooldown = Cooldown(floor_s=0.0, max_wait_s=0.0)
    table = {
        "source": "made up for a test",
        "clock_mhz": [705.0, 1410.0],
        "batch_sizes": [1, 2, 3, 4],
        "latency_s": [[4.5, 5.0, 5.5, 6.0], [2.25, 2.5, 2.75, 3.0]],
        "power_w": [[100.0, 110.0, 120.0, 130.0], [200.0, 220.0, 240.0, 260.0]],
        "n_input_tokens": 50,
        "n_output_tokens": 20,
    }
"""


def plan_of(monkeypatch: pytest.MonkeyPatch, **environment: str) -> Plan:
    for name in ("JOULEBED_PROFILE_ARM", "JOULEBED_GPU_CLOCKS_MHZ"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return expand(load_config(STUDY)[0], "")


def test_on_a_gpu_it_is_the_studys_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = plan_of(monkeypatch, JOULEBED_N_GPUS="1").runs
    assert len(runs) == 15 * 7 * 3 * 3
    for run in runs:
        spec = run.spec
        treatment = spec.treatment
        assert (treatment["input_len"], treatment["output_len"]) in LENGTHS
        assert spec.workload.concurrency == treatment["batch"]
        # Whole batches, of exact lengths.
        assert spec.workload.options["n_items"] == 5 * spec.workload.concurrency
        assert spec.workload.options["n_input_tokens"] == treatment["input_len"]
        assert spec.workload.options["n_output_tokens"] == spec.sampling.max_tokens == treatment["output_len"]
        assert spec.sampling.ignore_eos and spec.baseline_s > 0 and spec.steady is not None
        (actuator,) = spec.actuators
        assert actuator.name == "nvml_clock" and actuator.setting == {"clock_mhz": treatment["clock_mhz"]}
        assert spec.meter.expected_clock_mhz == {"gpu:0": treatment["clock_mhz"]}
    assert len({run.spec.engine_key() for run in runs}) == 1, "one warm engine serves all"


def test_clocks_that_the_device_lacks_are_excluded_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of(monkeypatch, JOULEBED_N_GPUS="1", JOULEBED_GPU_CLOCKS_MHZ="705,1005,1410,1980")
    assert {run.spec.treatment["clock_mhz"] for run in plan.runs} == {705, 1005, 1410}
    assert "no such clock" in str(plan.design["unavailable"])


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"JOULEBED_N_GPUS": "0"}, "no GPU .*JOULEBED_PROFILE_ARM=cpu"),
        ({"JOULEBED_N_GPUS": "1", "JOULEBED_GPU_CLOCKS_MHZ": "none"}, "may not be set"),
        ({"JOULEBED_N_GPUS": "1", "JOULEBED_GPU_CLOCKS_MHZ": "fast"}, "whole MHz"),
        ({"JOULEBED_PROFILE_ARM": "tpu"}, "gpu, cpu, simulated"),
    ],
)
def test_what_cannot_be_planned_says_why(
    environment: dict[str, str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=told):
        plan_of(monkeypatch, **environment)


def test_on_processors_no_clock_is_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = plan_of(monkeypatch, JOULEBED_PROFILE_ARM="cpu").runs
    assert len(runs) == 4 * 2 * 2
    assert all(not run.spec.actuators and "clock_mhz" not in run.spec.treatment for run in runs)
    assert {run.spec.engine.name for run in runs} == {"llama_cpp"}


def test_from_a_simulated_device_to_its_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Plan, trials, run table, profile, model: what comes out is the table that went in."""
    (tmp_path / "dvfs_profile.py").write_text(STUDY.read_text())
    (tmp_path / "study.py").write_text(DERIVED)
    results = tmp_path / "results"
    command = [sys.executable, "-m", "orchestrator", "run", str(tmp_path / "study.py"), "--local"]
    done = subprocess.run([*command, "--results", str(results)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    profile, model = tmp_path / "p.csv", tmp_path / "m.json"
    assert control(["profile", str(results / "simulated_profile"), "-o", str(profile)]) == 0
    assert "estimate" in capsys.readouterr().out
    assert control(["fit", str(profile), "-o", str(model)]) == 0
    found = read_device_model(model).of_lengths(50, 20)
    table = found.service_table("test")
    assert table.clock_mhz.tolist() == [705.0, 1410.0] and table.max_batch == 4
    for batch, column in ((1, 0), (4, 3)):
        assert found.predict("latency_s", 705, batch) == pytest.approx([4.5, 0, 0, 6.0][column], rel=1e-6)
        assert found.predict("power_w", 1410, batch) == pytest.approx([200.0, 0, 0, 260.0][column], rel=1e-6)
