"""RAPL and a Jetson's rails on the real thing. Skipped, with the reason, where there is none."""

import time
from collections.abc import Callable

import pytest

from energy.integrate import CumulativeEnergy
from testbed.meters.base import Meter, MeterReport
from testbed.meters.jetson_meter import JetsonMeter
from testbed.meters.rapl_meter import RaplMeter

pytestmark = pytest.mark.hardware
METERS: dict[str, Callable[[], Meter]] = {
    "rapl": lambda: RaplMeter(period_s=1.0),
    "jetson": lambda: JetsonMeter(period_s=0.2),
}


@pytest.fixture(scope="module", params=METERS)
def report(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> MeterReport:
    meter = METERS[request.param]()
    probe = meter.probe()
    if not probe.available:
        pytest.skip(probe.message)
    meter.start(tmp_path_factory.mktemp(request.param))
    time.sleep(5.0)
    return meter.stop()


def mean_w(report: MeterReport, domain: str) -> float:
    trace = next(each for each in report.traces if each.domain == domain)
    start_s, end_s = float(trace.time_s[0]), float(trace.time_s[-1])
    energy_j = CumulativeEnergy(trace).window(start_s, end_s).energy_j
    assert energy_j is not None
    return energy_j / (end_s - start_s)


def test_every_domain_draws_a_plausible_power(report: MeterReport) -> None:
    assert report.warnings == ()
    for trace in report.traces:
        power_w = mean_w(report, trace.domain)
        print(f"{trace.domain}: {power_w:.2f} W ({trace.component})")
        assert 0 <= power_w < 2000
    assert any(mean_w(report, trace.domain) > 0.1 for trace in report.traces if trace.component != "part")


def test_parts_draw_no_more_than_what_holds_them(report: MeterReport) -> None:
    totals = [trace.domain for trace in report.traces if trace.component == "system"]
    for total in totals:
        parts = [trace.domain for trace in report.traces if trace.component == "part" and trace.source == "jetson"]
        assert sum(mean_w(report, part) for part in parts) <= 1.1 * mean_w(report, total)


def test_sampling_costs_less_than_two_per_cent_of_a_core(report: MeterReport) -> None:
    assert report.sampler_cpu_s is not None and report.window_s is not None
    share = report.sampler_cpu_s / report.window_s
    print(f"{100 * share:.3f} % of one core")
    assert share < 0.02


def test_a_jetsons_zones_are_plausible(report: MeterReport) -> None:
    temperatures = [gauge for gauge in report.gauges if gauge.quantity == "temp_c"]
    if not temperatures:
        pytest.skip("RAPL has no temperatures")
    for gauge in temperatures:
        assert (gauge.values > 0).all() and (gauge.values < 120).all(), gauge.domain
