"""Conditions of a trial, from gauges and temperatures whose answers are known."""

from pathlib import Path

import numpy as np
import pytest

from contract.node_info import TemperatureReading
from contract.trial_result import Phase, PhaseWindow
from energy.trace import Gauge, Quantity
from testbed.attempt_folder import ChildRecord
from testbed.conditions import conditions_of, resident_peak_bytes

TIME_S = np.arange(100.0, 130.0)
MEASURE = PhaseWindow(phase=Phase.MEASURE, start_s=10.0, duration_s=10.0)


def gauge(domain: str, quantity: Quantity, values: np.ndarray) -> Gauge:
    return Gauge(domain, quantity, "test", TIME_S, values.astype(float))


def record(**fields: object) -> ChildRecord:
    return ChildRecord.model_validate({"origin_s": 100.0, "unix_minus_monotonic_s": 0.0, "phases": [MEASURE], **fields})


def test_only_the_measured_phase_counts_and_the_rise_is_from_the_start() -> None:
    temps_c = 40 + (TIME_S - 100)  # 50 to 60 in the measured phase; hotter after it
    masks = np.where((TIME_S >= 110) & (TIME_S < 113), 0x4, 0x1)
    memory = np.where(TIME_S == 115, 9e9, np.where(TIME_S == 125, 20e9, 5e9))
    found = conditions_of(
        record(memory_peak_bytes=7),
        [
            gauge("gpu:0", "temp_c", temps_c),
            gauge("gpu:0", "throttle_reasons", masks),
            gauge("gpu:0", "memory_used_bytes", memory),
            gauge("ram", "memory_used_bytes", 2 * memory),
        ],
    )
    assert found is not None
    assert (found.max_temp_c, found.temp_rise_c, found.max_temp_sensor) == (60.0, 20.0, "gpu:0 (test)")
    assert found.throttled_share == pytest.approx(3 / 11)
    assert (found.gpu_memory_peak_bytes, found.system_memory_peak_bytes) == (9_000_000_000, 18_000_000_000)
    assert found.memory_peak_bytes == 7


def test_the_thermometer_around_the_phase_is_enough() -> None:
    def reading(temp_c: float) -> list[TemperatureReading]:
        return [TemperatureReading(sensor="soc", temp_c=temp_c)]

    found = conditions_of(record(temperatures=[reading(41.0), reading(55.0), reading(58.5)]), [])
    assert found is not None and (found.max_temp_c, found.temp_rise_c) == (58.5, 17.5)


def test_what_was_not_measured_is_none() -> None:
    found = conditions_of(record(), [])
    assert found is not None and set(found.model_dump(exclude={"max_temp_sensor"}).values()) == {None}
    assert conditions_of(ChildRecord(origin_s=0.0, unix_minus_monotonic_s=0.0), []) is None


def test_the_kernel_tells_the_peak(tmp_path: Path) -> None:
    own = resident_peak_bytes()
    if own is None:
        pytest.skip("no /proc here")
    block = np.ones(64 * 2**20 // 8)
    after = resident_peak_bytes()
    assert block.size and after is not None and after >= own > 10 * 2**20
    (tmp_path / "status").write_text("VmPeak:\t10 kB\nVmHWM:\t  2048 kB\n")
    assert resident_peak_bytes(tmp_path / "status") == 2 * 2**20
    assert resident_peak_bytes(tmp_path / "none") is None
