"""What is particular to each actuator: permissions, MIG, the order of writes, moved cards, fans of others."""

from pathlib import Path

import pytest

from contract.errors import ActuatorError, ActuatorUnavailableError, InvalidOptionError
from testbed.actuators import devfreq_actuator
from testbed.actuators.base import DeviceGoneError, check_setting, disagreements
from testbed.actuators.devfreq_actuator import DevfreqActuator
from testbed.actuators.fan_actuator import FanActuator
from testbed.actuators.nvml_clock_actuator import NvmlClockActuator
from testbed.actuators.nvml_device import may_administer
from testbed.actuators.nvml_power_limit_actuator import NvmlPowerLimitActuator
from testbed.actuators.sysfs_file import write_value
from tests.testbed.actuator_double import ORIN_HZ, SettableGpu, SettableNvml, devfreq, fans, files
from tests.testbed.sysfs_double import put

NVML = [NvmlClockActuator, NvmlPowerLimitActuator]


def yes() -> bool:
    return True


class TestNvml:
    @pytest.mark.parametrize("actuator", NVML)
    def test_without_permission_nothing_is_touched(self, actuator: type[NvmlClockActuator]) -> None:
        nvml = SettableNvml()
        limits = actuator(domain="gpu:0", nvml=nvml, is_allowed=lambda: False).limits()
        assert not limits.allowed
        assert "CAP_SYS_ADMIN" in limits.message and "sudo nvidia-smi -i 0" in limits.message
        assert nvml.settable[0].settings == []

    @pytest.mark.parametrize("actuator", NVML)
    def test_a_gpu_in_instances_is_not_touched(self, actuator: type[NvmlClockActuator]) -> None:
        nvml = SettableNvml([SettableGpu(is_mig=True)])
        limits = actuator(domain="gpu:0", nvml=nvml, is_allowed=yes).limits()
        assert not limits.allowed
        assert "MIG" in limits.message and "-mig 0" in limits.message
        assert nvml.settable[0].settings == []

    @pytest.mark.parametrize("actuator", NVML)
    def test_a_gpu_that_cannot_be_set_says_so(self, actuator: type[NvmlClockActuator]) -> None:
        refused = frozenset(
            {
                "nvmlDeviceGetSupportedMemoryClocks",
                "nvmlDeviceGetPowerManagementLimitConstraints",
                "nvmlDeviceGetMigMode",
            }
        )
        nvml = SettableNvml([SettableGpu(refuses=refused)])
        limits = actuator(domain="gpu:0", nvml=nvml, is_allowed=yes).limits()
        assert not limits.allowed and "cannot be set" in limits.message

    @pytest.mark.parametrize("actuator", NVML)
    def test_the_driver_has_the_last_word(self, actuator: type[NvmlClockActuator]) -> None:
        # Root of a user namespace has all capabilities, and may do nothing.
        nvml = SettableNvml([SettableGpu(is_forbidden=True)])
        built = actuator(domain="gpu:0", nvml=nvml, is_allowed=yes)
        with pytest.raises(ActuatorUnavailableError, match=r"Insufficient Permissions.*--cap-add=SYS_ADMIN"):
            built.apply({"clock_mhz": 1005.0, "power_limit_w": 300.0})
        assert nvml.n_open == 0

    @pytest.mark.parametrize("actuator", NVML)
    @pytest.mark.parametrize("domain", ["gpu", "gpu:-1", "gpu:0/../1", "cpu:0"])
    def test_a_domain_that_is_no_gpu_is_refused(self, actuator: type[NvmlClockActuator], domain: str) -> None:
        with pytest.raises(InvalidOptionError, match="gpu:0"):
            actuator(domain=domain, nvml=SettableNvml())

    @pytest.mark.parametrize("actuator", NVML)
    def test_a_card_is_found_again_when_it_was_moved(self, actuator: type[NvmlClockActuator]) -> None:
        nvml = SettableNvml([SettableGpu(limit_mw=600_000), SettableGpu(limit_mw=500_000)])
        built = actuator(domain="gpu:0", nvml=nvml, is_allowed=yes)
        original = built.original()
        built.apply({"clock_mhz": 1005.0, "power_limit_w": 300.0})
        first = nvml.settable[0]
        uuids = {id(gpu): nvml.nvmlDeviceGetUUID(gpu) for gpu in nvml.settable}
        nvml.nvmlDeviceGetUUID = lambda gpu: uuids[id(gpu)]  # type: ignore[method-assign]
        nvml.gpus.reverse()
        built.restore(original)
        assert (first.locked_mhz, first.limit_mw) == (None, 600_000)
        assert nvml.settable[1].settings == []
        nvml.gpus.remove(first)
        with pytest.raises(DeviceGoneError, match="nvidia-smi -L"):
            built.restore(original)

    def test_steps_are_those_at_the_highest_memory_clock(self) -> None:
        limits = NvmlClockActuator(domain="gpu:0", nvml=SettableNvml(), is_allowed=yes).limits()
        known = limits.ranges["clock_mhz"]
        assert (known.minimum, known.maximum, len(known.steps)) == (345.0, 1980.0, 110)
        with pytest.raises(InvalidOptionError, match="990 or 1005"):
            check_setting("nvml_clock", "gpu:0", limits, {"clock_mhz": 1000.0})

    def test_an_idle_gpu_does_not_tell_its_clock(self) -> None:
        gpu = SettableGpu(is_idle=True)
        actuator = NvmlClockActuator(domain="gpu:0", nvml=SettableNvml([gpu]), is_allowed=yes)
        assert actuator.apply({"clock_mhz": 1005.0}) == {"clock_mhz": None}
        gpu.is_idle = False
        assert actuator.read() == {"clock_mhz": 1005.0}
        gpu.is_stubborn = True
        assert disagreements(actuator.limits(), {"clock_mhz": 1005.0}, actuator.read())

    def test_a_driver_that_does_not_tell_whether_it_is_idle(self) -> None:
        class OldNvml(SettableNvml):
            def nvmlDeviceGetCurrentClocksEventReasons(self, gpu: SettableGpu) -> int:
                raise self.NVMLError_NotSupported("Not Supported")

        gpu = SettableGpu(refuses=frozenset({"nvmlDeviceGetCurrentClocksThrottleReasons"}))
        actuator = NvmlClockActuator(domain="gpu:0", nvml=OldNvml([gpu]), is_allowed=yes)
        assert actuator.apply({"clock_mhz": 1005.0}) == {"clock_mhz": None}

    def test_the_limit_that_was_found_is_put_back_not_the_default(self) -> None:
        gpu = SettableGpu(limit_mw=512_000)
        actuator = NvmlPowerLimitActuator(domain="gpu:0", nvml=SettableNvml([gpu]), is_allowed=yes)
        original = actuator.original()
        assert original.mending == "sudo nvidia-smi -i 0 -pl 512"
        actuator.apply({"power_limit_w": 300.0})
        actuator.restore(original)
        assert gpu.settings == [("limit", 300_000), ("limit", 512_000)]

    @pytest.mark.parametrize(("mask", "expected"), [("000001ffffffffff", True), ("00000000a80425fb", False)])
    def test_the_capability_is_read_from_the_kernel(self, tmp_path: Path, mask: str, expected: bool) -> None:
        # The second is that of root in a Docker container.
        status = put(tmp_path / "status", f"CapPrm:\t0000000000000000\nCapEff:\t{mask}\nCapBnd:\t000001ffffffffff")
        assert may_administer(status) is expected
        assert may_administer(tmp_path / "none") is False


