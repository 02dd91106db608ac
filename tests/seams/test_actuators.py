"""One behaviour suite over every actuator: sysfs trees, an NVML double and a file take the hardware's place."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from contract.errors import ActuatorUnavailableError, InvalidOptionError
from testbed.actuators.base import Actuator, Original, check_setting, disagreements
from testbed.actuators.devfreq_actuator import DevfreqActuator
from testbed.actuators.fan_actuator import FanActuator
from testbed.actuators.nvml_clock_actuator import NvmlClockActuator
from testbed.actuators.nvml_power_limit_actuator import NvmlPowerLimitActuator
from testbed.actuators.registry import ACTUATORS
from testbed.actuators.simulated_actuator import SimulatedActuator, SimulatedFanActuator, SimulatedOrinActuator
from tests.testbed.actuator_double import SettableGpu, SettableNvml, devfreq, fans, files


@dataclass(frozen=True)
class Case:
    """An actuator on a device of its own.

    Attributes:
        build: makes it anew, as another process would.
        device: everything that the device shows.
        first: a setting that it takes.
        second: another one.
        wrong: one that it does not have.
    """

    build: Callable[[], Actuator]
    device: Callable[[], Any]
    first: dict[str, float]
    second: dict[str, float]
    wrong: dict[str, float]


def _nvml(actuator: Callable[..., Actuator], *settings: dict[str, float]) -> Case:
    nvml = SettableNvml([SettableGpu(), SettableGpu()])
    return Case(
        lambda: actuator(domain="gpu:1", nvml=nvml, is_allowed=lambda: True),
        lambda: [(gpu.locked_mhz, gpu.limit_mw) for gpu in nvml.settable],
        *settings,
    )


def nvml_clock(folder: Path) -> Case:
    return _nvml(NvmlClockActuator, {"clock_mhz": 1005.0}, {"clock_mhz": 1980.0}, {"clock_mhz": 1000.0})


def nvml_power_limit(folder: Path) -> Case:
    settings = {"power_limit_w": 300.0}, {"power_limit_w": 699.9}, {"power_limit_w": 701.0}
    return _nvml(NvmlPowerLimitActuator, *settings)


def jetson_clock(folder: Path) -> Case:
    root = devfreq(folder)
    pair = {"min_clock_mhz": 408.0, "max_clock_mhz": 918.0}
    return Case(
        lambda: DevfreqActuator(domain="gpu:0", root=root),
        lambda: files(root),
        {"clock_mhz": 1300.5},
        pair,
        {"clock_mhz": 1299.0},
    )


def fan(folder: Path) -> Case:
    arguments = fans(folder)
    return Case(
        lambda: FanActuator(domain="fan:0", **arguments),
        lambda: files(folder),
        {"fan_duty": 1.0},
        {"fan_duty": 0.0},
        {"fan_duty": 1.2},
    )


def simulated(folder: Path) -> Case:
    (folder / "gpu:0.json").write_text('{"clock_mhz": 1410.0, "power_limit_w": 650.0}')
    return Case(
        lambda: SimulatedActuator(domain="gpu:0", folder=folder),
        lambda: files(folder),
        {"clock_mhz": 1005.0},
        {"clock_mhz": 1980.0, "power_limit_w": 200.0},
        {"clock_mhz": 3000.0},
    )


def simulated_orin(folder: Path) -> Case:
    (folder / "gpu:0.json").write_text('{"clock_mhz": 918.0}')
    return Case(
        lambda: SimulatedOrinActuator(domain="gpu:0", folder=folder),
        lambda: files(folder),
        {"clock_mhz": 1300.5},
        {"clock_mhz": 306.0},
        {"clock_mhz": 1005.0},
    )


def simulated_fan(folder: Path) -> Case:
    (folder / "fan:0.json").write_text('{"fan_duty": 0.5}')
    return Case(
        lambda: SimulatedFanActuator(domain="fan:0", folder=folder),
        lambda: files(folder),
        {"fan_duty": 1.0},
        {"fan_duty": 0.0},
        {"fan_duty": 1.2},
    )


CASES: dict[str, Callable[[Path], Case]] = {
    "nvml_clock": nvml_clock,
    "nvml_power_limit": nvml_power_limit,
    "devfreq": jetson_clock,
    "fan": fan,
    "simulated": simulated,
    "simulated_orin": simulated_orin,
    "simulated_fan": simulated_fan,
}


def test_every_registered_actuator_is_in_this_suite() -> None:
    assert set(CASES) == set(ACTUATORS.names)


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Case:
    return CASES[request.param](tmp_path)


def test_looking_touches_nothing(case: Case) -> None:
    before = case.device()
    actuator = case.build()
    assert actuator.limits().allowed, actuator.limits().message
    assert actuator.original().mending
    actuator.read()
    assert case.device() == before


def test_what_was_set_is_read_back(case: Case) -> None:
    actuator = case.build()
    limits = actuator.limits()
    for wanted in (case.first, case.second, case.first):
        setting = check_setting(actuator.name, actuator.domain, limits, wanted)
        for found in (actuator.apply(setting), actuator.read(), case.build().read()):
            assert disagreements(limits, setting, found) == []
            assert all(found[quantity] is not None for quantity in setting)


def test_a_read_back_that_differs_is_told(case: Case) -> None:
    actuator = case.build()
    limits = actuator.limits()
    actuator.apply(case.first)
    quantity, value = next(iter(case.first.items()))
    other = {quantity: limits.ranges[quantity].minimum}
    assert value != other[quantity]
    assert len(disagreements(limits, other, actuator.read())) == 1
    assert disagreements(limits, other, {quantity: None}) == []


@pytest.mark.parametrize("order", ["first", "second"])
def test_another_process_puts_back_what_was_there(case: Case, order: str) -> None:
    before = case.device()
    actuator = case.build()
    found = actuator.original()
    actuator.apply(getattr(case, order))
    assert case.device() != before
    case.build().restore(Original(dict(found.state), found.mending))
    assert case.device() == before


def test_putting_back_is_idempotent(case: Case) -> None:
    before = case.device()
    actuator = case.build()
    original = actuator.original()
    actuator.restore(original)
    actuator.apply(case.first)
    actuator.apply(case.second)
    for _ in range(3):
        actuator.restore(original)
    assert case.device() == before
    actuator.apply(case.second)
    assert case.device() != before


def test_a_setting_that_the_device_does_not_have_is_refused(case: Case) -> None:
    before = case.device()
    actuator = case.build()
    limits = actuator.limits()
    quantity = next(iter(case.wrong))
    with pytest.raises(InvalidOptionError, match=quantity):
        check_setting(actuator.name, actuator.domain, limits, case.wrong)
    with pytest.raises(InvalidOptionError, match=f"does not set 'volume'.*{quantity}"):
        check_setting(actuator.name, actuator.domain, limits, {**case.first, "volume": 11.0})
    assert case.device() == before


def test_arguments_are_enough_to_build_it_again(case: Case) -> None:
    actuator = case.build()
    assert all(isinstance(value, str) for value in actuator.arguments.values())
    if not actuator.name.startswith("nvml"):  # theirs would be the machine's own library
        before = case.device()
        original = actuator.original()
        actuator.apply(case.first)
        ACTUATORS.create(actuator.name, domain=actuator.domain, **actuator.arguments).restore(original)
        assert case.device() == before


@pytest.mark.parametrize("name", CASES)
def test_a_machine_without_the_device_says_so(name: str, tmp_path: Path) -> None:
    nowhere = str(tmp_path / "nowhere")
    nvml = SettableNvml(starts=False)
    arguments: dict[str, dict[str, Any]] = {
        "nvml_clock": {"domain": "gpu:0", "nvml": nvml},
        "nvml_power_limit": {"domain": "gpu:0", "nvml": nvml},
        "devfreq": {"domain": "gpu:0", "root": nowhere},
        "fan": {"domain": "fan:0", "hwmon": nowhere, "jetpack4": nowhere},
    }
    if name not in arguments:
        pytest.skip("a simulated device is made when it is first set")
    actuator = ACTUATORS.create(name, **arguments[name])
    limits = actuator.limits()
    assert not limits.allowed and limits.message and not limits.ranges
    with pytest.raises(ActuatorUnavailableError, match="cannot be used"):
        check_setting(name, actuator.domain, limits, {"clock_mhz": 1005.0})
    with pytest.raises(ActuatorUnavailableError):
        actuator.original()
