"""One behaviour suite over every meter: sysfs trees, a fake NVML and the stand-in program take the hardware's place."""

import os
import re
import stat
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest

from contract.errors import InvalidOptionError, MeterError, MeterUnavailableError
from contract.trial_result import EnergyMethod
from contract.trial_spec import MeterSpec
from energy.integrate import CumulativeEnergy
from testbed.clock import SystemClock
from testbed.meters.base import Meter
from testbed.meters.energibridge_meter import EnergiBridgeMeter
from testbed.meters.estimate_meter import EstimateMeter
from testbed.meters.fake_meter import FakeMeter
from testbed.meters.gpu_process import ForeignProcesses
from testbed.meters.jetson_meter import JetsonMeter
from testbed.meters.nvml_meter import NvmlMeter
from testbed.meters.rapl_meter import RaplMeter
from testbed.meters.registry import METERS
from testbed.meters.selection import MeterSelector
from testbed.meters.simulated_meter import SimulatedMeter
from testbed.meters.tegrastats_meter import TegrastatsMeter
from testbed.meters.thermometer import SystemThermometer
from testbed.simulation.service_table import ServiceTable
from testbed.simulation.simulated_machine import SimulatedMachine
from tests.testbed.nvml_double import GpuDouble, NvmlDouble
from tests.testbed.sysfs_double import jetson, powercap, put

STAND_IN = Path(__file__).parents[1] / "stand_ins" / "energibridge"
TEGRASTATS = STAND_IN.with_name("tegrastats")
PERIOD_S = 0.05


NO_POWER = frozenset(
    {
        "nvmlDeviceGetTotalEnergyConsumption",
        "nvmlDeviceGetPowerUsage",
        "POWER_INSTANT",
        "POWER_AVERAGE",
    }
)
"""What a Jetson's NVML refuses."""


def nobody_else() -> ForeignProcesses:
    return ForeignProcesses(lambda: set(), is_namespaced=False)


def simulated() -> SimulatedMeter:
    meter = SimulatedMeter(period_s=PERIOD_S)
    table = ServiceTable(
        clock_mhz=np.array([705.0, 1410.0]),
        batch_sizes=np.array([1]),
        latency_s=np.array([[2.0], [1.0]]),
        power_w=np.array([[100.0], [200.0]]),
        source="made up",
    )
    meter.connect(SimulatedMachine(table, SystemClock(), lambda: 1410.0, idle_power_w=50.0))
    return meter


MAKERS: dict[str, Callable[[Path], Meter]] = {
    "fake": lambda folder: FakeMeter(period_s=PERIOD_S),
    "estimate": lambda folder: EstimateMeter(period_s=PERIOD_S, busy_s=time.monotonic, n_cores=2),
    "rapl": lambda folder: RaplMeter(period_s=PERIOD_S, fast=True, root=powercap(folder / "powercap")),
    "nvml": lambda folder: NvmlMeter(period_s=PERIOD_S, nvml=NvmlDouble(), processes=nobody_else()),
    "jetson": lambda folder: JetsonMeter(period_s=PERIOD_S, **jetson(folder / "jetson")),  # type: ignore[arg-type]
    "tegrastats": lambda folder: TegrastatsMeter(period_s=PERIOD_S, program=str(TEGRASTATS)),
    "energibridge": lambda folder: EnergiBridgeMeter(period_s=PERIOD_S, program=str(STAND_IN)),
    "simulated": lambda folder: simulated(),
}


def test_every_registered_meter_is_in_this_suite() -> None:
    assert set(MAKERS) == set(METERS.names)


@pytest.fixture(params=MAKERS)
def meter(request: pytest.FixtureRequest, tmp_path: Path) -> Meter:
    return MAKERS[request.param](tmp_path)


def test_probe_tells_the_domains_that_are_delivered(meter: Meter, tmp_path: Path) -> None:
    probe = meter.probe()
    assert probe.available, probe.message
    meter.start(tmp_path)
    report = meter.stop()
    assert {trace.domain for trace in report.traces} == set(probe.domains)
    for domain in probe.domains:
        headline = [trace for trace in report.traces if trace.domain == domain and trace.is_headline]
        assert [trace.source for trace in headline] == [meter.name]
    sources = [(trace.domain, trace.source) for trace in report.traces]
    assert len(set(sources)) == len(sources)
    assert all(trace.source.startswith(meter.name) for trace in report.traces)


def test_samples_bracket_the_time_between_start_and_stop(meter: Meter, tmp_path: Path) -> None:
    meter.start(tmp_path)
    start_s = time.monotonic()
    time.sleep(0.4)
    if meter.name == "energibridge":
        end_s = time.monotonic()
        time.sleep(3 * PERIOD_S)  # what trial_run does: the program drops its last interval
    else:
        end_s = time.monotonic()
    report = meter.stop()
    for trace in report.traces:
        window = CumulativeEnergy(trace).window(start_s, end_s)
        assert window.energy_j is not None, trace
        assert window.n_samples >= 4, trace
        assert trace.time_s[0] <= start_s + 0.002 and trace.time_s[-1] >= end_s - 0.002, trace


