"""The Jetson meter on whole boards: what each has, what adds up, and what a vanished file says."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from testbed.meters.base import MeterReport
from testbed.meters.jetson_meter import JetsonMeter
from testbed.meters.thermometer import SystemThermometer
from tests.testbed import jetson_boards as boards

Board = Callable[[Path], None]


def measure(board: Board, folder: Path) -> MeterReport:
    board(folder)
    meter = JetsonMeter(period_s=0.02, **boards.arguments(folder))  # type: ignore[arg-type]
    meter.start(folder)
    time.sleep(0.06)
    return meter.stop()


@pytest.mark.parametrize(
    ("board", "added_w", "n_rails"),
    [
        # volts x amperes, by hand
        (boards.agx_orin, {"VDD_GPU_SOC": 4.7808, "VDD_CPU_CV": 0.7968, "VDDQ_VDD2_1V8AO": 0.477888}, 4),
        (boards.orin_nano, {"VDD_IN": 5.152768}, 3),
        (boards.agx_xavier, {"GPU": 1.52896, "CPU": 0.76448, "VDDRQ": 0.306176}, 6),
        (boards.tx2, {"VDD_IN": 7.6608}, 6),
        (boards.nano, {"POM_5V_IN": 3.096}, 3),
    ],
)
def test_what_adds_up_on_each_board(board: Board, added_w: dict[str, float], n_rails: int, tmp_path: Path) -> None:
    report = measure(board, tmp_path)
    assert len(report.traces) == n_rails and not report.warnings
    added = {trace.domain: float(trace.values[-1]) for trace in report.traces if trace.component != "part"}
    assert added == pytest.approx(added_w)


@pytest.mark.parametrize(
    ("board", "clock_mhz", "load", "used_gb", "hottest_c"),
    [
        (boards.agx_orin, 1300.5, 0.997, 10.24, 48.5),
        (boards.orin_nano, 624.75, 0.412, 2.048, 49.437),
        (boards.agx_xavier, 1377.0, 0.88, 10.24, 37.0),
        (boards.tx2, 1300.5, 0.731, 4.096, 44.0),
        (boards.nano, 921.6, 0.99, 3.072, 33.5),
    ],
)
def test_conditions_of_each_board(
    board: Board, clock_mhz: float, load: float, used_gb: float, hottest_c: float, tmp_path: Path
) -> None:
    report = measure(board, tmp_path)
    gauges = {f"{gauge.domain}/{gauge.quantity}": float(gauge.values[-1]) for gauge in report.gauges}
    assert gauges["gpu:0/clock_mhz"] == pytest.approx(clock_mhz)
    assert gauges["gpu:0/utilisation"] == pytest.approx(load)
    assert gauges["ram/memory_used_bytes"] == pytest.approx(used_gb * 1e9)
    assert max(value for name, value in gauges.items() if name.endswith("temp_c")) == pytest.approx(hottest_c)


def test_channels_that_cannot_be_read_are_left_out_of_the_probe_and_of_the_sum(tmp_path: Path) -> None:
    boards.agx_orin(tmp_path)
    boards.broken(tmp_path / "class/hwmon/hwmon3/curr3_input")
    probe = JetsonMeter(**boards.arguments(tmp_path)).probe()  # type: ignore[arg-type]
    assert probe.available and probe.domains == ("VDD_GPU_SOC", "VDD_CPU_CV", "VDDQ_VDD2_1V8AO")


def test_all_channels_unreadable_is_unavailable_and_names_the_file(tmp_path: Path) -> None:
    boards.orin_nano(tmp_path)
    for n in (1, 2, 3):
        boards.broken(tmp_path / f"class/hwmon/hwmon1/curr{n}_input")
    probe = JetsonMeter(**boards.arguments(tmp_path)).probe()  # type: ignore[arg-type]
    assert not probe.available and "curr1_input" in probe.message


def test_a_board_that_vanishes_in_the_middle_is_doubted_and_named(tmp_path: Path) -> None:
    boards.orin_nano(tmp_path)
    meter = JetsonMeter(period_s=0.02, **boards.arguments(tmp_path))  # type: ignore[arg-type]
    meter.start(tmp_path)
    chip = tmp_path / "class/hwmon/hwmon1"
    for n in (1, 2, 3):
        (chip / f"curr{n}_input").unlink()
    time.sleep(0.06)
    report = meter.stop()
    assert any("readings failed" in warning for warning in report.warnings)
    assert any(str(chip / "curr1_input") in warning for warning in report.warnings)


def test_the_thermal_gate_reads_a_jetsons_zones(tmp_path: Path) -> None:
    boards.tx2(tmp_path)
    boards.zones(tmp_path / "class/thermal", {"CPU-therm": 41_000, "GPU-therm": 40_000, "PMIC-Die": 100_000})
    readings = SystemThermometer(tmp_path / "class/hwmon", tmp_path / "class/thermal").read()
    assert [reading.temp_c for reading in readings if "therm" in reading.sensor] == [41.0, 40.0]
    assert all("PMIC" not in reading.sensor for reading in readings)
