"""A simulated server from the spec to the result, through the child's own entry and the testbed's collect."""

import hashlib
import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contract.attempt_state import AttemptState
from contract.node_info import CheckRequest
from contract.serving import PolicySpec, ServingSpec, TableSpec
from contract.trial_result import EnergyMethod, TrialResult
from contract.trial_spec import ActuatorSpec, EngineSpec, MeterSpec, ModelSpec, TrialSpec, WorkloadSpec
from control.reference_simulation import simulate
from control.serving_case import ServingCase
from testbed import attempt_folder
from testbed.attempt_folder import ChildRecord
from testbed.clock import SystemClock
from testbed.collect import collect
from testbed.data_folder import SERVICE_TABLES
from testbed.device_settings import SIMULATED_DEVICES
from testbed.model_runner import ModelRunner, check
from testbed.policies.actions import ActionSet
from testbed.policies.features import N_FEATURES, FeatureSpec
from testbed.policies.learned_policy import LearnedPolicy, PolicyNetwork
from testbed.policies.registry import POLICIES
from testbed.reclaim import MARK
from testbed.simulation.arrivals import ArrivalSpec
from testbed.table_source import service_table
from tests.testbed.test_collect import NODE

CLOCKS = (705.0, 1050.0, 1410.0)
N = 16
SIZES = np.arange(1, N + 1)
TABLE = TableSpec(
    source="made up for a test",
    clock_mhz=list(CLOCKS),
    batch_sizes=SIZES.tolist(),
    latency_s=[(2.0 * (1410 / clock) ** 0.7 * (1 + 0.03 * SIZES)).tolist() for clock in CLOCKS],
    power_w=[((60 + 0.1 * clock) * (1 + 0.01 * SIZES)).tolist() for clock in CLOCKS],
    n_input_tokens=500,
    n_output_tokens=300,
)
AT = datetime(2026, 11, 21, tzinfo=UTC)
DURATION_S = 900.0
IDLE_W = 55.0


def spec(policy: PolicySpec | str = "deadline", **changes: Any) -> TrialSpec:
    given = PolicySpec(name=policy) if isinstance(policy, str) else policy
    fields: dict[str, Any] = {
        "experiment": "serving",
        "run_id": "run_0_repetition_0",
        "repetition": 0,
        "treatment": {"policy": given.name},
        "seed": 1,
        "model": ModelSpec(name="table", source="fake:table"),
        "engine": EngineSpec(name="simulated", options={"table": TABLE.model_dump(), "idle_power_w": IDLE_W}),
        "workload": WorkloadSpec(
            name="open_loop",
            concurrency=N,
            options={
                "duration_s": DURATION_S,
                "arrivals": {"kind": "poisson", "rate_per_s": 0.8},
                "arrival_seed": 5,
                "n_input_tokens": 500,
                "n_output_tokens": 300,
                "prompt_words": 8,
            },
        ),
        "meter": MeterSpec(name="simulated"),
        "actuators": [ActuatorSpec(name="simulated", domain="gpu:0", setting={"clock_mhz": 1410.0})],
        "warmup_requests": 1,
        "baseline_s": 10.0,
        "serving": ServingSpec(policy=given, slo_s=8.0, clock_domain="gpu:0"),
    }
    return TrialSpec.model_validate(fields | changes)


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[TrialSpec], tuple[TrialResult, ChildRecord, Path]]:
    monkeypatch.setenv(MARK, str(tmp_path / "data"))

    def run(wanted: TrialSpec) -> tuple[TrialResult, ChildRecord, Path]:
        folder = tmp_path / "attempt"
        folder.mkdir()
        (folder / attempt_folder.SPEC).write_text(wanted.model_dump_json())
        record = ModelRunner(SystemClock()).run(folder / attempt_folder.SPEC, folder, [wanted.meter.name])
        result = collect(folder, attempt_id="a", spec=wanted, node=NODE, started_at=AT, finished_at=AT)
        return result, record, folder

    return run


Run = Callable[[TrialSpec], tuple[TrialResult, ChildRecord, Path]]