def test_stop_is_idempotent_and_tells_the_cost(meter: Meter, tmp_path: Path) -> None:
    meter.start(tmp_path)
    time.sleep(2.5 * PERIOD_S)
    report = meter.stop()
    assert meter.stop() is report
    assert report.sampler_cpu_s is not None and 0 <= report.sampler_cpu_s < 1
    assert report.settings and report.warnings == ()
    assert report.window_s is not None and report.window_s >= 2.5 * PERIOD_S


def test_gauges_are_sampled_on_the_clock_of_the_traces(meter: Meter, tmp_path: Path) -> None:
    start_s = time.monotonic()
    meter.start(tmp_path)
    time.sleep(3 * PERIOD_S)
    report = meter.stop()
    end_s = time.monotonic()
    names = [(gauge.domain, gauge.quantity) for gauge in report.gauges]
    assert len(set(names)) == len(names)
    assert bool(names) == (meter.name in ("nvml", "jetson", "tegrastats", "energibridge"))
    for gauge in report.gauges:
        assert gauge.source == meter.name
        assert gauge.time_s.size >= 2 and (gauge.time_s[1:] >= gauge.time_s[:-1]).all()
        # EnergiBridge's stand-in stamps whole milliseconds of another clock.
        assert start_s - 0.01 <= gauge.time_s[0] and gauge.time_s[-1] <= end_s + 0.01


def test_what_is_not_measured_is_an_estimate(meter: Meter, tmp_path: Path) -> None:
    meter.start(tmp_path)
    for trace in meter.stop().traces:
        if meter.name in ("rapl", "nvml", "jetson", "tegrastats"):
            assert trace.method is not EnergyMethod.ESTIMATE
        else:
            assert trace.method is EnergyMethod.ESTIMATE and "not measured" in trace.note


def test_stop_without_start_is_an_empty_report(meter: Meter) -> None:
    assert meter.stop().traces == ()


def test_estimate_is_its_own_model(tmp_path: Path) -> None:
    busy = iter([10.0 + 0.1 * step for step in range(1000)])
    meter = EstimateMeter(
        period_s=PERIOD_S, idle_w_per_core=0.0, active_w_per_core=4.0, busy_s=lambda: next(busy), n_cores=2
    )
    meter.start(tmp_path)
    time.sleep(0.2)
    (trace,) = meter.stop().traces
    assert trace.values[-1] - trace.values[0] == pytest.approx(0.4 * (trace.values.size - 1))
    with pytest.raises(InvalidOptionError):
        EstimateMeter(active_w_per_core=-1.0)


def test_rapl_classifies_zones_and_knows_the_wrap(tmp_path: Path) -> None:
    meter = RaplMeter(period_s=PERIOD_S, root=powercap(tmp_path / "powercap"))
    meter.start(tmp_path)
    traces = {trace.domain: trace for trace in meter.stop().traces}
    assert {domain: trace.component for domain, trace in traces.items()} == {
        "cpu_package": "cpu",
        "cpu_core": "part",
        "dram": "dram",
        "psys": "system",
    }
    assert traces["cpu_package"].wrap_j == pytest.approx(262143.32885)
    assert traces["cpu_package"].values[0] == pytest.approx(5.0)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_rapl_says_which_file_may_not_be_read(tmp_path: Path) -> None:
    root = powercap(tmp_path / "powercap")
    (root / "intel-rapl:0" / "energy_uj").chmod(0)
    probe = RaplMeter(root=root).probe()
    assert not probe.available and "sudo chmod a+r" in probe.message


def test_a_sensor_that_vanishes_is_a_warning_not_a_repeated_value(tmp_path: Path) -> None:
    root = powercap(tmp_path / "powercap")
    meter = RaplMeter(period_s=PERIOD_S, fast=True, root=root)
    meter.start(tmp_path)
    (root / "intel-rapl:0" / "energy_uj").unlink()
    time.sleep(4 * PERIOD_S)
    report = meter.stop()
    assert len(report.warnings) == 1 and report.warnings[0].startswith("cpu_package: ")
    sizes = {trace.domain: trace.values.size for trace in report.traces}
    # It costs the others nothing.
    assert sizes.pop("cpu_package") == 1 and min(sizes.values()) >= 3


