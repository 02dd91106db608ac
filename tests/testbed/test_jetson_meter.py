"""The Jetson meter on the trees of several boards: which rails there are, and what adds up."""

import time
from pathlib import Path
from typing import Any

import pytest

from contract.errors import InvalidOptionError
from contract.trial_result import EnergyMethod, Phase, PhaseWindow
from energy.attribution import attribute, summarise
from testbed.meters.base import MeterReport
from testbed.meters.jetson_meter import JetsonMeter
from testbed.meters.jetson_rail import components
from tests.testbed.sysfs_double import AGX_ORIN, ORIN_NANO, jetson, put


def measure(folder: Path, chips: Any = AGX_ORIN, **options: Any) -> MeterReport:
    meter = JetsonMeter(period_s=0.02, **(jetson(folder, chips) | options))
    meter.start(folder)
    time.sleep(0.15)
    return meter.stop()


def headline_w(report: MeterReport) -> tuple[float | None, list[str]]:
    """Mean watts of the sum, and what is in it."""
    time_s = report.traces[0].time_s
    duration_s = float(time_s[-2] - time_s[1])
    window = PhaseWindow(phase=Phase.MEASURE, start_s=0.0, duration_s=duration_s)
    summary = summarise(attribute(report.traces, [window], origin_s=float(time_s[1])), [window])
    if summary is None or summary.energy_j is None:
        return None, []
    return summary.energy_j / duration_s, sorted(summary.domains)


def test_watts_are_volts_times_amperes_of_every_rail_on_every_chip(tmp_path: Path) -> None:
    report = measure(tmp_path)
    assert {trace.domain: float(trace.values[-1]) for trace in report.traces} == pytest.approx(
        {"VDD_GPU_SOC": 10.0, "VDD_CPU_CV": 5.0, "VIN_SYS_5V0": 4.0, "VDDQ_VDD2_1V8AO": 1.0}
    )
    assert {trace.method for trace in report.traces} == {EnergyMethod.SAMPLED}


def test_a_rail_of_the_whole_module_is_the_sum_and_the_others_are_its_parts(tmp_path: Path) -> None:
    report = measure(tmp_path, ORIN_NANO)
    assert {trace.domain: trace.component for trace in report.traces} == {
        "VDD_IN": "system",
        "VDD_CPU_GPU_CV": "part",
        "VDD_SOC": "part",
    }
    power_w, domains = headline_w(report)
    assert power_w == pytest.approx(10.0) and domains == ["VDD_IN"]


def test_without_a_total_only_what_is_known_to_be_disjoint_adds_up(tmp_path: Path) -> None:
    report = measure(tmp_path)
    power_w, domains = headline_w(report)
    assert power_w == pytest.approx(16.0)
    assert domains == ["VDDQ_VDD2_1V8AO", "VDD_CPU_CV", "VDD_GPU_SOC"]
    left_out = next(trace for trace in report.traces if trace.domain == "VIN_SYS_5V0")
    assert left_out.component == "part" and "not in the sum" in left_out.note


@pytest.mark.parametrize(
    ("options", "power_w"),
    [
        ({"added_rails": {"VDD_GPU_SOC": "gpu", "VDD_CPU_CV": "cpu", "VIN_SYS_5V0": "cpu"}}, 19.0),
        ({"total_rail": "VIN_SYS_5V0"}, 4.0),
    ],
)
def test_options_overrule_the_table(options: dict[str, Any], power_w: float, tmp_path: Path) -> None:
    assert headline_w(measure(tmp_path, **options))[0] == pytest.approx(power_w)


def test_an_unknown_board_has_no_sum_until_somebody_says_which_rails(tmp_path: Path) -> None:
    chips = {"hwmon1": {"VDD_STRANGE": (5_000, 1_000)}}
    report = measure(tmp_path, chips)
    assert headline_w(report) == (None, [])
    probe = JetsonMeter(**jetson(tmp_path, chips)).probe()  # type: ignore[arg-type]
    assert probe.available and "total_rail" in probe.message


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["POM_5V_IN", "POM_5V_GPU", "POM_5V_CPU"], {"POM_5V_IN": "system"}),
        (["GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"], {"GPU": "gpu", "CPU": "cpu", "VDDRQ": "dram"}),
        (["VDD_IN", "VDD_SYS_GPU", "VDD_SYS_CPU", "VDD_SYS_SOC", "VDD_SYS_DDR"], {"VDD_IN": "system"}),
    ],
)
def test_boards_of_the_table(labels: list[str], expected: dict[str, str]) -> None:
    assert components(labels) == {label: expected.get(label, "part") for label in labels}


