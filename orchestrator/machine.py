"""What a design must know of the machine that runs it: how many processors and GPUs.

A plan is made before any testbed is asked, and stays the same afterwards. So the machine is declared: by two
environment variables, or it is the one that the plan is made on.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from contract.errors import ConfigError

CPUS_VARIABLE = "JOULEBED_N_CPUS"
GPUS_VARIABLE = "JOULEBED_N_GPUS"

_PROC = Path("/proc")
_DEV = Path("/dev")


@dataclass(frozen=True)
class Machine:
    """A machine as a design sees it.

    Attributes:
        n_cpus: processors that a process may use.
        n_gpus: GPUs.
        origin: who says so, in words.
    """

    n_cpus: int
    n_gpus: int
    origin: str


def find_machine(environ: Mapping[str, str] | None = None, *, proc: Path = _PROC, dev: Path = _DEV) -> Machine:
    """The machine that runs the trials: as declared, and this one where nothing is.

    Args:
        environ: where `JOULEBED_N_CPUS` and `JOULEBED_N_GPUS` are looked up; None: the process's environment.
        proc: root of the process file system, which lists NVIDIA's GPUs.
        dev: of the device files, which list Jetson's.

    Raises:
        ConfigError: a variable is no number.
    """
    environ = os.environ if environ is None else environ
    n_cpus, n_gpus = _declared(environ, CPUS_VARIABLE, 1), _declared(environ, GPUS_VARIABLE, 0)
    told = [name for name, value in ((CPUS_VARIABLE, n_cpus), (GPUS_VARIABLE, n_gpus)) if value is not None]
    origin = f"declared by {' and '.join(told)}" if told else "the machine that the plan was made on"
    return Machine(
        n_cpus=_usable_cpus() if n_cpus is None else n_cpus,
        n_gpus=_visible_gpus(proc, dev) if n_gpus is None else n_gpus,
        origin=origin,
    )


def _declared(environ: Mapping[str, str], name: str, least: int) -> int | None:
    text = environ.get(name, "").strip()
    if not text:
        return None
    if not text.isdecimal() or int(text) < least:
        raise ConfigError(f"{name} is {text!r}. Set it to a whole number of at least {least}, or unset it.")
    return int(text)


def _usable_cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _visible_gpus(proc: Path, dev: Path) -> int:
    """NVIDIA's GPUs, without loading its library: by the driver's folder, else by device files."""
    gpus = proc / "driver" / "nvidia" / "gpus"
    if gpus.is_dir():
        return sum(1 for _ in gpus.iterdir())
    return sum(1 for path in dev.glob("nvidia*") if re.fullmatch(r"nvidia\d+", path.name)) or int(
        (dev / "nvhost-gpu").exists()
    )
