"""The NVML meter on GPUs that refuse, fail and are shared: each field by itself."""

import os
import re
import time
from pathlib import Path

import pytest

from contract.errors import InvalidOptionError, MeterUnavailableError
from contract.trial_result import EnergyMethod
from energy.integrate import CumulativeEnergy
from testbed.meters.base import MeterReport
from testbed.meters.gpu_process import ForeignProcesses, in_pid_namespace, own_process_tree
from testbed.meters.nvml_meter import NvmlMeter
from tests.testbed.nvml_double import GpuDouble, NvmlDouble

OURS, THEIRS = os.getpid(), 999_999_001


class SteppingClock:
    """Goes on by a millisecond at each look: what is measured with it does not depend on a busy machine."""

    def __init__(self) -> None:
        self._now_ns = 0

    def monotonic_ns(self) -> int:
        self._now_ns += 1_000_000
        return self._now_ns

    def time_ns(self) -> int:
        return self._now_ns

    def sleep(self, duration_s: float) -> None:
        self._now_ns += round(duration_s * 1e9)


def strangers(*, is_namespaced: bool = False) -> ForeignProcesses:
    return ForeignProcesses(
        lambda: {OURS}, is_namespaced=is_namespaced, exists=lambda pid: True, name_of=lambda pid: "Xorg"
    )


def measure(nvml: NvmlDouble, out_dir: Path, *, duration_s: float = 0.1, **options: object) -> MeterReport:
    options.setdefault("processes", strangers())
    meter = NvmlMeter(period_s=0.02, nvml=nvml, **options)  # type: ignore[arg-type]
    meter.start(out_dir)
    time.sleep(duration_s)
    return meter.stop()


def last(report: MeterReport) -> dict[str, float]:
    """The last value of each gauge."""
    return {f"{gauge.domain}/{gauge.quantity}": float(gauge.values[-1]) for gauge in report.gauges}


def test_three_estimators_of_one_gpu_agree_and_one_counts(tmp_path: Path) -> None:
    clock = SteppingClock()
    nvml = NvmlDouble([GpuDouble(power_w=350.0)], clock_s=lambda: clock.monotonic_ns() / 1e9)
    traces = measure(nvml, tmp_path, clock=clock).traces
    assert [(trace.source, trace.kind, trace.is_headline, trace.method) for trace in traces] == [
        ("nvml", "counter", True, EnergyMethod.COUNTER),
        ("nvml-instant", "power", False, EnergyMethod.SAMPLED),
        ("nvml-average", "power", False, EnergyMethod.SAMPLED),
    ]
    assert "mean over about 1 s" in traces[2].note and traces[0].note == ""
    joules = [CumulativeEnergy(each).window(each.time_s[0], each.time_s[-1]).energy_j for each in traces]
    assert joules == pytest.approx([350.0 * (traces[0].time_s[-1] - traces[0].time_s[0])] * 3, rel=1e-3)
    assert nvml.n_open == 0


COUNTER = "nvmlDeviceGetTotalEnergyConsumption"


@pytest.mark.parametrize(
    ("refuses", "sources"),
    [
        ({COUNTER}, ["nvml", "nvml-average"]),
        ({COUNTER, "POWER_INSTANT"}, ["nvml"]),
        ({COUNTER, "nvmlDeviceGetFieldValues"}, ["nvml"]),
        ({"POWER_AVERAGE", "nvmlDeviceGetPowerUsage"}, ["nvml", "nvml-instant"]),
        ({"POWER_INSTANT", "POWER_AVERAGE", "nvmlDeviceGetPowerUsage"}, ["nvml"]),
    ],
)
def test_the_best_estimator_that_is_there_is_the_headline(
    refuses: set[str], sources: list[str], tmp_path: Path
) -> None:
    traces = measure(NvmlDouble([GpuDouble(refuses=frozenset(refuses))]), tmp_path).traces
    assert [trace.source for trace in traces] == sources
    assert [trace.is_headline for trace in traces] == [True] + [False] * (len(traces) - 1)


@pytest.mark.parametrize(
    ("name", "architecture", "words"),
    [
        ("NVIDIA H100", 9, "mean over about 1 s"),
        ("NVIDIA A100-SXM4-80GB", 7, "instantaneous"),
        ("NVIDIA A10", 7, "mean over about 1 s"),
        ("Tesla V100", 5, "instantaneous"),
        ("NVIDIA New", 0xFFFFFFFF, "does not tell"),
    ],
)
def test_what_the_old_power_call_means_depends_on_the_chip(
    name: str, architecture: int, words: str, tmp_path: Path
) -> None:
    # Ampere and newer answer a mean over 1 s; older chips and GA100 an instantaneous figure.
    only_usage = frozenset({COUNTER, "nvmlDeviceGetFieldValues"})
    gpu = GpuDouble(refuses=only_usage, name=name, architecture=architecture)
    (trace,) = measure(NvmlDouble([gpu]), tmp_path).traces
    assert words in trace.note