class TestDevfreq:
    @pytest.mark.parametrize("start", [(306.0, 1300.5), (306.0, 306.0), (1300.5, 1300.5), (510.0, 918.0)])
    @pytest.mark.parametrize(
        "end", [(306.0, 1300.5), (306.0, 306.0), (1300.5, 1300.5), (408.0, 510.0), (918.0, 1020.0)]
    )
    def test_the_lowest_is_never_above_the_highest(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: tuple[float, float], end: tuple[float, float]
    ) -> None:
        root = devfreq(tmp_path)
        gpu = root / "17000000.gpu"

        def strict(path: Path, value: int) -> None:
            """A kernel that refuses what crosses."""
            write_value(path, value)
            if int((gpu / "min_freq").read_text()) > int((gpu / "max_freq").read_text()):
                raise ActuatorError(f"{path.name} = {value}: Invalid argument")

        monkeypatch.setattr(devfreq_actuator, "write_value", strict)
        actuator = DevfreqActuator(domain="gpu:0", root=root)
        for lowest_mhz, highest_mhz in (start, end):
            actuator.apply({"min_clock_mhz": lowest_mhz, "max_clock_mhz": highest_mhz})
        found = actuator.read()
        assert (found["min_clock_mhz"], found["max_clock_mhz"]) == end
        assert ("clock_mhz" in found) == (end[0] == end[1])

    def test_a_setting_is_one_clock_or_two_ends(self, tmp_path: Path) -> None:
        actuator = DevfreqActuator(domain="gpu:0", root=devfreq(tmp_path))
        before = files(tmp_path)
        with pytest.raises(InvalidOptionError, match="max_clock_mhz and min_clock_mhz"):
            check_setting("devfreq", "gpu:0", actuator.limits(), {"min_clock_mhz": 306.0})
        with pytest.raises(InvalidOptionError, match="above"):
            actuator.apply({"min_clock_mhz": 918.0, "max_clock_mhz": 306.0})
        assert files(tmp_path) == before

    def test_steps_are_the_devices(self, tmp_path: Path) -> None:
        limits = DevfreqActuator(domain="gpu:0", root=devfreq(tmp_path)).limits()
        assert limits.ranges["clock_mhz"].steps == tuple(hz / 1e6 for hz in ORIN_HZ)
        assert check_setting("devfreq", "gpu:0", limits, {"clock_mhz": 1300.0}) == {"clock_mhz": 1300.5}

    def test_a_device_may_be_named(self, tmp_path: Path) -> None:
        named = DevfreqActuator(domain="17000000.gpu", root=devfreq(tmp_path))
        named.apply({"clock_mhz": 510.0})
        assert DevfreqActuator(domain="gpu:0", root=tmp_path).read()["clock_mhz"] == 510.0
        outside = DevfreqActuator(domain="..", root=tmp_path)
        assert not outside.limits().allowed

    def test_a_file_that_nobody_may_write_is_not_touched(self, tmp_path: Path) -> None:
        root = devfreq(tmp_path)
        (root / "17000000.gpu" / "max_freq").chmod(0o444)
        limits = DevfreqActuator(domain="gpu:0", root=root).limits()
        assert not limits.allowed and "max_freq is read-only" in limits.message

    def test_a_device_that_vanished_cannot_be_put_back(self, tmp_path: Path) -> None:
        root = devfreq(tmp_path)
        actuator = DevfreqActuator(domain="gpu:0", root=root)
        original = actuator.original()
        (root / "17000000.gpu").rename(tmp_path / "elsewhere")
        with pytest.raises(DeviceGoneError, match=r"17000000\.gpu"):
            actuator.restore(original)


