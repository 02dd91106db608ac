"""What can be used on this machine, and how to mend what cannot."""

from typing import Any, Literal

from contract.errors import JouleBedError
from contract.node_info import Capability
from testbed.actuators.base import Actuator
from testbed.actuators.registry import ALL_SIMULATED, FIRST_DEVICE
from testbed.meters.base import Meter
from testbed.registry import Registry

_PROBE_PERIOD_S = 0.2


def look(
    engines: Registry[Any], meters: Registry[Meter], workloads: Registry[Any], actuators: Registry[Actuator]
) -> list[Capability]:
    """Every implementation behind the four seams. Imports no engine; meters are built and probed, actuators asked
    for their limits, which touches no device.

    Args:
        engines: by name.
        meters: by name.
        workloads: by name.
        actuators: by name.
    """
    return [
        *(_package("engine", engines, name) for name in engines.names),
        *(_meter(meters, name) for name in meters.names),
        *(_package("workload", workloads, name) for name in workloads.names),
        *(_actuator(actuators, name) for name in actuators.names),
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


def _actuator(actuators: Registry[Actuator], name: str) -> Capability:
    if name in ALL_SIMULATED:
        return Capability(seam="actuator", name=name, available=True, message="a device that is a file: for tests")
    try:
        limits = actuators.create(name, domain=FIRST_DEVICE.get(name, "gpu:0")).limits()
    except JouleBedError as error:
        return Capability(seam="actuator", name=name, available=False, message=error.message)
    return Capability(seam="actuator", name=name, available=limits.allowed, message=limits.message)
