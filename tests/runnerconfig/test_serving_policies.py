"""The serving studies: their plans, and that all policies of a seed meet the same arrivals."""

from pathlib import Path

import pytest

from contract.errors import ConfigError, InvalidOptionError
from contract.serving import PolicySpec
from contract.trial_spec import TrialSpec
from orchestrator.config_loader import load_config
from orchestrator.design import expand
from testbed.policies.base import Decision, Observation
from testbed.policy_source import build_policy
from testbed.simulation.service_table import ServiceTableError
from testbed.table_source import service_table

FOLDER = Path(__file__).parents[2] / "runnerconfig"
STUDY = FOLDER / "serving_policies.py"


def plan(path: Path) -> list[TrialSpec]:
    return [run.spec for run in expand(load_config(path)[0], "").runs]


def derived(tmp_path: Path, *lines: str) -> Path:
    (tmp_path / "serving_policies.py").write_text(STUDY.read_text())
    body = "".join(f"    {line}\n" for line in lines)
    path = tmp_path / "derived.py"
    path.write_text(
        "from pathlib import Path\n\nfrom serving_policies import RunnerConfig as Base\n\n\n"
        f"class RunnerConfig(Base):\n{body}"
    )
    return path


def test_all_policies_of_a_seed_meet_the_same_requests_and_only_the_policy_differs() -> None:
    specs = plan(STUDY)
    assert len(specs) == 10 * 10
    for seed in range(10):
        same = [spec for spec in specs if spec.treatment["arrival_seed"] == seed]
        assert len({spec.workload.model_dump_json() for spec in same}) == 1
        assert len({spec.model_dump_json(include={"engine", "model", "meter", "actuators"}) for spec in same}) == 1
        assert len({spec.serving.policy.model_dump_json() for spec in same if spec.serving}) == len(same) == 10
    assert {spec.engine.name for spec in specs} == {spec.meter.name for spec in specs} == {"simulated"}


def test_every_policy_of_the_study_can_be_built_and_starts_at_the_highest_clock() -> None:
    specs = {str(spec.treatment["policy"]): spec for spec in plan(STUDY)}
    assert {"static_high", "fixed_clock", "deadline"} <= specs.keys()
    for spec in specs.values():
        table = service_table(spec.engine.options["table"], {})
        assert build_policy(spec, table, {}).settings()
        assert spec.actuators[0].setting == {"clock_mhz": float(table.clock_mhz[-1])}
        assert spec.workload.concurrency == table.max_batch


def test_a_table_of_this_machine_travels_in_the_plan(tmp_path: Path) -> None:
    rows = ["gpu_frequency_mhz,batch_size,latency_s,power_w"]
    rows += [f"{mhz},{n},{2000 / mhz + n / 10},{mhz / 10 + n}" for mhz in (900, 1410) for n in (1, 2, 3)]
    (tmp_path / "mine.csv").write_text("\n".join(rows) + "\n")
    path = derived(tmp_path, f"table_csv = Path({str(tmp_path / 'mine.csv')!r})", "arrival_seeds = (0,)")
    spec = plan(path)[0]
    table = service_table(spec.engine.options["table"], {})
    assert table.source == "mine.csv" and table.max_batch == 3 and table.power_w[1, 2] == 144.0
    (tmp_path / "mine.csv").write_text("\n".join(rows[:-1]) + "\n")
    with pytest.raises(ConfigError, match=r"mine\.csv"):
        plan(path)


def test_a_real_gpu_gets_its_clock_locked_and_the_policy_its_table(tmp_path: Path) -> None:
    spec = plan(derived(tmp_path, "is_simulated = False", "continuous = True", "arrival_seeds = (0,)"))[0]
    assert spec.engine.name == "vllm" and spec.actuators[0].name == "nvml_clock"
    assert spec.serving is not None and spec.serving.policy.table is not None and spec.serving.continuous