@pytest.mark.parametrize("policy", ["deadline", "deadline_energy", "static_high", "reactive"])
def test_a_policy_does_the_same_on_the_testbed_as_in_the_reference(run: Run, policy: str) -> None:
    wanted = spec(policy)
    result, record, _ = run(wanted)
    assert result.error is None and result.state is AttemptState.SUCCEEDED, (result.error, result.reasons)
    report = result.serving
    assert report is not None and record.serving is not None

    table = service_table(TABLE, os.environ)
    case = ServingCase(
        table=table, slo_s=8.0, arrivals=ArrivalSpec(rate_per_s=0.8), duration_s=DURATION_S, idle_power_w=IDLE_W
    )
    expected = simulate(case, POLICIES.create(policy, table=table, slo_s=8.0), 5, keep_records=True)
    assert expected.decisions is not None
    batches = [(each.n_served, each.clock_mhz) for each in expected.decisions if each.n_served]
    assert [(each.n_requests, each.clock_mhz) for each in record.serving.batches] == batches
    assert (report.n_served, report.n_met, report.n_lost) == (expected.n_served, expected.n_met, expected.n_lost)
    assert report.service_energy_per_request_j == pytest.approx(expected.service_energy_per_request_j, rel=1e-5)
    assert report.study_energy_per_request_j == pytest.approx(expected.study_energy_per_request_j, rel=1e-5)
    assert report.energy_per_request_j == pytest.approx(expected.energy_per_request_j, rel=1e-5)
    assert report.latency.mean_s == pytest.approx(expected.latency_mean_s, abs=1e-6)
    assert report.n_switches == expected.n_switches
    # The parts are the whole, and the whole is what the meter has for the phase.
    assert result.summary is not None and result.summary.energy_j is not None
    parts_j = (report.service_energy_j or 0) + (report.switch_energy_j or 0) + (report.idle_energy_j or 0)
    assert parts_j == pytest.approx(result.summary.energy_j, rel=1e-6)


def test_it_says_everywhere_that_it_is_simulated(run: Run) -> None:
    result, _, folder = run(spec())
    assert result.serving is not None and result.serving.is_simulated
    assert result.summary is not None and result.summary.method is EnergyMethod.ESTIMATE
    assert all("simulated, not measured" in reading.note for reading in result.energy)
    assert result.load is not None and "simulated" in result.load.settings
    assert result.start_temp_c is None
    assert result.duration_s is not None and result.duration_s >= DURATION_S
    (setting,) = result.settings
    assert setting.is_restored
    # Progress is on the machine's own clock: deadlines are the testbed's, and it has no other.
    lines = (folder / attempt_folder.PROGRESS).read_text().splitlines()
    at_s = [attempt_folder.Progress.model_validate_json(line).at_s for line in lines]
    assert at_s[-1] - at_s[0] < DURATION_S / 2
    rows = [attempt_folder.RequestRecord.model_validate_json(line) for line in (folder / "requests.jsonl").open()]
    assert all(row.arrival_s is not None and row.batch is not None and row.arrival_s <= row.submitted_s for row in rows)


def test_a_table_by_name_lies_in_the_testbeds_own_folder(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "data" / SERVICE_TABLES
    folder.mkdir(parents=True)
    service_table(TABLE, {}).write(folder / "mine.csv")
    result, _, _ = run(spec(engine=EngineSpec(name="simulated", options={"table": "mine.csv"})))
    assert result.error is None and result.serving is not None
    assert result.serving.policy_settings["table"] == "mine.csv"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"meter": MeterSpec(name="fake")}, "meter 'simulated'"),
        ({"engine": EngineSpec(name="simulated", options={"table": "../../etc/passwd"})}, "no name of a file"),
        ({"engine": EngineSpec(name="simulated", options={"table": {"source": "x"}})}, "table of the trial is none"),
        ({"serving": ServingSpec(policy=PolicySpec(name="deadline"), slo_s=8.0, continuous=True)}, "continuous"),
        ({"serving": None}, "serving"),
        ({"serving": ServingSpec(policy=PolicySpec(name="learned"), slo_s=8.0)}, "read from a file"),
        ({"serving": ServingSpec(policy=PolicySpec(name="oracle"), slo_s=8.0)}, "no policy named"),
        (
            {"serving": ServingSpec(policy=PolicySpec(name="fixed_clock", options={"clock_mhz": 1.0}), slo_s=8.0)},
            "not in made up",
        ),
        ({"workload": WorkloadSpec(name="fake", concurrency=2)}, "open_loop"),
        ({"serving": ServingSpec(policy=PolicySpec(name="deadline"), slo_s=1.0)}, "at best 0 % can be met"),
        ({"actuators": [ActuatorSpec(name="nvml_clock", domain="gpu:0", setting={"clock_mhz": 1410.0})]}, "simulated"),
    ],
)
def test_what_cannot_be_is_refused_by_the_check_and_by_the_child(
    run: Run, changes: Mapping[str, Any], words: str
) -> None:
    wanted = spec(**changes)
    (problem,) = check(CheckRequest(specs=[wanted])).problems
    assert words in problem.error.message
    result, _, _ = run(wanted)
    assert result.error is not None and words in result.error.message


