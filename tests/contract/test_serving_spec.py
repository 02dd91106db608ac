"""What a trial with arrivals asks for: a hash of its own, and no path."""

from typing import Any

import pytest
from pydantic import ValidationError

from contract.serving import PolicySpec, ServingSpec
from contract.trial_spec import ActuatorSpec, DeviceSpec, EngineSpec, ModelSpec, TrialSpec, WorkloadSpec

CLOCK = ActuatorSpec(name="nvml_clock", domain="gpu:0", setting={"clock_mhz": 1410.0})


def spec(**changes: Any) -> TrialSpec:
    fields: dict[str, Any] = {
        "experiment": "e",
        "run_id": "run_0_repetition_0",
        "repetition": 0,
        "treatment": {},
        "seed": 0,
        "model": ModelSpec(name="m", source="fake:m"),
        "engine": EngineSpec(name="fake"),
        "workload": WorkloadSpec(name="open_loop"),
    }
    return TrialSpec(**fields | changes)


def serving(**changes: Any) -> ServingSpec:
    return ServingSpec(**{"policy": PolicySpec(name="deadline"), "slo_s": 8.0, **changes})


def test_serving_is_part_of_what_was_asked_for() -> None:
    specs = [spec(), spec(serving=serving()), spec(serving=serving(slo_s=9.0)), spec(serving=serving(continuous=True))]
    assert len({each.sha256() for each in specs}) == 4
    # The engine is loaded the same way whoever decides: a warm one goes on.
    assert len({each.engine_key() for each in specs}) == 1


def test_the_policys_clock_is_one_that_the_trial_holds() -> None:
    assert spec(serving=serving(clock_domain="gpu:0"), actuators=[CLOCK])
    with pytest.raises(ValidationError, match="0 entries"):
        spec(serving=serving(clock_domain="gpu:0"))
    limit = ActuatorSpec(name="nvml_power_limit", domain="gpu:0", setting={"power_limit_w": 300.0})
    with pytest.raises(ValidationError, match="0 entries"):
        spec(serving=serving(clock_domain="gpu:0"), actuators=[limit])
    with pytest.raises(ValidationError, match="leave out devices"):
        spec(serving=serving(), devices=[DeviceSpec(name="gpu:0")])


@pytest.mark.parametrize("name", ["../policy", "/etc/passwd", ".hidden", "a/b", ""])
def test_a_file_is_named_and_never_a_path(name: str) -> None:
    for field in ("file", "table"):
        with pytest.raises(ValidationError):
            PolicySpec.model_validate({"name": "learned", field: name})


@pytest.mark.parametrize("objective", [0.0, -1.0, float("nan"), float("inf")])
def test_an_objective_is_a_time_above_zero(objective: float) -> None:
    with pytest.raises(ValidationError):
        serving(slo_s=objective)
