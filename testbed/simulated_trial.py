"""What makes a trial a simulated one: one clock that only sleeping moves, for engine, meter and actuator alike."""

from collections.abc import Sequence
from pathlib import Path

from contract.errors import InvalidOptionError
from contract.node_info import TemperatureReading
from contract.trial_spec import TrialSpec
from testbed.actuators.base import Actuator
from testbed.actuators.registry import ALL_SIMULATED, SIMULATED, SIMULATED_FAN, SIMULATED_ORIN, build_actuator
from testbed.clock import Clock
from testbed.device_settings import SIMULATED_DEVICES
from testbed.engines.base import Engine
from testbed.engines.simulated_engine import SimulatedEngine
from testbed.engines.simulated_orin_engine import SimulatedOrinEngine
from testbed.meters.base import Meter
from testbed.meters.simulated_meter import SimulatedMeter
from testbed.simulation.orin_grid import CLOCKS_MHZ
from testbed.simulation.orin_machine import OrinMachine
from testbed.simulation.simulated_clock import SimulatedClock
from testbed.simulation.simulated_machine import SimulatedMachine


class NoThermometer:
    """See `Thermometer`: a table has no temperature, and this machine's is not its."""

    def read(self) -> list[TemperatureReading]:
        """See `Thermometer`."""
        return []


def is_simulated(spec: TrialSpec) -> bool:
    """Whether time and power of a trial are those of a table."""
    return spec.engine.name in (SimulatedEngine.name, SimulatedOrinEngine.name)


def refuse_half_simulated(spec: TrialSpec, meter_names: Sequence[str]) -> None:
    """A simulated server is measured by its own meter and set by simulated actuators; nothing real is mixed in.

    Raises:
        InvalidOptionError: says what to change.
    """
    if not is_simulated(spec):
        return
    if spec.devices or spec.engine.memory_limit_gib is not None:
        raise InvalidOptionError(
            f"The engine {spec.engine.name!r} has no memory and no parts: leave out devices, memory_limit_gib."
        )
    if list(meter_names) != [SimulatedMeter.name]:
        raise InvalidOptionError(
            f"The engine {spec.engine.name!r} goes with the meter 'simulated', not {', '.join(meter_names) or 'none'}: "
            "a real meter would measure this machine, which serves nothing."
        )
    real = [each.name for each in spec.actuators if each.name not in ALL_SIMULATED]
    if real:
        raise InvalidOptionError(
            f"The engine {spec.engine.name!r} goes with simulated actuators, not {real[0]}: a real device would be set "
            "for nothing."
        )


class BoardThermometer:
    """See `Thermometer`: of a simulated board.

    Args:
        machine: has it.
    """

    def __init__(self, machine: OrinMachine) -> None:
        self._machine = machine

    def read(self) -> list[TemperatureReading]:
        """See `Thermometer`."""
        return [TemperatureReading(sensor="board (simulated)", temp_c=self._machine.temp_c)]


def thermometer_of(machine: SimulatedMachine | OrinMachine) -> NoThermometer | BoardThermometer:
    """What a simulated machine tells of its temperature."""
    return BoardThermometer(machine) if isinstance(machine, OrinMachine) else NoThermometer()


def simulated_clock(spec: TrialSpec, real: Clock) -> SimulatedClock:
    """The clock of a simulated trial.

    Args:
        spec: of it.
        real: where it starts, and what paces it.
    """
    speedup = spec.engine.options.get("speedup")
    return SimulatedClock(real, speedup if isinstance(speedup, int | float) and speedup > 0 else None)


def connect(
    spec: TrialSpec, engine: Engine, meters: Sequence[Meter], clock: Clock, data_dir: Path
) -> SimulatedMachine | OrinMachine:
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
    machine = (
        _connect_orin(spec, engine, clock, data_dir)
        if isinstance(engine, SimulatedOrinEngine)
        else _connect_table(spec, engine, clock, data_dir)
    )
    for meter in meters:
        if isinstance(meter, SimulatedMeter):
            meter.connect(machine)
    return machine


def _connect_table(spec: TrialSpec, engine: Engine, clock: Clock, data_dir: Path) -> SimulatedMachine:
    assert isinstance(engine, SimulatedEngine)
    device = engine.options.device
    if spec.serving is not None and spec.serving.clock_domain not in (None, device):
        raise InvalidOptionError(
            f"The policy sets {spec.serving.clock_domain}, and the simulated engine runs on {device}: let "
            "serving.clock_domain and engine.options.device name the same."
        )
    is_set = any(each.domain == device and "clock_mhz" in each.setting for each in spec.actuators)
    actuator = build_actuator(SIMULATED, device, data_dir / SIMULATED_DEVICES) if is_set else None
    return engine.connect(clock, lambda: engine.highest_mhz if actuator is None else _told(actuator, "clock_mhz"))


def _connect_orin(spec: TrialSpec, engine: SimulatedOrinEngine, clock: Clock, data_dir: Path) -> OrinMachine:
    options, edge = engine.options, spec.edge
    if edge is not None and (edge.clock_domain, edge.fan_domain or options.fan) != (options.device, options.fan):
        raise InvalidOptionError(
            f"The trial sets {edge.clock_domain} and {edge.fan_domain}, and the simulated Orin has {options.device} "
            f"and {options.fan}: let edge.clock_domain and edge.fan_domain name the same as engine.options."
        )
    held = {(each.name, each.domain) for each in spec.actuators}
    folder = data_dir / SIMULATED_DEVICES
    gpu, fan = (SIMULATED_ORIN, options.device), (SIMULATED_FAN, options.fan)
    dial = build_actuator(*gpu, folder) if gpu in held else None
    blower = build_actuator(*fan, folder) if fan in held else None
    return engine.connect(
        clock,
        lambda: CLOCKS_MHZ[-1] if dial is None else _told(dial, "clock_mhz"),
        lambda: blower is None or _told(blower, "fan_duty") > 0,
        spec.seed if edge is None or edge.seed is None else edge.seed,
    )


def _told(actuator: Actuator, quantity: str) -> float:
    found = actuator.read()[quantity]
    assert found is not None  # a simulated device tells
    return found
