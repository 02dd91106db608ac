"""Trees of Jetson boards under /sys, written by hand after what NVIDIA and the kernel document: names as they are on
the boards, values made up but plausible.

Sources: Jetson Linux Developer Guide, "Power Monitor" tables (rails, channels and i2c addresses of each board); the
kernel's ina3221 and ina3221x drivers (file names and units); arch/arm64/boot/dts/nvidia/tegra*.dtsi.
"""

from collections.abc import Mapping
from pathlib import Path

from tests.testbed.sysfs_double import put

Rails = Mapping[str, tuple[int, int]]
"""Label -> millivolts and milliamperes; `NC` is a channel that is not connected."""


def broken(path: Path) -> Path:
    """A file that is there and cannot be read, also by root: the kernel's EIO, as a folder's EISDIR."""
    path.unlink(missing_ok=True)
    path.mkdir(parents=True)
    return path


def hwmon_chip(hwmon: Path, number: int, rails: Rails) -> Path:
    """A power monitor of the mainline driver (JetPack 5 and newer)."""
    chip = hwmon / f"hwmon{number}"
    put(chip / "name", "ina3221")
    put(chip / "in7_label", "sum of shunt voltages")
    put(chip / "in7_input", 12)
    for n, (label, (millivolts, milliamperes)) in enumerate(rails.items(), start=1):
        put(chip / f"in{n}_label", label)
        put(chip / f"in{n}_enable", 1)
        put(chip / f"in{n}_input", millivolts)
        put(chip / f"curr{n}_input", milliamperes)
        put(chip / f"in{n + 3}_input", 1)
    return chip