@pytest.mark.parametrize(
    ("meter", "words"),
    [
        (NvmlMeter(nvml=NvmlDouble(starts=False)), "nvidia-smi"),
        (NvmlMeter(nvml=NvmlDouble([])), "no GPU"),
        (NvmlMeter(nvml=NvmlDouble([GpuDouble(refuses=NO_POWER)])), "jetson"),
        (NvmlMeter(nvml=NvmlDouble(), gpus=[0, 2]), "nvidia-smi -L"),
        (JetsonMeter(hwmon="/nonexistent", iio="/nonexistent"), "modprobe ina3221"),
        (RaplMeter(root="/nonexistent"), "No RAPL zones"),
        (EnergiBridgeMeter(program="/nonexistent/energibridge", machine="x86_64"), "JOULEBED_ENERGIBRIDGE"),
        (EnergiBridgeMeter(program="/nonexistent/energibridge", machine="aarch64"), "meter jetson"),
    ],
)
def test_an_unavailable_meter_says_how_to_mend_it(meter: Meter, words: str, tmp_path: Path) -> None:
    probe = meter.probe()
    assert not probe.available and words in probe.message
    with pytest.raises(MeterUnavailableError, match=re.escape(words)):
        meter.start(tmp_path)


def test_energibridge_is_wrapped_by_its_exact_command_line(tmp_path: Path) -> None:
    meter = EnergiBridgeMeter(period_s=0.2, program="energibridge", gpu=True)
    assert meter.wrap(["python", "-m", "x"], tmp_path) == [
        *["energibridge", "-o", str(tmp_path / "energibridge.csv"), "-i", "200", "--summary", "--gpu", "--"],
        *["python", "-m", "x"],
    ]


def test_energibridge_panic_becomes_the_command_that_mends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOULEBED_STANDIN_FAIL", "panic")
    meter = EnergiBridgeMeter(period_s=PERIOD_S, program=str(STAND_IN))
    probe = meter.probe()
    assert not probe.available and "setcap" in probe.message
    with pytest.raises(MeterUnavailableError, match="setcap"):
        meter.start(tmp_path)


def test_an_exit_that_is_the_childs_own_is_not_energibridges(tmp_path: Path) -> None:
    meter = EnergiBridgeMeter(program=str(STAND_IN))
    (tmp_path / "child.log").write_text("ordinary output\n")
    assert meter.explain_exit(101, tmp_path) is None
    assert meter.explain_exit(1, tmp_path) is None


PANICS = {
    'Os { code: 13, kind: PermissionDenied, message: "Permission denied" }': (MeterUnavailableError, "setcap"),
    'Os { code: 1, kind: PermissionDenied, message: "Operation not permitted" }': (MeterUnavailableError, "setcap"),
    'Os { code: 2, kind: NotFound, message: "No such file or directory" }': (MeterUnavailableError, "modprobe msr"),
    'failed to read PP1: Os { code: 5, kind: Uncategorized, message: "Input/output error" }': (
        MeterUnavailableError,
        "meter rapl",
    ),
    "called `Option::unwrap()` on a `None` value": (MeterError, "killed by a signal"),
    "overflow when subtracting durations": (MeterError, "period_s"),
    "called `Result::unwrap()` on an `Err` value: SystemTimeError(1.5s)": (MeterError, "clock was set back"),
    "something new": (MeterError, "child.log"),
}


@pytest.mark.parametrize("words", PANICS)
def test_each_known_panic_of_energibridge_becomes_its_own_advice(words: str, tmp_path: Path) -> None:
    meter = EnergiBridgeMeter(program=str(STAND_IN))
    (tmp_path / "child.log").write_text(f"thread 'main' panicked at src/cpu/msr/linux.rs:150:30:\n{words}\n")
    error = meter.explain_exit(101, tmp_path)
    kind, advice = PANICS[words]
    assert type(error) is kind and advice in error.message


def test_a_window_whose_program_was_killed_is_an_error(tmp_path: Path) -> None:
    meter = EnergiBridgeMeter(period_s=PERIOD_S, program=str(STAND_IN))
    meter.start(tmp_path)
    program = next(each for each in psutil.Process().children() if str(STAND_IN) in each.cmdline())
    for process in [program, *program.children()]:
        process.kill()
    with pytest.raises(MeterError, match="status -9"):
        meter.stop()
    assert (tmp_path / "energibridge.csv").stat().st_size > 0


def selector(default: str = "auto", **available: bool) -> MeterSelector:
    found = {"tegrastats": False} | available
    probes = {name: SimpleNamespace(available=yes, message=f"{name} is not here") for name, yes in found.items()}

    class Registry:
        def create_from_spec(self, name: str, options: Any, /, **own: Any) -> Any:
            return SimpleNamespace(probe=lambda: probes[name])

    return MeterSelector(default, Registry())  # type: ignore[arg-type]


