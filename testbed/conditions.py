"""How hot a device became, what memory was taken, whether it was slowed down: from thermometer, gauges and kernel."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from contract.trial_result import Conditions, Phase
from energy.device_rules import THROTTLE_REASONS
from energy.trace import FloatArray, Gauge, Quantity
from testbed.attempt_folder import ChildRecord

SYSTEM_MEMORY = "ram"
"""Domain of the machine's own memory among the gauges; a Jetson's GPU has no other."""


def resident_peak_bytes(status: Path = Path("/proc/self/status")) -> int | None:
    """Most memory that this process was resident with so far; None where the kernel does not say.

    `VmHWM` of proc(5), and not getrusage: its maximum is inherited from the process that started this one.

    Args:
        status: the kernel's account of the process.
    """
    try:
        lines = status.read_text().splitlines()
        return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), None)
    except (OSError, ValueError, IndexError):
        return None


def conditions_of(record: ChildRecord, gauges: Sequence[Gauge]) -> Conditions | None:
    """The conditions of a trial's measured phase; None where it did not come so far.

    Args:
        record: the child's.
        gauges: of all meters, on the record's clock.
    """
    window = next((each for each in record.phases if each.phase is Phase.MEASURE), None)
    if window is None:
        return None
    start_s = record.origin_s + window.start_s
    end_s = start_s + window.duration_s

    def during(quantity: Quantity) -> list[tuple[str, FloatArray]]:
        found = []
        for gauge in gauges:
            inside = (gauge.time_s >= start_s) & (gauge.time_s <= end_s)
            if gauge.quantity == quantity and inside.any():
                found.append((gauge.domain, gauge.values[inside]))
        return found

    def peak_bytes(*, of_system: bool) -> int | None:
        peaks = [
            float(values.max())
            for domain, values in during("memory_used_bytes")
            if (domain == SYSTEM_MEMORY) is of_system
        ]
        return int(max(peaks)) if peaks else None

    max_temp_c, sensor, rise_c = _hottest(record, gauges, start_s, end_s)
    shares = [
        float(((values.astype(np.int64) & sum(THROTTLE_REASONS)) != 0).mean())
        for _, values in during("throttle_reasons")
    ]
    return Conditions(
        max_temp_c=max_temp_c,
        max_temp_sensor=sensor,
        temp_rise_c=rise_c,
        memory_peak_bytes=record.memory_peak_bytes,
        gpu_memory_peak_bytes=peak_bytes(of_system=False),
        system_memory_peak_bytes=peak_bytes(of_system=True),
        throttled_share=max(shares, default=None),
    )


def _hottest(
    record: ChildRecord, gauges: Sequence[Gauge], start_s: float, end_s: float
) -> tuple[float | None, str, float | None]:
    """Highest reading around the measured phase, its sensor, and how far that is above the sensor's first reading."""
    first: dict[str, float] = {}
    highest: dict[str, float] = {}
    for number, readings in enumerate(record.temperatures):
        for reading in readings:
            first.setdefault(reading.sensor, reading.temp_c)
            if number > 0:  # the first is from before the load
                highest[reading.sensor] = max(highest.get(reading.sensor, reading.temp_c), reading.temp_c)
    for gauge in gauges:
        inside = (gauge.time_s >= start_s) & (gauge.time_s <= end_s)
        if gauge.quantity == "temp_c" and inside.any():
            name = f"{gauge.domain} ({gauge.source})"
            first[name] = float(gauge.values[0])
            highest[name] = float(gauge.values[inside].max())
    if not highest:
        return None, "", None
    sensor = max(highest, key=lambda name: highest[name])
    rise_c = highest[sensor] - first[sensor] if sensor in first else None
    return highest[sensor], sensor, rise_c
