"""Which devices are here, and what a process sees of them."""

from pathlib import Path

import pytest

from contract.errors import UnknownNameError
from contract.trial_spec import DeviceSpec
from testbed.device_group.pinning import count_gpus, environment, refuse_missing


def refuse(*names: str, n_gpus: int = 0, cores: tuple[int, ...] = (0, 1), visible: str | None = None) -> None:
    environ = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    refuse_missing([DeviceSpec(name=name) for name in names], n_gpus=n_gpus, cores=cores, environ=environ)


@pytest.mark.parametrize(
    ("names", "there", "words"),
    [
        (("gpu:0",), {}, "no device gpu:0 here: this machine shows no GPU.*cores 0, 1"),
        (("gpu:0", "gpu:2"), {"n_gpus": 2}, "no device gpu:2 here: it counts 2.*gpu:0, gpu:1"),
        (("cores:0", "cores:1-3"), {}, "no device cores:1-3 here: core 2"),
        (("cores:0",), {"cores": (), "n_gpus": 1}, "core 0 is not.*Name what there is: gpu:0"),
        (("gpu:0",), {"n_gpus": 3, "visible": "1,2"}, "CUDA_VISIBLE_DEVICES=1,2 hides it.*: gpu:1, gpu:2"),
    ],
)
def test_what_is_not_here_is_named_with_what_is(names: tuple[str, ...], there: dict[str, object], words: str) -> None:
    with pytest.raises(UnknownNameError, match=words):
        refuse(*names, **there)  # type: ignore[arg-type]


@pytest.mark.parametrize("visible", [None, "0,1", "GPU-1234"])
def test_what_is_here_is_taken(visible: str | None) -> None:
    refuse("gpu:0", "gpu:1", "cores:0-1", n_gpus=2, visible=visible)


def test_a_gpus_process_sees_that_gpu_alone_by_the_meters_number() -> None:
    seen = environment(DeviceSpec(name="gpu:3"), {"CUDA_VISIBLE_DEVICES": "2,3", "HOME": "/here"})
    assert seen["CUDA_VISIBLE_DEVICES"] == "3"
    assert seen["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert seen["HOME"] == "/here"


def test_a_set_of_cores_sees_no_gpu_and_has_as_many_threads_as_cores() -> None:
    seen = environment(DeviceSpec(name="cores:2,4-5"), {"OMP_NUM_THREADS": "64"})
    assert seen["CUDA_VISIBLE_DEVICES"] == ""
    assert seen["OMP_NUM_THREADS"] == seen["MKL_NUM_THREADS"] == "3"
    assert seen["VLLM_CPU_OMP_THREADS_BIND"] == "2,4,5"


class NvmlWithoutDriver:
    NVMLError = OSError

    def nvmlInit(self) -> None:
        raise OSError("Driver Not Loaded")


class NvmlOfTwo:
    NVMLError = OSError

    def nvmlInit(self) -> None:
        pass

    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlShutdown(self) -> None:
        pass


def test_gpus_are_counted_as_the_meters_number_them(tmp_path: Path) -> None:
    (tmp_path / "17000000.gpu").mkdir()
    assert count_gpus(NvmlOfTwo(), tmp_path) == 2
    assert count_gpus(NvmlWithoutDriver(), tmp_path) == 1  # a Jetson's
    assert count_gpus(NvmlWithoutDriver(), tmp_path / "none") == 0
