"""The kernel's folders of other machines, built in a temporary folder."""

from collections.abc import Callable, Mapping
from pathlib import Path

AGX_ORIN = {
    "hwmon3": {"VDD_GPU_SOC": (20_000, 500), "VDD_CPU_CV": (20_000, 250), "VIN_SYS_5V0": (5_000, 800)},
    "hwmon4": {"NC": (0, 0), "VDDQ_VDD2_1V8AO": (5_000, 200)},
}
"""Chip -> label -> millivolts and milliamperes: 10 W, 5 W, 4 W and 1 W."""

ORIN_NANO = {"hwmon1": {"VDD_IN": (5_000, 2_000), "VDD_CPU_GPU_CV": (5_000, 600), "VDD_SOC": (5_000, 400)}}
"""10 W, of which 3 W and 2 W."""


def powercap(folder: Path, energy_uj: Callable[[], int] = lambda: 5_000_000) -> Path:
    """A desktop's tree: one package with cores and DRAM, psys, and the same package again through mmio."""
    zones = {
        "intel-rapl:0": "package-0",
        "intel-rapl:0:0": "core",
        "intel-rapl:0:1": "dram",
        "intel-rapl:1": "psys",
        "intel-rapl-mmio:0": "package-0",
    }
    for zone, name in zones.items():
        put(folder / zone / "name", name)
        put(folder / zone / "max_energy_range_uj", 262143328850)
        put(folder / zone / "energy_uj", energy_uj())
    return folder


def ina3221(hwmon: Path, chips: Mapping[str, Mapping[str, tuple[int, int]]]) -> Path:
    """Power monitors as the kernel's driver shows them, with the sums that are no rails.

    Args:
        hwmon: the folder to make.
        chips: as `AGX_ORIN`.
    """
    for chip, rails in chips.items():
        put(hwmon / chip / "name", "ina3221")
        for n, (label, (millivolts, milliamperes)) in enumerate(rails.items(), start=1):
            put(hwmon / chip / f"in{n}_label", label)
            put(hwmon / chip / f"in{n}_enable", 1)
            put(hwmon / chip / f"in{n}_input", millivolts)
            put(hwmon / chip / f"curr{n}_input", milliamperes)
        put(hwmon / chip / "in7_label", "sum of shunt voltages")
        put(hwmon / chip / "in7_input", 1234)
        put(hwmon / chip / "curr4_input", 999)
    return hwmon


def jetson(folder: Path, chips: Mapping[str, Mapping[str, tuple[int, int]]] = AGX_ORIN) -> dict[str, Path | list[Path]]:
    """A Jetson's folders, as the arguments of `JetsonMeter`."""
    hwmon = ina3221(folder / "hwmon", chips)
    put(hwmon / "hwmon0" / "name", "pwm_tach")
    put(hwmon / "hwmon0" / "rpm", 1800)
    for i, (kind, millidegrees) in enumerate(
        {"cpu-thermal": 47500, "gpu-thermal": 45000, "cv0-thermal": -256000}.items()
    ):
        put(folder / "thermal" / f"thermal_zone{i}" / "type", kind)
        put(folder / "thermal" / f"thermal_zone{i}" / "temp", millidegrees)
    put(folder / "devfreq" / "17000000.gpu" / "cur_freq", 1_300_500_000)
    put(folder / "devfreq" / "15340000.vic" / "cur_freq", 729_600_000)
    put(folder / "gpu.0" / "load", 853)
    put(folder / "meminfo", "MemTotal:       7990272 kB\nMemFree:         123456 kB\nMemAvailable:   3990272 kB")
    return {
        "hwmon": hwmon,
        "iio": folder / "none",
        "thermal": folder / "thermal",
        "devfreq": folder / "devfreq",
        "gpu_load": [folder / "platform" / "gpu.0" / "load", folder / "gpu.0" / "load"],
        "meminfo": folder / "meminfo",
    }


def put(path: Path, value: str | int) -> Path:
    """Write a one-value file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{value}\n")
    return path