def test_a_real_engine_refuses_the_simulated_meter_and_a_policy_without_a_table(run: Run) -> None:
    fake = spec(
        engine=EngineSpec(name="fake"),
        actuators=[],
        serving=ServingSpec(policy=PolicySpec(name="deadline"), slo_s=8.0),
    )
    (problem,) = check(CheckRequest(specs=[fake])).problems
    assert "capped_batch" in problem.error.message


def test_devices_are_put_back_after_a_policy_that_fails(run: Run, tmp_path: Path) -> None:
    # The table's lowest clock is none of the device's: the first switch to it is refused in the middle of the phase.
    odd = TABLE.model_copy(update={"clock_mhz": [706.0, 1050.0, 1410.0]})
    policy = PolicySpec(name="fixed_clock", options={"clock_mhz": 706.0})
    engine = EngineSpec(name="simulated", options={"table": odd.model_dump()})
    result, _, _ = run(spec(policy, engine=engine))
    assert result.error is not None and "706" in result.error.message
    (setting,) = result.settings
    assert setting.is_restored
    device = (tmp_path / "data" / SIMULATED_DEVICES / "gpu:0.json").read_text()
    assert '"clock_mhz": 1980.0' in device


def network(seed: int = 0) -> PolicyNetwork:
    """Untrained: it decides something, and the same every time."""
    table, draw = service_table(TABLE, {}), np.random.default_rng(seed)
    actions = ActionSet(CLOCKS, (1, 4, N), 1.0)
    weight = draw.normal(size=(len(actions), N_FEATURES)).astype(np.float32)
    bias = np.zeros(len(actions), dtype=np.float32)
    return PolicyNetwork(((weight, bias),), actions, FeatureSpec.of(table, 8.0, 100), table.sha256)


def test_a_learned_policy_is_a_file_of_the_testbed_and_does_as_in_the_reference(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "data" / "policies"
    folder.mkdir(parents=True)
    network().save(folder / "mine.safetensors")
    sha256 = hashlib.sha256((folder / "mine.safetensors").read_bytes()).hexdigest()
    result, record, _ = run(spec(PolicySpec(name="learned", file="mine.safetensors", file_sha256=sha256)))
    assert result.error is None and result.serving is not None and record.serving is not None
    table = service_table(TABLE, {})
    case = ServingCase(table=table, slo_s=8.0, arrivals=ArrivalSpec(rate_per_s=0.8), duration_s=DURATION_S)
    expected = simulate(case, LearnedPolicy(network(), table), 5, keep_records=True)
    assert expected.decisions is not None
    batches = [(each.n_served, each.clock_mhz) for each in expected.decisions if each.n_served]
    assert [(each.n_requests, each.clock_mhz) for each in record.serving.batches] == batches
    assert result.serving.n_waits == expected.n_waits
    assert result.serving.policy_settings["trained_on_this_table"] is True


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"file": "mine.safetensors", "file_sha256": "0" * 64}, "copy the right one"),
        ({"file": "other.safetensors"}, "There is: mine.safetensors"),
        ({}, "read from a file"),
    ],
)
def test_another_file_than_the_one_that_was_meant_is_refused(
    run: Run, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    folder = tmp_path / "data" / "policies"
    folder.mkdir(parents=True)
    network().save(folder / "mine.safetensors")
    result, _, _ = run(spec(PolicySpec(name="learned", **changes)))
    assert result.error is not None and words in result.error.message
