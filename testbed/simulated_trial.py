"""What makes a trial a simulated one: one clock that only sleeping moves, for engine, meter and actuator alike."""

from collections.abc import Sequence
from pathlib import Path

from contract.errors import InvalidOptionError
from contract.node_info import TemperatureReading
from contract.trial_spec import TrialSpec
from testbed.actuators.base import Actuator
from testbed.actuators.registry import SIMULATED, build_actuator
from testbed.clock import Clock
from testbed.device_settings import SIMULATED_DEVICES
from testbed.engines.base import Engine
from testbed.engines.simulated_engine import SimulatedEngine
from testbed.meters.base import Meter
from testbed.meters.simulated_meter import SimulatedMeter
from testbed.simulation.simulated_clock import SimulatedClock
from testbed.simulation.simulated_machine import SimulatedMachine


class NoThermometer:
    """See `Thermometer`: a table has no temperature, and this machine's is not its."""

    def read(self) -> list[TemperatureReading]:
        """See `Thermometer`."""
        return []


def is_simulated(spec: TrialSpec) -> bool:
    """Whether time and power of a trial are those of a table."""
    return spec.engine.name == SimulatedEngine.name


def refuse_half_simulated(spec: TrialSpec, meter_names: Sequence[str]) -> None:
    """A simulated server is measured by its own meter and set by simulated actuators; nothing real is mixed in.

    Raises:
        InvalidOptionError: says what to change.
    """
    if not is_simulated(spec):
        return
    if spec.devices or spec.engine.memory_limit_gib is not None:
        raise InvalidOptionError(
            "The engine 'simulated' has no memory and no parts: leave out devices, memory_limit_gib."
        )
    if list(meter_names) != [SimulatedMeter.name]:
        raise InvalidOptionError(
            f"The engine 'simulated' goes with the meter 'simulated', not {', '.join(meter_names) or 'none'}: a real "
            "meter would measure this machine, which serves nothing."
        )
    real = [each.name for each in spec.actuators if each.name != SIMULATED]
    if real:
        raise InvalidOptionError(
            f"The engine 'simulated' goes with actuators 'simulated', not {real[0]}: a real device would be set for "
            "nothing."
        )


def simulated_clock(spec: TrialSpec, real: Clock) -> SimulatedClock:
    """The clock of a simulated trial.

    Args:
        spec: of it.
        real: where it starts, and what paces it.
    """
    speedup = spec.engine.options.get("speedup")
    return SimulatedClock(real, speedup if isinstance(speedup, int | float) and speedup > 0 else None)


def connect(spec: TrialSpec, engine: Engine, meters: Sequence[Meter], clock: Clock, data_dir: Path) -> SimulatedMachine:
    """Join engine, meter and simulated actuator.

    Args:
        spec: of the trial.
        engine: the simulated one.
        meters: of the trial.
        clock: that they share.
        data_dir: holds the simulated devices.

    Raises:
        InvalidOptionError: the policy sets another device than the engine runs on.
    """
    assert isinstance(engine, SimulatedEngine)
    device = engine.options.device
    if spec.serving is not None and spec.serving.clock_domain not in (None, device):
        raise InvalidOptionError(
            f"The policy sets {spec.serving.clock_domain}, and the simulated engine runs on {device}: let "
            "serving.clock_domain and engine.options.device name the same."
        )
    is_set = any(each.domain == device and "clock_mhz" in each.setting for each in spec.actuators)
    actuator = build_actuator(SIMULATED, device, data_dir / SIMULATED_DEVICES) if is_set else None
    machine = engine.connect(clock, lambda: engine.highest_mhz if actuator is None else _clock_mhz(actuator))
    for meter in meters:
        if isinstance(meter, SimulatedMeter):
            meter.connect(machine)
    return machine


def _clock_mhz(actuator: Actuator) -> float:
    found = actuator.read()["clock_mhz"]
    assert found is not None  # a simulated device tells
    return found
