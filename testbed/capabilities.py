"""What can be used on this machine, and how to mend what cannot."""

from importlib.util import find_spec
from typing import Any

from contract.errors import JouleBedError
from contract.trial_result import Capability
from testbed.meters.base import Meter
from testbed.registry import Registry

ENGINE_MODULES = {"vllm": ("vllm", "vllm"), "llama_cpp": ("xllamacpp", "llama-cpp")}
"""Engine -> the module it needs and the extra that installs it; engines that are not here need nothing more."""

_PROBE_PERIOD_S = 0.2


def look(engines: Registry[Any], meters: Registry[Meter], workloads: Registry[Any]) -> list[Capability]:
    """Every implementation behind the three seams. Imports no engine; meters are built and probed.

    Args:
        engines: by name.
        meters: by name.
        workloads: by name.
    """
    return [
        *(_engine(name) for name in engines.names),
        *(_meter(meters, name) for name in meters.names),
        *(Capability(seam="workload", name=name, available=True) for name in workloads.names),
    ]


def _engine(name: str) -> Capability:
    module, extra = ENGINE_MODULES.get(name, (None, None))
    if module is None or find_spec(module) is not None:
        return Capability(seam="engine", name=name, available=True)
    return Capability(
        seam="engine",
        name=name,
        available=False,
        message=f"The package {module!r} is not installed. Run: pip install 'joulebed[{extra}]'",
    )


def _meter(meters: Registry[Meter], name: str) -> Capability:
    try:
        probe = meters.create(name, period_s=_PROBE_PERIOD_S).probe()
    except JouleBedError as error:
        return Capability(seam="meter", name=name, available=False, message=error.message)
    return Capability(seam="meter", name=name, available=probe.available, message=probe.message)