def test_the_older_driver_is_read_too(tmp_path: Path) -> None:
    device = tmp_path / "ina3221x" / "6-0040" / "iio:device0"
    for n, (label, millivolts, milliamperes) in enumerate([("POM_5V_IN", 5_000, 1_000), ("POM_5V_GPU", 5_000, 300)]):
        put(device / f"rail_name_{n}", label)
        put(device / f"in_voltage{n}_input", millivolts)
        put(device / f"in_current{n}_input", milliamperes)
    report = measure(tmp_path, {}, iio=tmp_path / "ina3221x")
    assert {trace.domain: float(trace.values[0]) for trace in report.traces} == pytest.approx(
        {"POM_5V_IN": 5.0, "POM_5V_GPU": 1.5}
    )


def test_disabled_and_unreadable_channels_are_left_out(tmp_path: Path) -> None:
    roots = jetson(tmp_path)
    put(tmp_path / "hwmon" / "hwmon3" / "in3_enable", 0)
    put(tmp_path / "hwmon" / "hwmon4" / "curr2_input", "")
    assert JetsonMeter(**roots).probe().domains == ("VDD_GPU_SOC", "VDD_CPU_CV")  # type: ignore[arg-type]


def test_rails_of_one_name_on_two_chips_do_not_hide_each_other(tmp_path: Path) -> None:
    chips = {"hwmon1": {"VDD": (1_000, 1_000)}, "hwmon2": {"VDD": (1_000, 2_000)}}
    report = measure(tmp_path, chips)
    assert {trace.domain: float(trace.values[0]) for trace in report.traces} == {"VDD@hwmon1": 1.0, "VDD@hwmon2": 2.0}


def test_conditions_come_in_their_units_and_a_zone_that_is_off_is_left_out(tmp_path: Path) -> None:
    report = measure(tmp_path)
    assert {f"{gauge.domain}/{gauge.quantity}": float(gauge.values[-1]) for gauge in report.gauges} == pytest.approx(
        {
            "gpu:0/clock_mhz": 1300.5,
            "gpu:0/utilisation": 0.853,
            "cpu-thermal/temp_c": 47.5,
            "gpu-thermal/temp_c": 45.0,
            "pwm_tach/fan_rpm": 1800.0,
            "ram/memory_used_bytes": 4_000_000 * 1024.0,
        }
    )


def test_a_rail_that_fails_costs_its_own_samples_only(tmp_path: Path) -> None:
    meter = JetsonMeter(period_s=0.02, **jetson(tmp_path))  # type: ignore[arg-type]
    meter.start(tmp_path)
    (tmp_path / "hwmon" / "hwmon4" / "curr2_input").unlink()
    time.sleep(0.1)
    report = meter.stop()
    sizes = {trace.domain: trace.values.size for trace in report.traces}
    assert sizes.pop("VDDQ_VDD2_1V8AO") == 1 and min(sizes.values()) >= 3
    assert report.warnings and report.warnings[0].startswith("VDDQ_VDD2_1V8AO: ")
    assert str(tmp_path / "hwmon" / "hwmon4" / "curr2_input") in report.warnings[1]


@pytest.mark.parametrize(
    "options",
    [
        {"total_rail": "VDD_IN", "added_rails": {"VDD_IN": "cpu"}},
        {"total_rail": 3},
        {"added_rails": {}},
        {"added_rails": {"VDD_IN": "everything"}},
        {"added_rails": ["VDD_IN"]},
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidOptionError, match="rail"):
        JetsonMeter(**options)


def test_a_rail_that_the_board_has_not_is_named_with_those_it_has(tmp_path: Path) -> None:
    probe = JetsonMeter(**jetson(tmp_path), total_rail="VDD_IN").probe()  # type: ignore[arg-type]
    assert not probe.available and "'VDD_IN'" in probe.message and "VDD_CPU_CV" in probe.message
