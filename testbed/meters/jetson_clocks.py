"""Whether a Jetson's clocks are held at their highest, as `jetson_clocks` does; read from the kernel's files.

The tool itself (`jetson_clocks --show`) needs root and prints for people; what it sets is readable by anybody.
"""

from pathlib import Path

from testbed.meters.sysfs import gpu_devices, is_readable, read_number

UNKNOWN = "unknown"
HELD = "held at the highest clock, as jetson_clocks does"
FREE = "free"


def clocks_state(devfreq: Path, cpufreq: Path) -> str:
    """GPU and processors, in words: `gpu free, cpu held at the highest clock, as jetson_clocks does`.

    Args:
        devfreq: the kernel's devfreq folder.
        cpufreq: the kernel's folder of the processors' clocks.
    """
    gpus = [_is_held(each / "min_freq", each / "max_freq", _highest(each)) for each in gpu_devices(devfreq)]
    policies = sorted(cpufreq.glob("policy*"))
    cpus = [
        _is_held(each / "scaling_min_freq", each / "scaling_max_freq", _number(each / "cpuinfo_max_freq"))
        for each in policies
    ]
    return f"gpu {_word(gpus)}, cpu {_word(cpus)}"


def _word(held: list[bool | None]) -> str:
    if not held or None in held:
        return UNKNOWN
    return HELD if all(held) else FREE if not any(held) else "partly held at the highest clock"


def _is_held(lowest: Path, highest: Path, most: float | None) -> bool | None:
    """Lowest and highest alike, and nothing above; None where a file does not tell."""
    low, high = _number(lowest), _number(highest)
    if low is None or high is None:
        return None
    return low == high and (most is None or high >= most)


def _highest(device: Path) -> float | None:
    file = device / "available_frequencies"
    steps = [float(each) for each in file.read_text().split() if each.isdigit()] if file.is_file() else []
    return max(steps, default=None)


def _number(file: Path) -> float | None:
    return read_number(file) if is_readable(lambda: read_number(file)) else None