class TestFan:
    def test_the_kernel_gets_its_fan_back(self, tmp_path: Path) -> None:
        actuator = FanActuator(domain="fan:0", **fans(tmp_path))
        chip = tmp_path / "hwmon" / "hwmon2"
        original = actuator.original()
        actuator.apply({"fan_duty": 0.0})
        assert ((chip / "pwm1").read_text(), (chip / "pwm1_enable").read_text()) == ("0\n", "1\n")
        actuator.restore(original)
        assert ((chip / "pwm1").read_text(), (chip / "pwm1_enable").read_text()) == ("85\n", "2\n")

    def test_a_duty_that_a_person_had_set_is_put_back(self, tmp_path: Path) -> None:
        arguments = fans(tmp_path)
        chip = tmp_path / "hwmon" / "hwmon2"
        put(chip / "pwm1_enable", 1)
        actuator = FanActuator(domain="fan:0", **arguments)
        original = actuator.original()
        actuator.apply({"fan_duty": 1.0})
        actuator.restore(original)
        assert ((chip / "pwm1").read_text(), (chip / "pwm1_enable").read_text()) == ("85\n", "1\n")

    def test_a_chip_that_got_another_number_is_found(self, tmp_path: Path) -> None:
        arguments = fans(tmp_path)
        actuator = FanActuator(domain="fan:0", **arguments)
        original = actuator.original()
        actuator.apply({"fan_duty": 1.0})
        (tmp_path / "hwmon" / "hwmon2").rename(tmp_path / "hwmon" / "hwmon7")
        actuator.restore(original)
        assert (tmp_path / "hwmon" / "hwmon7" / "pwm1").read_text() == "85\n"

    def test_the_older_files_of_a_jetson(self, tmp_path: Path) -> None:
        put(tmp_path / "pwm-fan" / "target_pwm", 120)
        put(tmp_path / "pwm-fan" / "temp_control", 1)
        before = files(tmp_path)
        actuator = FanActuator(domain="fan:0", hwmon=tmp_path / "none", jetpack4=tmp_path / "pwm-fan")
        original = actuator.original()
        assert actuator.apply({"fan_duty": 1.0}) == {"fan_duty": 1.0}
        assert (tmp_path / "pwm-fan" / "temp_control").read_text() == "0\n"
        actuator.restore(original)
        assert files(tmp_path) == before

    def test_a_daemon_that_sets_it_too_shows_in_the_read_back(self, tmp_path: Path) -> None:
        actuator = FanActuator(domain="fan:0", **fans(tmp_path))
        actuator.apply({"fan_duty": 1.0})
        put(tmp_path / "hwmon" / "hwmon2" / "pwm1", 100)
        assert disagreements(actuator.limits(), {"fan_duty": 1.0}, actuator.read())


class TestSysfsFile:
    def test_a_value_that_the_kernel_refuses_is_told_with_the_command(self, tmp_path: Path) -> None:
        with pytest.raises(ActuatorError, match="sudo tee"):
            write_value(tmp_path, 1)

    def test_a_read_only_file_system_is_no_half_setting(self) -> None:
        path = Path("/proc/sys/kernel/random/boot_id")  # read-only for root as well
        with pytest.raises(ActuatorUnavailableError) as caught:
            write_value(path, 1)
        assert str(path) in caught.value.message
