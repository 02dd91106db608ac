"""A clock for each phase and a fan that stops, on a Jetson's files: set, read back, put back; and what is refused."""

from pathlib import Path

import pytest

from contract.errors import ActuatorUnavailableError, InvalidOptionError
from testbed.actuators.devfreq_actuator import DevfreqActuator
from testbed.actuators.fan_actuator import FanActuator
from testbed.device_settings import DeviceSettings, Wanted
from testbed.edge_control.phase_dial import PhaseDial
from testbed.restore_ledger import RestoreLedger
from testbed.simulation.orin_grid import CLOCKS_MHZ
from testbed.simulation.simulated_clock import SimulatedClock


class NoGuard:
    def dismiss(self) -> None:
        pass


class Orin:
    """The files of an AGX Orin's GPU clock and fan."""

    def __init__(self, root: Path) -> None:
        self.devfreq, self.hwmon = root / "devfreq", root / "hwmon"
        self.gpu, self.fan = self.devfreq / "17000000.gpu", self.hwmon / "hwmon3"
        for folder in (self.gpu, self.fan):
            folder.mkdir(parents=True)
        hertz = [str(round(each * 1e6)) for each in CLOCKS_MHZ]
        self.original = {
            self.gpu / "available_frequencies": " ".join(hertz),
            self.gpu / "min_freq": hertz[0],
            self.gpu / "max_freq": hertz[-1],
            self.gpu / "cur_freq": hertz[0],
            self.fan / "name": "pwmfan",
            self.fan / "pwm1": "60",
            self.fan / "pwm1_enable": "2",
        }
        for path, text in self.original.items():
            path.write_text(text)

    def read(self) -> dict[Path, str]:
        return {path: path.read_text().strip() for path in self.original}

    @property
    def clock_mhz(self) -> tuple[float, float]:
        low, high = (float((self.gpu / name).read_text()) / 1e6 for name in ("min_freq", "max_freq"))
        return low, high

    def settings(self, folder: Path, *, with_fan: bool = True) -> DeviceSettings:
        clock = DevfreqActuator(domain="gpu:0", root=self.devfreq)
        fan = FanActuator(domain="fan:0", hwmon=self.hwmon, jetpack4=folder / "none")
        wanted = [Wanted(clock, {"clock_mhz": 1300.5})] + ([Wanted(fan, {"fan_duty": 1.0})] if with_fan else [])
        return DeviceSettings(wanted, RestoreLedger(folder / "ledger"), SimulatedClock(), guard=lambda _: NoGuard())


@pytest.fixture
def orin(tmp_path: Path) -> Orin:
    return Orin(tmp_path / "sys")


def dial_of(settings: DeviceSettings) -> PhaseDial:
    return PhaseDial(settings.dial("gpu:0"), CLOCKS_MHZ, SimulatedClock())


def test_each_phase_has_its_clock_and_the_board_is_put_back(orin: Orin, tmp_path: Path) -> None:
    settings = orin.settings(tmp_path)
    assert settings.apply() == []
    dial = dial_of(settings)
    seen = []
    for prefill, decode in ((10, 2), (10, 2), (0, 0)):
        for bin_ in (prefill, decode):
            dial.turn(bin_)
            seen.append(orin.clock_mhz)
    assert seen == [(CLOCKS_MHZ[bin_],) * 2 for bin_ in (10, 2, 10, 2, 0, 0)]
    # It began at the highest clock, and the last decode has its prefill's.
    assert dial.n_switches == 4
    fan = settings.fan("fan:0")
    assert fan.is_on
    fan.turn(is_on=False)
    assert not fan.is_on and (orin.fan / "pwm1").read_text().strip() == "0"
    assert settings.read_back() == []
    assert settings.restore() == []
    assert orin.read() == orin.original
    assert [taken.at_end for taken in settings.taken] == [{"clock_mhz": 306.0}, {"fan_duty": 0.0}]


def test_a_fan_that_runs_again_has_its_first_duty(orin: Orin, tmp_path: Path) -> None:
    settings = orin.settings(tmp_path)
    settings.apply()
    fan = settings.fan("fan:0")
    fan.turn(is_on=False)
    fan.turn(is_on=True)
    assert fan.is_on and (orin.fan / "pwm1").read_text().strip() == "255"
    settings.restore()
    assert orin.read() == orin.original


@pytest.mark.parametrize("bin_", [-1, 11])
def test_a_bin_that_does_not_exist_is_refused_and_nothing_is_set(orin: Orin, tmp_path: Path, bin_: int) -> None:
    settings = orin.settings(tmp_path)
    settings.apply()
    with pytest.raises(InvalidOptionError, match=r"0 to 10, 306 to 1300\.5 MHz"):
        dial_of(settings).turn(bin_)
    assert orin.clock_mhz == (1300.5, 1300.5)
    settings.restore()
    assert orin.read() == orin.original


def test_a_clock_that_this_device_has_not_is_refused(orin: Orin, tmp_path: Path) -> None:
    settings = orin.settings(tmp_path)
    settings.apply()
    dial = PhaseDial(settings.dial("gpu:0"), (300.0, 1300.5), SimulatedClock())
    with pytest.raises(InvalidOptionError, match="The nearest: 306 or 408"):
        dial.turn(0)
    settings.restore()
    assert orin.read() == orin.original


def test_what_holds_no_clock_or_fan_gives_no_dial(orin: Orin, tmp_path: Path) -> None:
    settings = orin.settings(tmp_path, with_fan=False)
    settings.apply()
    with pytest.raises(InvalidOptionError, match="fan_duty of fan:0"):
        settings.fan("fan:0")
    with pytest.raises(InvalidOptionError, match="clock_mhz of gpu:1"):
        settings.dial("gpu:1")
    settings.restore()


def test_a_missing_fan_is_told_before_anything_is_set(orin: Orin, tmp_path: Path) -> None:
    for path in (orin.fan / "pwm1", orin.fan / "pwm1_enable"):
        path.unlink()
    settings = orin.settings(tmp_path)
    with pytest.raises(ActuatorUnavailableError, match="no fan:0"):
        settings.apply()
    settings.restore()
    assert orin.clock_mhz == (306.0, 1300.5)


def test_a_clock_that_became_read_only_between_phases_ends_with_the_way_to_mend_it(
    orin: Orin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = orin.settings(tmp_path)
    settings.apply()
    dial = dial_of(settings)

    def refuse(path: Path, value: int) -> None:
        raise ActuatorUnavailableError(f"{path} may not be written. Run as root.")

    with monkeypatch.context() as patched:
        patched.setattr("testbed.actuators.devfreq_actuator.write_value", refuse)
        with pytest.raises(ActuatorUnavailableError, match="Run as root"):
            dial.turn(3)
    assert settings.restore() == []
    assert orin.read() == orin.original
