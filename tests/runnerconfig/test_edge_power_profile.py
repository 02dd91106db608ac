"""The edge study: its plan, and the memory profiles in it."""

from pathlib import Path

from orchestrator.config_loader import load_config
from orchestrator.design import expand

STUDY = Path(__file__).parents[2] / "runnerconfig" / "edge_power_profile.py"


def test_the_plan_has_every_length_and_only_the_length_differs() -> None:
    runs = expand(load_config(STUDY)[0], "").runs
    assert len(runs) == 14 * 3
    lengths = {run.spec.workload.options["n_output_tokens"] for run in runs}
    assert lengths == set(range(50, 701, 50)) == {run.spec.treatment["w_star"] for run in runs}
    others = {run.spec.model_dump_json(include={"model", "engine", "sampling", "meter", "steady"}) for run in runs}
    assert len(others) == 1
    assert all(run.spec.steady is not None and run.spec.baseline_s > 0 for run in runs)


def test_memory_profiles_are_a_factor_of_a_derived_study(tmp_path: Path) -> None:
    (tmp_path / "edge_power_profile.py").write_text(STUDY.read_text())
    derived = tmp_path / "derived.py"
    derived.write_text(
        "from edge_power_profile import RunnerConfig as Base\n\n\n"
        "class RunnerConfig(Base):\n    lengths = (50,)\n    memory_gib = (8.0, 16.0)\n"
    )
    runs = expand(load_config(derived)[0], "").runs
    assert {run.spec.engine.memory_limit_gib for run in runs} == {8.0, 16.0}
    assert all(run.spec.engine.memory_limit_gib == run.spec.treatment["memory_gib"] for run in runs)


def test_devices_of_a_derived_study_all_do_every_length(tmp_path: Path) -> None:
    (tmp_path / "edge_power_profile.py").write_text(STUDY.read_text())
    derived = tmp_path / "derived.py"
    derived.write_text(
        "from edge_power_profile import RunnerConfig as Base\n\n\n"
        "class RunnerConfig(Base):\n    lengths = (50,)\n    devices = (0, 'cores:0-1')\n"
    )
    runs = expand(load_config(derived)[0], "").runs
    assert all([device.name for device in run.spec.devices] == ["gpu:0", "cores:0-1"] for run in runs)