FIELDS = {
    "nvmlDeviceGetClockInfo": {"clock_mhz", "memory_clock_mhz"},
    "nvmlDeviceGetUtilizationRates": {"utilisation"},
    "nvmlDeviceGetMemoryInfo": {"memory_used_bytes"},
    "nvmlDeviceGetEnforcedPowerLimit": {"power_limit_w"},
    "nvmlDeviceGetFanSpeedRPM": {"fan_rpm"},
}
EVERYTHING = set.union(*FIELDS.values()) | {"temp_c", "throttle_reasons", "foreign_processes"}


@pytest.mark.parametrize("function", FIELDS)
def test_a_field_that_is_not_supported_costs_no_other(function: str, tmp_path: Path) -> None:
    nvml = NvmlDouble([GpuDouble(refuses=frozenset({function})), GpuDouble()])
    report = measure(nvml, tmp_path)
    for domain, expected in (("gpu:0", EVERYTHING - FIELDS[function]), ("gpu:1", EVERYTHING)):
        assert {gauge.quantity for gauge in report.gauges if gauge.domain == domain} == expected
    assert all(name in str(report.settings["gpu:0.unsupported"]) for name in FIELDS[function])
    assert report.settings["gpu:1.unsupported"] == ""
    assert len([trace for trace in report.traces if trace.domain == "gpu:0"]) == 3
    assert report.warnings == ()


def test_gauges_come_in_their_units(tmp_path: Path) -> None:
    gpu = GpuDouble(temp_c=61.0, throttle_reasons=0x24)
    values = last(measure(NvmlDouble([gpu]), tmp_path))
    assert values == {
        "gpu:0/temp_c": 61.0,
        "gpu:0/clock_mhz": 1980.0,
        "gpu:0/memory_clock_mhz": 2619.0,
        "gpu:0/utilisation": 0.75,
        "gpu:0/throttle_reasons": 0x24,
        "gpu:0/memory_used_bytes": 2**30,
        "gpu:0/power_limit_w": 700.0,
        "gpu:0/fan_rpm": 2400.0,
        "gpu:0/foreign_processes": 0.0,
    }


def test_older_drivers_are_asked_by_the_older_names(tmp_path: Path) -> None:
    newer = frozenset({"nvmlDeviceGetTemperatureV", "nvmlDeviceGetCurrentClocksEventReasons"})
    gpu = GpuDouble(temp_c=55.0, throttle_reasons=4)
    values = last(measure(NvmlDouble([gpu], absent=newer), tmp_path))
    assert values["gpu:0/temp_c"] == 55.0 and values["gpu:0/throttle_reasons"] == 4.0
    assert gpu.n_calls["nvmlDeviceGetTemperatureV"] <= 2  # found out at the probe and at the start, not at each sample


def test_a_field_that_fails_now_and_then_loses_its_own_samples_only(tmp_path: Path) -> None:
    gpu = GpuDouble()
    meter = NvmlMeter(period_s=0.02, nvml=NvmlDouble([gpu]), processes=strangers())
    meter.start(tmp_path)
    gpu.fails = {"nvmlDeviceGetClockInfo": 2, COUNTER: 1}
    time.sleep(0.2)
    report = meter.stop()
    sizes = {trace.source: trace.values.size for trace in report.traces}
    assert sizes["nvml"] == sizes["nvml-instant"] - 1
    clocks = [gauge.values.size for gauge in report.gauges if "clock" in gauge.quantity]
    assert sum(clocks) == 2 * sizes["nvml-instant"] - 2
    assert report.warnings == ("gpu:0/counter: 1 readings failed",)
    assert "clock_mhz" in str(report.settings["missed_readings"])


def test_a_gpu_that_is_lost_is_a_warning_and_the_other_goes_on(tmp_path: Path) -> None:
    lost, well = GpuDouble(), GpuDouble(200.0)
    meter = NvmlMeter(period_s=0.02, nvml=NvmlDouble([lost, well]), processes=strangers())
    meter.start(tmp_path)
    lost.refuses = frozenset({COUNTER, "nvmlDeviceGetFieldValues"})
    time.sleep(0.1)
    report = meter.stop()
    sizes = {(trace.domain, trace.source): trace.values.size for trace in report.traces}
    assert sizes["gpu:0", "nvml"] == 1 and sizes["gpu:1", "nvml"] >= 3
    assert any(warning.startswith("gpu:0/counter") for warning in report.warnings)


def test_what_is_dear_is_read_once_a_second(tmp_path: Path) -> None:
    gpu = GpuDouble(compute_pids=[OURS])
    report = measure(NvmlDouble([gpu]), tmp_path, duration_s=0.4)
    quick = next(gauge for gauge in report.gauges if gauge.quantity == "clock_mhz")
    slow = next(gauge for gauge in report.gauges if gauge.quantity == "foreign_processes")
    assert 2 <= slow.values.size < quick.values.size  # at both ends, and once a second between them