def test_learned_policies_are_files_of_the_testbed_and_data_sets_are_traces(tmp_path: Path) -> None:
    path = derived(
        tmp_path,
        'files = {"learned": ("learned", "ppo.safetensors")}',
        'datasets = ("fixed", "sharegpt")',
        "arrival_cv = 2.0",
        "arrival_seeds = (0,)",
    )
    specs = plan(path)
    assert len(specs) == 11 * 2
    (learned,) = [s for s in specs if (s.treatment["policy"], s.treatment["dataset"]) == ("learned", "sharegpt")]
    assert learned.serving is not None and learned.serving.policy.file == "ppo.safetensors"
    assert learned.workload.options["trace"] == "sharegpt.jsonl"
    assert learned.workload.options["arrivals"] == {"kind": "gamma", "rate_per_s": 0.8, "cv": 2.0}


def test_the_small_real_study_sets_no_clock() -> None:
    specs = plan(FOLDER / "serving_vllm_cpu.py")
    assert len(specs) == 12
    assert not any(spec.actuators for spec in specs)
    assert {spec.serving.continuous for spec in specs if spec.serving} == {True, False}
    assert len({spec.engine_key() for spec in specs}) == 1
    for spec in specs:
        assert build_policy(spec, None, {}).name == "capped_batch"


def test_a_profile_of_one_clock_serves_policies_that_choose_batches_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = ["gpu_frequency_mhz,batch_size,input_len,output_len,latency_s,power_w"]
    rows += [f"2596,{n},64,16,{0.5 + n / 10},10.0" for n in range(1, 9)]
    (tmp_path / "one.csv").write_text("\n".join(rows) + "\n")
    study = FOLDER / "serving_profiled_vllm_cpu.py"
    with pytest.raises(ConfigError, match="JOULEBED_TABLE_CSV"):
        plan(study)
    monkeypatch.setenv("JOULEBED_TABLE_CSV", str(tmp_path / "one.csv"))
    specs = plan(study)
    assert len(specs) == 4 * 2 and not any(spec.actuators for spec in specs)
    assert len({spec.engine_key() for spec in specs}) == 1
    for spec in specs:
        assert spec.serving is not None and spec.serving.clock_domain is None
        table = service_table(spec.serving.policy.table, {}, is_clock_left_alone=True)
        policy = build_policy(spec, table, {})
        seen = Observation(waits_s=(0.1, 0.0, 0.0, 0.0, 0.0), clock_mhz=2596.0)
        choice = policy.decide(seen)
        assert isinstance(choice, Decision) and choice.clock_mhz == 2596.0 and 1 <= choice.max_batch <= 8
        other = spec.serving.model_copy(update={"policy": PolicySpec(name="deadline")})
        with pytest.raises(InvalidOptionError, match=r"has one, 2596 MHz.*batch_only"):
            build_policy(spec.model_copy(update={"serving": other}), table, {})
        with pytest.raises(ServiceTableError, match="nothing to choose"):
            service_table(spec.serving.policy.table, {})


def test_the_small_real_profile_is_of_the_engine_that_the_small_real_study_serves_with() -> None:
    profile, serving = plan(FOLDER / "profile_vllm_cpu.py"), plan(FOLDER / "serving_vllm_cpu.py")
    assert len(profile) == 4 * 2 * 2
    assert {spec.engine_key() for spec in profile} == {spec.engine_key() for spec in serving}


def test_the_ablations_are_all_there_beside_a_constant_a_rule_and_another_models_policy() -> None:
    specs = [spec for spec in plan(FOLDER / "serving_ablations.py") if spec.treatment["arrival_seed"] == 0]
    levels = {str(spec.treatment["policy"]): spec.serving.policy for spec in specs if spec.serving}
    assert {
        "ablation: no RL",
        "ablation: no energy in the reward",
        "ablation: fixed clock",
        "ablation: fixed batch",
    } < (levels.keys())
    assert {"fixed_clock", "deadline", "deadline_energy", "planned", "cross-model: another table's"} < levels.keys()
    assert len([name for name, policy in levels.items() if name.startswith("learned, seed")]) == 5
    assert all((policy.file is not None) == (policy.name in ("planned", "learned")) for policy in levels.values())
    assert len({spec.workload.model_dump_json() for spec in specs}) == 1
