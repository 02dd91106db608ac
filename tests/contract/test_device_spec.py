"""Devices of a trial: how they are named, and what their being there changes."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from contract.trial_spec import (
    MAX_CORE,
    MAX_DEVICES,
    MAX_NAME,
    DeviceSpec,
    EngineSpec,
    ModelSpec,
    TrialSpec,
    WorkloadSpec,
)


def spec(*devices: DeviceSpec, **changes: Any) -> TrialSpec:
    fields: dict[str, Any] = {
        "experiment": "e",
        "run_id": "run_0_repetition_0",
        "repetition": 0,
        "treatment": {},
        "seed": 0,
        "model": ModelSpec(name="m", source="fake:m"),
        "engine": EngineSpec(name="fake"),
        "workload": WorkloadSpec(name="fake", concurrency=2),
        "devices": list(devices),
    }
    return TrialSpec.model_validate(fields | changes)


@pytest.mark.parametrize(
    ("name", "gpu", "cores"),
    [
        ("gpu:0", 0, ()),
        ("gpu:12", 12, ()),
        ("cores:3", None, (3,)),
        ("cores:0-2", None, (0, 1, 2)),
        ("cores:4,0-1,1", None, (0, 1, 4)),
    ],
)
def test_a_name_says_what_it_is(name: str, gpu: int | None, cores: tuple[int, ...]) -> None:
    device = DeviceSpec(name=name)
    assert (device.gpu_index, device.cores) == (gpu, cores)


@pytest.mark.parametrize(
    "name",
    [
        *("0", "gpu:", "gpu:01", "gpu:0,1", "cores:", "cores:2-1", "cores:3,2-1", "cores:a", "GPU:0", "cores:4096"),
        *("cores:0-9999", "cores:\u0663", "cores:" + ",".join(["0"] * MAX_NAME)),
    ],
)
def test_another_name_is_refused(name: str) -> None:
    with pytest.raises(ValidationError):
        DeviceSpec(name=name)


@pytest.mark.parametrize(
    ("names", "twice"),
    [
        (["gpu:0", "gpu:0"], "GPU 0"),
        (["cores:0-1", "cores:1"], "core 1"),
        (["cores:0", "cores:0"], "core 0"),
        (["cores:0-9", "cores:3-4"], "core 3"),
        (["cores:20,0-9", "cores:10-19", "cores:15"], "core 15"),
        (["cores:0-9,2-3,11", "gpu:0", "cores:10-11"], "core 11"),
    ],
)
def test_a_device_is_in_one_set_only(names: list[str], twice: str) -> None:
    of_name = {name: DeviceSpec(name=name) for name in names}
    with pytest.raises(ValidationError, match=f"{twice} twice"):
        spec(*(of_name[name] for name in names))  # the same object, where it is the same name
    with pytest.raises(ValidationError, match=f"{twice} twice"):
        spec(*(DeviceSpec(name=name) for name in names))
    assert spec(DeviceSpec(name="gpu:0"), DeviceSpec(name="gpu:1"), DeviceSpec(name="cores:0"))
    assert spec(DeviceSpec(name="cores:0-9,20,2-3"), DeviceSpec(name="cores:10-19,21"))


def test_what_a_request_may_ask_for_is_bounded() -> None:
    """Each is looked at before anything is answered."""
    longest = f"cores:{','.join(['0-4095'] * MAX_NAME)}"[: MAX_NAME - 1]
    assert len(DeviceSpec(name=longest.rstrip("-,")).cores) == MAX_CORE + 1
    # One socket of two, where the cores are numbered by turns.
    by_turns = DeviceSpec(name="cores:" + ",".join(str(core) for core in range(0, 256, 2)))
    assert by_turns.cores == tuple(range(0, 256, 2))
    assert DeviceSpec(name=f"cores:0-{MAX_CORE}").cores[-1] == MAX_CORE
    devices = [DeviceSpec(name=f"cores:{core}") for core in range(MAX_DEVICES + 1)]
    assert len(spec(*devices[:-1]).devices) == MAX_DEVICES
    with pytest.raises(ValidationError, match="at most 256"):
        spec(*devices)


def test_ranges_are_compared_by_their_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request of 1 MiB may hold thousands of whole machines, and every other answer waits meanwhile."""

    def expanded(device: DeviceSpec) -> None:
        raise AssertionError("each core was looked at")

    monkeypatch.setattr(DeviceSpec, "cores", property(expanded))
    name = "cores:" + ",".join(["0-4095"] * 30)
    assert spec(DeviceSpec(name=name)).devices[0].name == name


def test_without_devices_a_spec_is_what_it_was_before_there_were_any() -> None:
    before = json.loads(spec().model_dump_json())
    del before["devices"], before["serving"]
    read = TrialSpec.model_validate(before)
    assert read == spec() and read.devices == []
    # Computed with the version before: a campaign that was begun then goes on.
    assert read.sha256() == "24cb0277b437f17360da569e1c2a61cce53d18bc3133f3d8985304b32225ae98"
    assert read.engine_key() == "510bd7f6918a969c864c73cd1c09ede20e0b2dc31a5745b69812952e3351940a"


def test_devices_are_part_of_what_was_asked_for_and_of_a_loaded_engine() -> None:
    one, two = spec(DeviceSpec(name="cores:0")), spec(DeviceSpec(name="cores:1"))
    assert len({spec().sha256(), one.sha256(), two.sha256()}) == 3
    assert len({spec().engine_key(), one.engine_key(), two.engine_key()}) == 3


def test_each_device_runs_the_trial_with_its_own_engine_and_model() -> None:
    other = DeviceSpec(
        name="gpu:0", engine=EngineSpec(name="vllm", max_concurrency=8), model=ModelSpec(name="n", source="fake:n")
    )
    whole = spec(DeviceSpec(name="cores:0"), other)
    same, changed = (whole.for_device(device) for device in whole.devices)
    assert same == spec()
    assert (changed.engine.name, changed.model.name, changed.load_concurrency) == ("vllm", "n", 8)
    assert changed.workload == whole.workload and changed.seed == whole.seed


def test_an_engine_for_too_few_requests_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"exceeds engine\.max_concurrency 1"):
        spec(DeviceSpec(name="cores:0", engine=EngineSpec(name="fake", max_concurrency=1)))
