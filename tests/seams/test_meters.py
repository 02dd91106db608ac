"""One behaviour suite over every meter: sysfs trees, a fake NVML and the stand-in program take the hardware's place."""

import os
import re
import stat
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from contract.errors import InvalidOptionError, MeterError, MeterUnavailableError
from contract.trial_result import EnergyMethod
from contract.trial_spec import MeterSpec
from energy.integrate import CumulativeEnergy
from testbed.meters.base import Meter
from testbed.meters.energibridge_meter import EnergiBridgeMeter
from testbed.meters.estimate_meter import EstimateMeter
from testbed.meters.fake_meter import FakeMeter
from testbed.meters.nvml_meter import NvmlMeter
from testbed.meters.rapl_meter import RaplMeter
from testbed.meters.registry import METERS
from testbed.meters.selection import MeterSelector
from testbed.meters.thermometer import SystemThermometer

STAND_IN = Path(__file__).parents[1] / "stand_ins" / "energibridge"
PERIOD_S = 0.05


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
        (folder / zone).mkdir(parents=True)
        (folder / zone / "name").write_text(f"{name}\n")
        (folder / zone / "max_energy_range_uj").write_text("262143328850\n")
        (folder / zone / "energy_uj").write_text(f"{energy_uj()}\n")
    return folder


class FakeNvml(SimpleNamespace):
    """Two GPUs at 100 and 200 W; the second has no energy counter."""

    class NVMLError(Exception):
        pass

    class NVMLError_NotSupported(NVMLError):
        pass

    NVML_TEMPERATURE_GPU = 0

    def __init__(self, *, counts: int = 2, fails: bool = False, mute: bool = False) -> None:
        super().__init__(open=0)
        self._counts, self._fails, self._mute = counts, fails, mute

    def nvmlInit(self) -> None:
        if self._fails:
            raise self.NVMLError("Driver Not Loaded")
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlDeviceGetCount(self) -> int:
        return self._counts

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: int) -> int:
        if handle == 1 or self._mute:
            raise self.NVMLError_NotSupported
        return int(time.monotonic() * 100_000)

    def nvmlDeviceGetPowerUsage(self, handle: int) -> int:
        if self._mute:
            raise self.NVMLError_NotSupported
        return 100_000 * (handle + 1)

    def nvmlDeviceGetTemperature(self, handle: int, sensor: int) -> int:
        return 40 + handle


MAKERS: dict[str, Callable[[Path], Meter]] = {
    "fake": lambda folder: FakeMeter(period_s=PERIOD_S),
    "estimate": lambda folder: EstimateMeter(period_s=PERIOD_S, busy_s=time.monotonic, n_cores=2),
    "rapl": lambda folder: RaplMeter(period_s=PERIOD_S, root=powercap(folder / "powercap")),
    "nvml": lambda folder: NvmlMeter(period_s=PERIOD_S, nvml=FakeNvml()),
    "energibridge": lambda folder: EnergiBridgeMeter(period_s=PERIOD_S, program=str(STAND_IN)),
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
    assert {trace.source for trace in report.traces} == {meter.name}


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


def test_what_is_not_measured_is_an_estimate(meter: Meter, tmp_path: Path) -> None:
    meter.start(tmp_path)
    for trace in meter.stop().traces:
        if meter.name in ("rapl", "nvml"):
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
    meter = RaplMeter(period_s=PERIOD_S, root=root)
    meter.start(tmp_path)
    (root / "intel-rapl:0" / "energy_uj").unlink()
    time.sleep(4 * PERIOD_S)
    report = meter.stop()
    assert "readings failed" in report.warnings[0]
    assert all(trace.values.size == 1 for trace in report.traces)


def test_nvml_keeps_both_estimators_and_counts_one(tmp_path: Path) -> None:
    nvml = FakeNvml()
    meter = NvmlMeter(period_s=PERIOD_S, nvml=nvml)
    meter.start(tmp_path)
    time.sleep(0.3)
    traces = meter.stop().traces
    assert [(trace.domain, trace.kind, trace.is_headline) for trace in traces] == [
        ("gpu:0", "counter", True),
        ("gpu:0", "power", False),
        ("gpu:1", "power", True),
    ]
    both = [CumulativeEnergy(each).window(each.time_s[0], each.time_s[-1]).energy_j for each in traces[:2]]
    assert both[0] == pytest.approx(both[1], rel=0.05)
    assert nvml.open == 0


@pytest.mark.parametrize(
    ("meter", "words"),
    [
        (NvmlMeter(nvml=FakeNvml(fails=True)), "nvidia-smi"),
        (NvmlMeter(nvml=FakeNvml(counts=0)), "no GPU"),
        (NvmlMeter(nvml=FakeNvml(mute=True)), "Jetson"),
        (RaplMeter(root="/nonexistent"), "No RAPL zones"),
        (EnergiBridgeMeter(program="/nonexistent/energibridge"), "JOULEBED_ENERGIBRIDGE"),
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
    (tmp_path / "child.log").write_text("thread 'main' panicked at src/main.rs:150:30:\nNone value\n")
    assert isinstance(meter.explain_exit(101, tmp_path), MeterError)


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
    probes = {name: SimpleNamespace(available=yes, message=f"{name} is not here") for name, yes in available.items()}

    class Registry:
        def create(self, name: str, /, **options: Any) -> Any:
            return SimpleNamespace(probe=lambda: probes[name])

    return MeterSelector(default, Registry())  # type: ignore[arg-type]


def test_auto_takes_energibridge_then_native_meters_then_the_estimate() -> None:
    everything = {"energibridge": True, "rapl": True, "nvml": True}
    assert selector(**everything).choose(MeterSpec()).names == ("energibridge",)
    assert selector(**everything | {"energibridge": False}).choose(MeterSpec()).names == ("rapl", "nvml")
    assert selector(energibridge=False, rapl=False, nvml=True).choose(MeterSpec()).names == ("nvml",)
    choice = selector(energibridge=False, rapl=False, nvml=False).choose(MeterSpec())
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
    read = SystemThermometer(tmp_path / "hwmon", tmp_path / "thermal", FakeNvml()).read()
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
    read = SystemThermometer(tmp_path / "none", tmp_path, FakeNvml(fails=True)).read()
    assert [each.temp_c for each in read] == [47.0]


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