def test_strangers_on_the_gpu_are_counted_and_named(tmp_path: Path) -> None:
    gpu = GpuDouble(compute_pids=[OURS, THEIRS], graphics_pids=[THEIRS, THEIRS + 1])
    report = measure(NvmlDouble([gpu, GpuDouble(compute_pids=[OURS])]), tmp_path)
    values = last(report)
    assert (values["gpu:0/foreign_processes"], values["gpu:1/foreign_processes"]) == (2.0, 0.0)
    assert report.settings["foreign_processes"] == f"Xorg ({THEIRS}), Xorg ({THEIRS + 1})"


def test_in_a_container_that_hides_our_own_numbers_nobody_can_tell(tmp_path: Path) -> None:
    hidden = NvmlDouble([GpuDouble(compute_pids=[THEIRS])])
    report = measure(hidden, tmp_path, processes=strangers(is_namespaced=True))
    assert "gpu:0/foreign_processes" not in last(report)
    assert "cannot tell" in str(report.settings["foreign_processes"])
    shared = NvmlDouble([GpuDouble(compute_pids=[OURS, THEIRS])])
    assert last(measure(shared, tmp_path, processes=strangers(is_namespaced=True)))["gpu:0/foreign_processes"] == 1.0


def test_the_process_tree_is_walked_for_new_numbers_only() -> None:
    n_walks = 0

    def own() -> set[int]:
        nonlocal n_walks
        n_walks += 1
        return {1, 2}

    processes = ForeignProcesses(own, is_namespaced=False, exists=lambda pid: pid != 4, name_of=str)
    assert [processes.count(pids) for pids in ([1, 3], [1, 3], [1, 3, 4], [1, 3, 4], [2], [3, 3])] == [1, 1, 1, 1, 0, 1]
    assert n_walks == 3
    assert processes.describe() == "3 (3)"


def test_own_tree_holds_this_process_and_its_ancestors() -> None:
    assert {os.getpid(), os.getppid()} <= own_process_tree()
    assert THEIRS not in own_process_tree()


@pytest.mark.parametrize(("link", "expected"), [("pid:[4026531836]", False), ("pid:[4026532500]", True), (None, True)])
def test_a_process_namespace_is_told_by_the_kernels_number(link: str | None, expected: bool, tmp_path: Path) -> None:
    (tmp_path / "self" / "ns").mkdir(parents=True)
    if link is not None:
        (tmp_path / "self" / "ns" / "pid").symlink_to(link)
    assert in_pid_namespace(tmp_path) is expected


def test_settings_tell_what_is_needed_to_repeat_it(tmp_path: Path) -> None:
    settings = measure(NvmlDouble([GpuDouble(refuses=frozenset({"nvmlDeviceGetMigMode"}))]), tmp_path).settings
    assert settings["driver_version"] == "580.1"
    assert settings["gpu:0.name"] == "NVIDIA H100" and settings["gpu:0.uuid"] == "GPU-0"
    assert settings["gpu:0.application_clock_mhz"] == 1830.0 and settings["gpu:0.power_limit_w"] == 700.0
    assert settings["gpu:0.persistence_mode"] == 1.0
    assert settings["gpu:0.mig_mode"] is None
    assert settings["foreign_processes"] == "none"


def test_only_the_gpus_that_were_asked_for_are_measured(tmp_path: Path) -> None:
    report = measure(NvmlDouble(), tmp_path, gpus=[1])
    assert {trace.domain for trace in report.traces} == {"gpu:1"}
    for wrong in ([], [-1], ["0"], [True], 0):
        with pytest.raises(InvalidOptionError, match="gpus"):
            NvmlMeter(nvml=NvmlDouble(), gpus=wrong)  # type: ignore[arg-type]


def test_a_driver_that_goes_between_probe_and_start_is_unavailable(tmp_path: Path) -> None:
    class Leaving(NvmlDouble):
        def nvmlSystemGetDriverVersion(self) -> str:
            raise self.NVMLError("GPU is lost")

    nvml = Leaving()
    with pytest.raises(MeterUnavailableError, match="nvidia-smi"):
        NvmlMeter(nvml=nvml).start(tmp_path)
    assert nvml.n_open == 0


def test_the_installed_binding_has_every_name_that_is_used() -> None:
    pynvml = pytest.importorskip("pynvml")
    source = "".join(
        (Path(__file__).parents[2] / "testbed" / "meters" / name).read_text()
        for name in ("nvml_meter.py", "nvml_reading.py")
    )
    names = set(re.findall(r"\b(?:nvml(?:Device|System)\w+|nvmlInit|nvmlShutdown|NVML_[A-Z_]+|NVMLError)\b", source))
    assert len(names) > 20
    # ThrottleReasons is for drivers before 535; a binding may drop it.
    assert {name for name in names if not hasattr(pynvml, name)} <= {"nvmlDeviceGetCurrentClocksThrottleReasons"}
    value = pynvml.c_nvmlFieldValue_t()
    assert (value.nvmlReturn, value.value.uiVal) == (0, 0)
