"""All actuators, by name."""

from pathlib import Path

from testbed.actuators.base import Actuator
from testbed.registry import Entry, Registry

ACTUATORS: Registry[Actuator] = Registry(
    "actuator",
    {
        "nvml_clock": Entry("testbed.actuators.nvml_clock_actuator:NvmlClockActuator", extra="testbed"),
        "nvml_power_limit": Entry(
            "testbed.actuators.nvml_power_limit_actuator:NvmlPowerLimitActuator", extra="testbed"
        ),
        "devfreq": Entry("testbed.actuators.devfreq_actuator:DevfreqActuator"),
        "fan": Entry("testbed.actuators.fan_actuator:FanActuator"),
        "simulated": Entry("testbed.actuators.simulated_actuator:SimulatedActuator"),
        "simulated_orin": Entry("testbed.actuators.simulated_actuator:SimulatedOrinActuator"),
        "simulated_fan": Entry("testbed.actuators.simulated_actuator:SimulatedFanActuator"),
    },
)

SIMULATED = "simulated"
SIMULATED_ORIN = "simulated_orin"
SIMULATED_FAN = "simulated_fan"

ALL_SIMULATED = frozenset({SIMULATED, SIMULATED_ORIN, SIMULATED_FAN})

FIRST_DEVICE = {"fan": "fan:0"}
"""Domain that `testbed doctor` looks at, where it is not `gpu:0`."""


def build_actuator(name: str, domain: str, simulated_folder: Path) -> Actuator:
    """An actuator with this machine's own roots: none of them ever comes from a request.

    Args:
        name: in the registry.
        domain: the device.
        simulated_folder: where simulated devices keep their state.

    Raises:
        UnknownNameError: no such actuator.
        MissingPackageError: it needs a package that is not installed.
        InvalidOptionError: the domain is none of this actuator's.
    """
    arguments = {"folder": str(simulated_folder)} if name in ALL_SIMULATED else {}
    return ACTUATORS.create(name, domain=domain, **arguments)
