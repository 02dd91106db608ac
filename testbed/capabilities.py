"""What can be used on this machine, and how to mend what cannot."""

from typing import Any, Literal

from contract.errors import JouleBedError
from contract.trial_result import Capability
from testbed.meters.base import Meter
from testbed.registry import Registry

_PROBE_PERIOD_S = 0.2


def look(engines: Registry[Any], meters: Registry[Meter], workloads: Registry[Any]) -> list[Capability]:
    """Every implementation behind the three seams. Imports no engine; meters are built and probed.

    Args:
        engines: by name.
        meters: by name.
        workloads: by name.
    """
    return [
        *(_package("engine", engines, name) for name in engines.names),
        *(_meter(meters, name) for name in meters.names),
        *(_package("workload", workloads, name) for name in workloads.names),
    ]


def _package(seam: Literal["engine", "workload"], registry: Registry[Any], name: str) -> Capability:
    missing = registry.missing(name)
    return Capability(seam=seam, name=name, available=missing is None, message=missing or "")


def _meter(meters: Registry[Meter], name: str) -> Capability:
    try:
        probe = meters.create(name, period_s=_PROBE_PERIOD_S).probe()
    except JouleBedError as error:
        return Capability(seam="meter", name=name, available=False, message=error.message)
    return Capability(seam="meter", name=name, available=probe.available, message=probe.message)