def test_auto_takes_energibridge_then_native_meters_then_the_estimate() -> None:
    everything = {"energibridge": True, "rapl": True, "nvml": True, "jetson": False}
    assert selector(**everything).choose(MeterSpec()).names == ("energibridge",)
    assert selector(**everything | {"energibridge": False}).choose(MeterSpec()).names == ("rapl", "nvml")
    assert selector(energibridge=False, rapl=False, nvml=True, jetson=False).choose(MeterSpec()).names == ("nvml",)
    on_jetson = selector(energibridge=False, rapl=False, nvml=False, jetson=True)
    assert on_jetson.choose(MeterSpec()).names == ("jetson",)
    choice = selector(energibridge=False, rapl=False, nvml=False, jetson=False).choose(MeterSpec())
    assert choice.names == ("estimate",)
    assert choice.reasons["rapl"] == "rapl is not here"


def test_a_default_decides_auto_and_a_named_meter_is_never_replaced() -> None:
    assert selector("rapl", rapl=True).choose(MeterSpec()).names == ("rapl",)
    with pytest.raises(MeterUnavailableError, match="nvml is not here"):
        selector("rapl", rapl=True, nvml=False).choose(MeterSpec(name="nvml"))


def test_thermometer_reads_the_processor_and_the_gpus(tmp_path: Path) -> None:
    for chip, name, millidegrees in (("hwmon0", "nvme", 61000), ("hwmon1", "coretemp", 52000)):
        (tmp_path / "hwmon" / chip).mkdir(parents=True)
        (tmp_path / "hwmon" / chip / "name").write_text(name)
        (tmp_path / "hwmon" / chip / "temp1_input").write_text(str(millidegrees))
    read = SystemThermometer(tmp_path / "hwmon", tmp_path / "thermal", NvmlDouble()).read()
    assert [(each.sensor, each.temp_c) for each in read] == [
        ("coretemp:hwmon1", 52.0),
        ("gpu:0", 40.0),
        ("gpu:1", 41.0),
    ]


def test_thermometer_falls_back_to_thermal_zones_and_leaves_nonsense_out(tmp_path: Path) -> None:
    for zone, kind, text in (("thermal_zone0", "x86_pkg_temp", "47000"), ("thermal_zone1", "CPU-therm", "-274000")):
        (tmp_path / zone).mkdir()
        (tmp_path / zone / "type").write_text(kind)
        (tmp_path / zone / "temp").write_text(text)
    read = SystemThermometer(tmp_path / "none", tmp_path, NvmlDouble(starts=False)).read()
    assert [each.temp_c for each in read] == [47.0]


def test_thermometer_sees_all_of_a_jetsons_chip(tmp_path: Path) -> None:
    # hwmon holds a copy of one zone only: the zones themselves say more.
    put(tmp_path / "hwmon" / "hwmon0" / "name", "cpu_thermal")
    put(tmp_path / "hwmon" / "hwmon0" / "temp1_input", 50000)
    zones = {"cpu-thermal": 50000, "gpu-thermal": 51000, "soc0-thermal": 49000, "tj-thermal": 52000, "pmic-die": 100000}
    for i, (kind, millidegrees) in enumerate(zones.items()):
        put(tmp_path / "thermal" / f"thermal_zone{i}" / "type", kind)
        put(tmp_path / "thermal" / f"thermal_zone{i}" / "temp", millidegrees)
    read = SystemThermometer(tmp_path / "hwmon", tmp_path / "thermal", NvmlDouble([])).read()
    assert sorted(each.temp_c for each in read) == [49.0, 50.0, 51.0, 52.0]
    only_copies = SystemThermometer(tmp_path / "hwmon", tmp_path / "none", NvmlDouble([])).read()
    assert [each.temp_c for each in only_copies] == [50.0]


def test_thermometer_falls_back_to_the_older_call_of_nvml(tmp_path: Path) -> None:
    driver_550 = NvmlDouble(absent=frozenset({"nvmlDeviceGetTemperatureV"}))
    read = SystemThermometer(tmp_path, tmp_path, driver_550).read()
    assert [each.temp_c for each in read] == [40.0, 41.0]
    assert driver_550.n_open == 0


def test_the_stand_ins_counters_wrap_each_at_its_own_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOULEBED_REPLAY_COUNTER_START", "262140")
    meter = EnergiBridgeMeter(period_s=PERIOD_S, program=str(STAND_IN))
    meter.start(tmp_path)
    time.sleep(0.4)
    traces = {trace.domain: trace for trace in meter.stop().traces}
    package, core = (
        CumulativeEnergy(traces[domain]).window(*traces[domain].time_s[[0, -1]])
        for domain in ("cpu_package", "cpu_core")
    )
    assert (package.n_wraps, core.n_wraps, package.n_unexplained, core.n_unexplained) == (1, 0, 0, 0)
    assert package.energy_j is not None and core.energy_j == pytest.approx(0.6 * package.energy_j)


def test_the_stand_in_is_executable() -> None:
    assert STAND_IN.stat().st_mode & stat.S_IXUSR
