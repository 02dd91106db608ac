"""A clock that a policy moves while requests are served: held, read back and put back like any other setting."""

from pathlib import Path

import pytest

from contract.errors import ActuatorError, InvalidOptionError
from testbed.actuators.nvml_clock_actuator import NvmlClockActuator
from testbed.device_settings import DeviceSettings, Wanted
from testbed.restore_ledger import RestoreLedger
from tests.testbed.actuator_double import SettableGpu, SettableNvml
from tests.testbed.test_device_settings import FOUND, Bench, Guard


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def applied(bench: Bench) -> DeviceSettings:
    settings = bench.settings(bench.simulated(1410.0))
    settings.check()
    assert settings.apply() == []
    return settings


def test_the_last_clock_is_held_at_the_end_and_the_first_of_all_is_put_back(bench: Bench) -> None:
    settings = applied(bench)
    settled: list[float] = []
    dial = settings.dial("gpu:0", lambda: settled.append(bench.device()["clock_mhz"]))
    assert dial.clock_mhz == 1410.0
    for clock_mhz in (705.0, 1050.0):
        dial.turn(clock_mhz)
        assert dial.clock_mhz == bench.device()["clock_mhz"] == clock_mhz
    assert settled == [705.0, 1050.0]
    assert settings.read_back() == []
    assert settings.taken[0].at_end == {"clock_mhz": 1050.0}
    assert settings.taken[0].wanted == {"clock_mhz": 1410.0}
    assert settings.restore() == [] and bench.device() == FOUND and not bench.entries


def test_a_clock_that_somebody_else_changed_is_told(bench: Bench) -> None:
    settings = applied(bench)
    settings.dial("gpu:0").turn(705.0)
    bench.change(clock_mhz=900.0)
    (reason,) = settings.read_back()
    assert reason.code == "setting_not_held" and "705" in reason.message and "900" in reason.message


def test_a_clock_that_the_device_does_not_have_changes_nothing(bench: Bench) -> None:
    settings = applied(bench)
    with pytest.raises(InvalidOptionError, match="no such step"):
        settings.dial("gpu:0").turn(706.0)
    assert bench.device()["clock_mhz"] == 1410.0
    with pytest.raises(InvalidOptionError, match="gpu:1"):
        settings.dial("gpu:1")


def test_a_device_that_refuses_is_put_back_all_the_same(bench: Bench) -> None:
    settings = applied(bench)
    dial = settings.dial("gpu:0")
    bench.change(refuses="busy")
    with pytest.raises(ActuatorError, match="busy"):
        dial.turn(705.0)
    assert bench.entries
    bench.change(refuses="")
    assert settings.restore() == [] and bench.device()["clock_mhz"] == FOUND["clock_mhz"]


def test_a_locked_gpu_clock_is_moved_and_unlocked(bench: Bench) -> None:
    gpu = SettableGpu(is_idle=True)
    actuator = NvmlClockActuator(domain="gpu:0", nvml=SettableNvml([gpu]), is_allowed=lambda: True)
    ledger = RestoreLedger(bench.folder / "restore", lambda name, domain, arguments: actuator)
    wanted = [Wanted(actuator, {"clock_mhz": 1410.0})]
    settings = DeviceSettings(wanted, ledger, bench.clock, lambda _: Guard(bench.story))
    settings.apply()
    before_ns = bench.clock.monotonic_ns()
    settings.dial("gpu:0").turn(1005.0)
    # An idle GPU does not tell its clock: nothing is waited for, or a policy would lose a second at each switch.
    assert bench.clock.monotonic_ns() == before_ns and gpu.locked_mhz == 1005
    assert settings.restore() == []
    assert gpu.settings == [("lock", 1410, 1410), ("lock", 1005, 1005), ("unlock",)]
