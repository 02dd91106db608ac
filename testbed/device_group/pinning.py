"""Which devices this machine has, and how a process is kept to one of them."""

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from contract.errors import DeviceError, UnknownNameError
from contract.trial_spec import DeviceSpec
from testbed.meters.sysfs import gpu_devices

VISIBLE = "CUDA_VISIBLE_DEVICES"
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def count_gpus(nvml: Any | None = None, devfreq: Path = Path("/sys/class/devfreq")) -> int:
    """How many GPUs there are by the numbers of the meters: NVML's, or a Jetson's.

    Args:
        nvml: the module `pynvml`, or one like it; None takes the installed one.
        devfreq: the kernel's devfreq folder.
    """
    if nvml is None:
        try:
            import pynvml
        except ModuleNotFoundError:
            return len(gpu_devices(devfreq))
        nvml = pynvml
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return len(gpu_devices(devfreq))
    try:
        return int(nvml.nvmlDeviceGetCount())
    except nvml.NVMLError:
        return 0
    finally:
        nvml.nvmlShutdown()


def usable_cores() -> frozenset[int]:
    """Logical cores that this process may run on; empty where the system pins no process to any."""
    return frozenset(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else frozenset()


def refuse_missing(
    devices: Sequence[DeviceSpec], *, n_gpus: int, cores: Collection[int], environ: Mapping[str, str]
) -> None:
    """Refuse devices that are not here.

    Args:
        devices: of a trial.
        n_gpus: from `count_gpus`.
        cores: from `usable_cores`.
        environ: of the testbed: a GPU that it hides is not there.

    Raises:
        UnknownNameError: names the device, and what there is.
    """
    hidden = _hidden(environ.get(VISIBLE), n_gpus)
    for device in devices:
        index = device.gpu_index
        if index is None:
            missing = sorted(set(device.cores) - set(cores))
            why = f"core {missing[0]} is not this testbed's to use" if missing else ""
        elif index >= n_gpus:
            why = "this machine shows no GPU" if not n_gpus else f"it counts {n_gpus}"
        else:
            why = f"{VISIBLE}={environ[VISIBLE]} hides it from this testbed" if index in hidden else ""
        if why:
            raise UnknownNameError(
                f"There is no device {device.name} here: {why}. Name what there is: {_choice(n_gpus, hidden, cores)}.",
                device=device.name,
            )


def environment(device: DeviceSpec, environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of a device's process: it sees its own GPU and no other, or none; threads as many as its cores.

    Args:
        device: whose.
        environ: of the trial's process.
    """
    changed = {**environ, "CUDA_DEVICE_ORDER": "PCI_BUS_ID", VISIBLE: ""}
    if device.gpu_index is not None:
        return {**changed, VISIBLE: str(device.gpu_index)}
    cores = device.cores
    changed |= dict.fromkeys(_THREADS, str(len(cores)))
    return {**changed, "VLLM_CPU_OMP_THREADS_BIND": ",".join(str(core) for core in cores)}


def pin(device: DeviceSpec) -> dict[str, JsonValue]:
    """Keep this process, and all threads that it starts from now on, to its device; before any engine is imported.

    Returns:
        What took, read back.

    Raises:
        DeviceError: the system did not do it.
    """
    if device.gpu_index is not None:
        return {"cuda_visible_devices": os.environ.get(VISIBLE, "")}
    try:
        os.sched_setaffinity(0, device.cores)
        taken = sorted(os.sched_getaffinity(0))
    except OSError as error:
        raise DeviceError(f"Its process cannot be kept to its cores: {error}.", device=device.name) from error
    if taken != list(device.cores):
        raise DeviceError(f"Its process was to be kept to its cores, and is on {taken}.", device=device.name)
    return {"pinned_cores": list(taken)}


def _hidden(visible: str | None, n_gpus: int) -> set[int]:
    """GPUs that a list of indices leaves out; a list of UUIDs is not read, and hides none here."""
    if visible is None:
        return set()
    listed = [part.strip() for part in visible.split(",") if part.strip()]
    if not all(part.isdecimal() for part in listed):
        return set()
    return set(range(n_gpus)) - {int(part) for part in listed}


def _choice(n_gpus: int, hidden: Collection[int], cores: Collection[int]) -> str:
    gpus = [f"gpu:{index}" for index in range(n_gpus) if index not in hidden]
    return ", ".join(
        [*gpus, *([f"sets of the cores {', '.join(map(str, sorted(cores)))} (cores:{min(cores)})"] if cores else [])]
    )
