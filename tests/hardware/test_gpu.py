"""The NVML meter on a real NVIDIA GPU. Skipped where there is none; needs no root, and changes nothing on the device.

pytest tests/hardware -m hardware -rs
"""

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from energy.integrate import CumulativeEnergy
from energy.trace import Trace
from testbed.meters.base import MeterReport
from testbed.meters.nvml_meter import NvmlMeter
from testbed.meters.thermometer import SystemThermometer

pytestmark = pytest.mark.hardware
PERIOD_S = 0.2
LOAD_S = 10.0


@pytest.fixture(scope="module")
def domains() -> tuple[str, ...]:
    pytest.importorskip("pynvml")
    probe = NvmlMeter(period_s=PERIOD_S).probe()
    if not probe.available:
        pytest.skip(probe.message)
    return probe.domains


@pytest.fixture(scope="module")
def torch(domains: tuple[str, ...]) -> ModuleType:
    module: ModuleType = pytest.importorskip("torch", reason="the load is a matrix product of torch")
    if not module.cuda.is_available():
        pytest.skip("this torch has no CUDA: install the extra vllm for a GPU")
    return module


@pytest.fixture(scope="module")
def idle(domains: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> MeterReport:
    meter = NvmlMeter(period_s=PERIOD_S)
    meter.start(tmp_path_factory.mktemp("idle"))
    time.sleep(5.0)
    return meter.stop()


@pytest.fixture(scope="module")
def loaded(torch: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MeterReport]:
    """Measured under a steady load on the first GPU, which begins before and ends after."""
    end = threading.Event()

    def work() -> None:
        a = torch.randn((8192, 8192), device="cuda:0", dtype=torch.float16)
        while not end.is_set():
            for _ in range(20):
                a = torch.nn.functional.normalize(a @ a)
            torch.cuda.synchronize()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        time.sleep(3.0)  # the 1-s mean and the clocks settle
        meter = NvmlMeter(period_s=PERIOD_S)
        meter.start(tmp_path_factory.mktemp("loaded"))
        time.sleep(LOAD_S)
        report = meter.stop()
    finally:
        end.set()
        thread.join()
    yield report


def traces_of(report: MeterReport, domain: str) -> dict[str, Trace]:
    return {trace.source: trace for trace in report.traces if trace.domain == domain}


def joules(trace: Trace, start_s: float, end_s: float) -> float:
    energy_j = CumulativeEnergy(trace).window(start_s, end_s).energy_j
    assert energy_j is not None, trace
    return energy_j


def test_the_counter_and_the_integrated_power_agree_under_load(loaded: MeterReport) -> None:
    traces = traces_of(loaded, "gpu:0")
    if traces["nvml"].kind != "counter" or len(traces) < 2:
        pytest.skip(f"only {', '.join(traces)} here: nothing to compare")
    # A second from either end: the power readings lag, and the counter ticks every 20 to 100 ms.
    start_s, end_s = float(traces["nvml"].time_s[0]) + 1, float(traces["nvml"].time_s[-1]) - 1
    energies_j = {source: joules(trace, start_s, end_s) for source, trace in traces.items()}
    print(energies_j)
    for source, energy_j in energies_j.items():
        assert energy_j == pytest.approx(energies_j["nvml"], rel=0.05), (source, energies_j)


def test_the_fields_of_a_data_centre_gpu_are_there(idle: MeterReport, domains: tuple[str, ...]) -> None:
    for domain in domains:
        print(domain, idle.settings[f"{domain}.name"], "lacks:", idle.settings[f"{domain}.unsupported"])
        found = {gauge.quantity for gauge in idle.gauges if gauge.domain == domain}
        assert {"temp_c", "clock_mhz"} <= found
    assert idle.warnings == ()
    assert idle.settings["driver_version"]


def test_temperatures_and_clocks_are_plausible(idle: MeterReport) -> None:
    ranges = {
        "temp_c": (5, 110),
        "clock_mhz": (100, 4000),
        "memory_clock_mhz": (100, 20000),
        "utilisation": (0, 1),
        "power_limit_w": (10, 2000),
        "fan_rpm": (0, 20000),
        "memory_used_bytes": (0, 2**40),
        "foreign_processes": (0, 1000),
    }
    for gauge in idle.gauges:
        low, high = ranges.get(gauge.quantity, (-np.inf, np.inf))
        assert ((gauge.values >= low) & (gauge.values <= high)).all(), (gauge.domain, gauge.quantity, gauge.values)


def test_power_lies_between_nothing_and_the_limit(idle: MeterReport, domains: tuple[str, ...]) -> None:
    limits_w = {each.domain: each.values.max() for each in idle.gauges if each.quantity == "power_limit_w"}
    for domain in domains:
        headline = traces_of(idle, domain)["nvml"]
        start_s, end_s = float(headline.time_s[0]), float(headline.time_s[-1])
        mean_w = joules(headline, start_s, end_s) / (end_s - start_s)
        assert 1 < mean_w < 1.2 * limits_w.get(domain, 2000.0), domain


def test_load_shows_in_clocks_utilisation_and_energy(idle: MeterReport, loaded: MeterReport) -> None:
    def mean(report: MeterReport, quantity: str) -> float | None:
        values = [each.values.mean() for each in report.gauges if (each.domain, each.quantity) == ("gpu:0", quantity)]
        return float(values[0]) if values else None

    utilisation = mean(loaded, "utilisation")
    assert utilisation is None or utilisation > 0.5
    powers_w = []
    for report in (idle, loaded):
        headline = traces_of(report, "gpu:0")["nvml"]
        start_s, end_s = float(headline.time_s[0]), float(headline.time_s[-1])
        powers_w.append(joules(headline, start_s, end_s) / (end_s - start_s))
    assert powers_w[1] > 1.2 * powers_w[0]


def test_this_process_is_no_stranger_on_the_gpu(loaded: MeterReport) -> None:
    if "foreign_processes" not in {gauge.quantity for gauge in loaded.gauges}:
        pytest.skip(str(loaded.settings["foreign_processes"]))
    assert f"({os.getpid()})" not in str(loaded.settings["foreign_processes"])


def test_sampling_costs_less_than_two_per_cent_of_a_core(idle: MeterReport) -> None:
    assert idle.sampler_cpu_s is not None and idle.window_s is not None
    share = idle.sampler_cpu_s / idle.window_s
    print(f"{100 * share:.3f} % of one core")
    assert share < 0.02


def test_the_thermometer_sees_the_gpus(domains: tuple[str, ...], tmp_path: Path) -> None:
    sensors = {each.sensor for each in SystemThermometer(tmp_path, tmp_path).read()}
    assert set(domains) <= sensors