def iio_chip(root: Path, address: str, number: int, rails: Rails) -> Path:
    """A power monitor of NVIDIA's older driver ina3221x (JetPack 4 and older), which counts from 0."""
    device = root / address / f"iio:device{number}"
    for n, (label, (millivolts, milliamperes)) in enumerate(rails.items()):
        put(device / f"rail_name_{n}", label)
        put(device / f"in_voltage{n}_input", millivolts)
        put(device / f"in_current{n}_input", milliamperes)
        put(device / f"in_power{n}_input", millivolts * milliamperes // 1000)
    return device


def zones(thermal: Path, temps: Mapping[str, int]) -> None:
    """Thermal zones, in thousandths of a degree."""
    for i, (kind, millidegrees) in enumerate(temps.items()):
        put(thermal / f"thermal_zone{i}" / "type", kind)
        put(thermal / f"thermal_zone{i}" / "temp", millidegrees)


def arguments(folder: Path) -> dict[str, Path | list[Path]]:
    """A tree's folders, as the arguments of `JetsonMeter`."""
    return {
        "hwmon": folder / "class/hwmon",
        "iio": folder / "bus/i2c/drivers/ina3221x",
        "thermal": folder / "class/thermal",
        "devfreq": folder / "class/devfreq",
        "gpu_load": [folder / "devices/gpu.0/load", folder / "devices/platform/gpu.0/load"],
        "meminfo": folder / "meminfo",
    }


def agx_orin(folder: Path) -> None:
    """AGX Orin, JetPack 5: two monitors at 0x40 and 0x41; of the second two channels are not connected, and read as
    errors; the zones of engines that are off do, too.
    """
    hwmon = folder / "class/hwmon"
    hwmon_chip(hwmon, 3, {"VDD_GPU_SOC": (19_920, 240), "VDD_CPU_CV": (19_920, 40), "VIN_SYS_5V0": (4_968, 880)})
    second = hwmon_chip(hwmon, 4, {"NC": (0, 0), "VDDQ_VDD2_1V8AO": (19_912, 24), "NC ": (0, 0)})
    for n in (1, 3):
        broken(second / f"in{n}_input")
        broken(second / f"curr{n}_input")
    put(hwmon / "hwmon0" / "name", "tmp451")
    put(hwmon / "hwmon1" / "name", "pwm_tach")
    put(hwmon / "hwmon1" / "rpm", 1_270)
    zones(folder / "class/thermal", {"CPU-therm": 48_500, "SOC0-therm": 45_812, "tj-therm": 48_500})
    put(folder / "class/thermal/thermal_zone3/type", "GPU-therm")
    broken(folder / "class/thermal/thermal_zone3/temp")
    put(folder / "class/devfreq/17000000.ga10b/cur_freq", 1_300_500_000)
    put(folder / "devices/platform/gpu.0/load", 997)
    put(folder / "meminfo", "MemTotal:       31268480 kB\nMemAvailable:   21268480 kB")


def orin_nano(folder: Path) -> None:
    """Orin Nano, JetPack 6: one monitor, with the whole module's input."""
    rails = {"VDD_IN": (5_032, 1_024), "VDD_CPU_GPU_CV": (5_024, 200), "VDD_SOC": (5_024, 296)}
    hwmon_chip(folder / "class/hwmon", 1, rails)
    zones(folder / "class/thermal", {"cpu-thermal": 49_281, "gpu-thermal": 49_437, "cv0-thermal": -256_000})
    put(folder / "class/devfreq/17000000.gpu/cur_freq", 624_750_000)
    put(folder / "class/devfreq/17000000.gpu/device/load", 412)
    put(folder / "meminfo", "MemTotal:        7802840 kB\nMemAvailable:    5802840 kB")


def agx_xavier(folder: Path) -> None:
    """AGX Xavier, JetPack 5: two monitors at 0x40 and 0x41, six rails, none of the whole module."""
    hwmon = folder / "class/hwmon"
    hwmon_chip(hwmon, 2, {"GPU": (19_112, 80), "CPU": (19_112, 40), "SOC": (19_104, 88)})
    hwmon_chip(hwmon, 3, {"CV": (19_144, 0), "VDDRQ": (19_136, 16), "SYS5V": (19_120, 96)})
    zones(folder / "class/thermal", {"CPU-therm": 37_000, "GPU-therm": 36_500, "PMIC-Die": 100_000})
    put(folder / "class/devfreq/17000000.gv11b/cur_freq", 1_377_000_000)
    put(folder / "devices/gpu.0/load", 880)
    put(folder / "meminfo", "MemTotal:       32693248 kB\nMemAvailable:   22693248 kB")


def tx2(folder: Path) -> None:
    """TX2, JetPack 4: two monitors of the older driver; the whole module's input is on the second."""
    iio = folder / "bus/i2c/drivers/ina3221x"
    iio_chip(iio, "0-0040", 0, {"VDD_SYS_GPU": (19_168, 96), "VDD_SYS_SOC": (19_168, 40), "VDD_4V0_WIFI": (4_800, 12)})
    iio_chip(iio, "0-0041", 1, {"VDD_IN": (19_152, 400), "VDD_SYS_CPU": (19_160, 64), "VDD_SYS_DDR": (19_160, 72)})
    zones(folder / "class/thermal", {"BCPU-therm": 44_000, "MCPU-therm": 44_000, "GPU-therm": 43_500})
    put(folder / "class/devfreq/17000000.gp10b/cur_freq", 1_300_500_000)
    put(folder / "devices/gpu.0/load", 731)
    put(folder / "meminfo", "MemTotal:        8050560 kB\nMemAvailable:    4050560 kB")


def nano(folder: Path) -> None:
    """Nano, JetPack 4: one monitor of the older driver."""
    rails = {"POM_5V_IN": (5_160, 600), "POM_5V_GPU": (5_160, 120), "POM_5V_CPU": (5_160, 180)}
    iio_chip(folder / "bus/i2c/drivers/ina3221x", "6-0040", 0, rails)
    zones(folder / "class/thermal", {"CPU-therm": 33_500, "GPU-therm": 31_000, "PLL-therm": 30_500})
    put(folder / "class/devfreq/57000000.gpu/cur_freq", 921_600_000)
    put(folder / "devices/gpu.0/load", 990)
    put(folder / "meminfo", "MemTotal:        4059328 kB\nMemAvailable:    1059328 kB")
