"""`--devices 0 1`: on the command line, in a configuration, in the plan."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from contract.errors import ConfigError, UsageError
from contract.trial_spec import DeviceSpec, EngineSpec, ModelSpec, WorkloadSpec
from orchestrator.cli import app
from orchestrator.config import Factor, RunnerConfig, RunTableModel, Treatment, Trial
from orchestrator.design import expand
from orchestrator.device_option import device_specs, spread

STUDY = Path(__file__).parents[2] / "runnerconfig" / "edge_power_profile.py"


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("run x.py --devices 0 1 --local", "run x.py --devices 0 --devices 1 --local"),
        ("run --devices gpu:0 cores:0-1,3 x.py", "run --devices gpu:0 --devices cores:0-1,3 x.py"),
        ("run --devices 0 --devices 1 x.py", "run --devices 0 --devices 1 x.py"),
        ("run --devices 0,1 x.py", "run --devices 0,1 x.py"),
        ("run x.py --limit 3", "run x.py --limit 3"),
        ("run x.py --devices", "run x.py --devices"),
    ],
)
def test_a_list_becomes_an_option_for_each(given: str, taken: str) -> None:
    assert spread(given.split()) == taken.split()


def test_a_bare_number_is_a_gpu_and_cores_are_named() -> None:
    own = DeviceSpec(name="gpu:7", engine=EngineSpec(name="vllm"))
    found = device_specs([0, "1", "2,3", "gpu:4", "cores:0,2", own])
    assert [device.name for device in found] == ["gpu:0", "gpu:1", "gpu:2", "gpu:3", "gpu:4", "cores:0,2", "gpu:7"]
    assert found[-1] is own


@pytest.mark.parametrize("name", ["cuda:0", "0-1", "cores:1-0", "", "-1", "gpu:0,1"])
def test_what_names_no_device_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="names no device"):
        device_specs([name])


class Config(RunnerConfig):
    name = "e"

    def create_run_table_model(self) -> RunTableModel:
        return RunTableModel(factors=[Factor("a", [1, 2])], repetitions=1)

    def trial(self, treatment: Treatment) -> Trial:
        return Trial(
            model=ModelSpec(name="m", source="fake:m"),
            engine=EngineSpec(name="fake"),
            workload=WorkloadSpec(name="fake"),
        )


class Factored(Config):
    def trial(self, treatment: Treatment) -> Trial:
        names = [f"gpu:{index}" for index in range(int(treatment["a"]))]
        return Trial(**{**vars(super().trial(treatment)), "devices": [DeviceSpec(name=name) for name in names]})


def test_devices_of_the_configuration_are_in_every_trial_and_in_the_plans_identity() -> None:
    plain, config = Config(), Config()
    config.devices = (0, "cores:0")
    plan = expand(config)
    assert all([device.name for device in run.spec.devices] == ["gpu:0", "cores:0"] for run in plan.runs)
    assert plan.sha256 != expand(plain).sha256
    assert all(run.spec.devices == [] for run in expand(plain).runs)


def test_devices_may_be_a_factor_and_then_nothing_overrides_them() -> None:
    config = Factored()
    assert sorted(len(run.spec.devices) for run in expand(config).runs) == [1, 2]
    config.devices = (0,)
    with pytest.raises(ConfigError, match="names devices itself"):
        expand(config)


def test_the_same_device_twice_is_refused_in_words() -> None:
    config = Config()
    config.devices = ("cores:0-1", "cores:1")
    with pytest.raises(ConfigError, match="core 1 twice"):
        expand(config)


def test_the_command_plans_with_them() -> None:
    found = CliRunner().invoke(app, spread(["plan", str(STUDY), "--devices", "0", "1", "--json"]))
    assert found.exit_code == 0 and '"gpu:0, gpu:1"' in found.stdout
