"""The machine's description, from trees built here and from the real one."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from testbed.identity import identify


def tree(root: Path, *, model: str | None = "model name\t: Example CPU @ 3 GHz", memory_kb: int = 16_000_000) -> Path:
    root.mkdir()
    (root / "cpuinfo").write_text(f"processor\t: 0\n{model or ''}\nprocessor\t: 1\n{model or ''}\n")
    (root / "meminfo").write_text(f"MemTotal:       {memory_kb} kB\nMemFree:  1 kB\n")
    return root


class NvmlError(Exception):
    pass


def nvml(*cards: tuple[str, str], fails: bool = False) -> Any:
    def init() -> None:
        if fails:
            raise NvmlError

    return SimpleNamespace(
        NVMLError=NvmlError,
        nvmlInit=init,
        nvmlShutdown=lambda: None,
        nvmlDeviceGetCount=lambda: len(cards),
        nvmlDeviceGetHandleByIndex=lambda index: cards[index],
        nvmlDeviceGetName=lambda card: card[0],
        nvmlDeviceGetUUID=lambda card: card[1].encode(),
        nvmlSystemGetDriverVersion=lambda: b"550.54",
    )


def test_reads_processor_memory_and_gpus(tmp_path: Path) -> None:
    found = identify(proc=tree(tmp_path / "proc"), nvml=nvml(("H200", "GPU-1"), ("H200", "GPU-2")))
    assert found.cpu_model == "Example CPU @ 3 GHz"
    assert found.memory_bytes == 16_000_000 * 1024
    assert found.gpus == ["H200 (GPU-1)", "H200 (GPU-2)"]
    assert found.driver_version == "550.54"


def test_machines_of_a_class_share_the_hash(tmp_path: Path) -> None:
    a = identify(proc=tree(tmp_path / "a"), nvml=nvml(("H200", "GPU-1")))
    same = identify(proc=tree(tmp_path / "b", memory_kb=16_000_100), nvml=nvml(("H200", "GPU-9")))
    more_memory = identify(proc=tree(tmp_path / "c", memory_kb=32_000_000), nvml=nvml(("H200", "GPU-1")))
    more_gpus = identify(proc=tree(tmp_path / "d"), nvml=nvml(("H200", "GPU-1"), ("H200", "GPU-2")))
    assert a.hardware_sha256 == same.hardware_sha256
    assert len({a.hardware_sha256, more_memory.hardware_sha256, more_gpus.hardware_sha256}) == 3


def test_a_board_that_names_itself_in_the_device_tree(tmp_path: Path) -> None:
    board = tmp_path / "sys/firmware/devicetree/base"
    board.mkdir(parents=True)
    (board / "model").write_text("NVIDIA Jetson Orin Nano\0")
    found = identify(proc=tree(tmp_path / "proc", model=None), sys=tmp_path / "sys", nvml=nvml(fails=True))
    assert found.cpu_model == "NVIDIA Jetson Orin Nano"
    assert found.gpus == []
    assert found.driver_version is None


def test_a_machine_that_tells_nothing(tmp_path: Path) -> None:
    found = identify(proc=tmp_path, sys=tmp_path, packages=["no-such-distribution"], nvml=nvml(fails=True))
    assert found.cpu_model
    assert found.memory_bytes > 0
    assert found.packages == {}


def test_this_machine() -> None:
    found = identify()
    assert found.packages["joulebed"]
    assert found.n_cpus > 0
    assert found == identify()
