"""Each rule finds its fault, and no other; a sound trial has no reasons."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from contract.trial_result import EnergyMethod, Phase, PhaseWindow
from energy.attribution import attribute
from energy.device_rules import THROTTLE_REASONS
from energy.evidence import Evidence
from energy.trace import Gauge, Quantity, Trace
from energy.validity import RULES, find_reasons

TIME_S = np.arange(100.0, 131.0, 0.1)
PHASES = [
    PhaseWindow(phase=Phase.BASELINE, start_s=6.0, duration_s=4.0),
    PhaseWindow(phase=Phase.MEASURE, start_s=11.0, duration_s=10.0),
]
INSIDE = (TIME_S >= 111.0) & (TIME_S <= 121.0)


def trace(domain: str, component: str, watts: float, **changes: object) -> Trace:
    values = watts * (TIME_S - 100.0) + 7.0
    base = Trace(domain, component, "counter", EnergyMethod.COUNTER, "test", TIME_S, values)  # type: ignore[arg-type]
    return replace(base, **changes)  # type: ignore[arg-type]


def power(domain: str, component: str, values: np.ndarray, **changes: object) -> Trace:
    return trace(
        domain, component, 0.0, **{"kind": "power", "method": EnergyMethod.SAMPLED, "values": values} | changes
    )


def gauge(quantity: Quantity, values: np.ndarray | float, domain: str = "gpu:0") -> Gauge:
    return Gauge(domain, quantity, "test", TIME_S, np.broadcast_to(np.asarray(values, dtype=float), TIME_S.shape))


CPU = trace("cpu_package", "cpu", 50.0)
GPU = trace("gpu:0", "gpu", 200.0)
SWINGING_W = 200.0 + np.sin(TIME_S)


def told(*traces: Trace, n_requests: int = 4, n_output_tokens: int = 40, **more: object) -> dict[str, str]:
    """Code -> message."""
    readings = attribute(traces, PHASES, origin_s=100.0)
    evidence = Evidence(readings, traces, PHASES, 100.0, n_requests, n_output_tokens, **more)  # type: ignore[arg-type]
    return {reason.code: reason.message for reason in find_reasons(evidence)}


def reasons(*traces: Trace, **more: object) -> set[str]:
    return set(told(*traces, **more))  # type: ignore[arg-type]


def test_a_sound_trial_has_no_reasons() -> None:
    gauges = [
        gauge("clock_mhz", 1005.0),
        gauge("utilisation", 0.9),
        gauge("throttle_reasons", 0x2),
        gauge("foreign_processes", 0),
    ]
    known = {"n_planned": 4, "n_requests_kept": 4, "gauges": gauges, "expected_clock_mhz": {"gpu:0": 1005.0}}
    second = power("gpu:0", "gpu", SWINGING_W, is_headline=False)
    assert told(CPU, GPU, second, **known) == {}


def test_energy_that_is_missing_or_not_positive() -> None:
    assert reasons() == {"no_energy"}
    assert reasons(CPU, replace(GPU, time_s=TIME_S[:150], values=GPU.values[:150])) == {"no_energy", "log_short"}
    # Less than a period is missing: the figure stands, and says that it is short.
    assert reasons(replace(CPU, time_s=TIME_S[:210] + 0.05, values=CPU.values[:210])) == {"log_short"}
    assert reasons(trace("cpu_package", "cpu", 0.0)) == {"energy_not_positive", "stale_sensor"}
    assert reasons(CPU, power("gpu:0", "gpu", -SWINGING_W)) == {"energy_not_positive"}


def test_a_counter_that_is_reset() -> None:
    reset = CPU.values.copy()
    reset[160:] -= 900.0
    assert reasons(replace(CPU, values=reset)) == {"no_energy", "counter_step"}


def test_gaps_matter_where_they_cost_something() -> None:
    inner, cut = (np.delete(np.arange(TIME_S.size), np.arange(start, start + 10)) for start in (150, 205))
    # A counter counts on through a gap; only where one holds a mark are its joules split by guess.
    assert reasons(replace(CPU, time_s=TIME_S[inner], values=CPU.values[inner])) == set()
    assert reasons(replace(CPU, time_s=TIME_S[cut], values=CPU.values[cut])) == {"gap"}
    for kept in (inner, cut):
        assert reasons(CPU, power("gpu:0", "gpu", SWINGING_W[kept], time_s=TIME_S[kept])) == {"gap"}


@pytest.mark.parametrize("component", ["cpu", "gpu"])
def test_a_sensor_that_repeats_itself(component: str) -> None:
    still = SWINGING_W.copy()
    still[150:174] = 33.0  # 24 equal samples
    assert reasons(power("x", component, still)) == set()
    still[174] = 33.0
    assert reasons(power("x", component, still)) == {"stale_sensor"}
    assert reasons(power("x", component, still, method=EnergyMethod.ESTIMATE)) == set()
    # Outside the measured phase it may stand still: nothing was asked of it.
    assert reasons(power("x", component, np.where(INSIDE, SWINGING_W, 33.0))) == set()
    # A counter that stops half-way gives half the energy, and no other sign.
    stopped = np.minimum(CPU.values, CPU.values[160])
    assert reasons(trace("x", component, 0.0, values=stopped)) == {"stale_sensor"}


def test_a_coarse_sensor_may_stand_still() -> None:
    assert reasons(replace(power("x", "gpu", np.full_like(TIME_S, 10.0)), source="jetson")) == set()


def test_a_counter_that_ticks_once_a_second_is_not_stale() -> None:
    # NVML's values may be a second old: at 10 ms that is a hundred equal samples.
    time_s = np.arange(100.0, 131.0, 0.01)
    ticking = 200.0 * np.floor(time_s - 100.0)
    assert reasons(trace("gpu:0", "gpu", 0.0, time_s=time_s, values=ticking)) == set()


def test_estimators_that_disagree() -> None:
    for factor, found in ((1.04, False), (1.08, True), (0.96, False), (0.92, True)):
        second = power("gpu:0", "gpu", SWINGING_W * factor, is_headline=False)
        assert ("estimators_disagree" in reasons(CPU, GPU, second)) is found, factor
        # It says as much for two meters, whichever of them is the headline.
        other = replace(CPU, source="other", values=CPU.values * factor, is_headline=False)
        assert ("estimators_disagree" in reasons(CPU, other)) is found, factor
    message = told(GPU, power("gpu:0", "gpu", SWINGING_W * 1.2, source="nvml", is_headline=False))
    assert re.search(r"gpu:0: 2000\.0 J by test \(counter\), but 2399\.5 J by nvml \(sampled\)", str(message))


def test_a_load_that_swings_excuses_no_sensor() -> None:
    # Between 0 and 400 W the bound of the sampling is wider than any disagreement.
    wild = np.where(np.arange(TIME_S.size) % 2, 0.0, 400.0)
    assert reasons(GPU, power("gpu:0", "gpu", wild * 1.2, is_headline=False)) == {"estimators_disagree"}


def test_a_disagreement_that_the_marks_explain_or_a_model_says_is_none() -> None:
    # 1 s sampled each 100 ms: each estimator may be a period off at the marks.
    short = [PhaseWindow(phase=Phase.MEASURE, start_s=11.0, duration_s=1.0)]
    second = power("gpu:0", "gpu", SWINGING_W * 1.2, is_headline=False)
    readings = attribute([GPU, second], short, origin_s=100.0)
    assert find_reasons(Evidence(readings, [GPU, second], short, 100.0, 4, 40)) == []
    model = trace("cpu_package", "cpu", 500.0, method=EnergyMethod.ESTIMATE, source="estimate", is_headline=False)
    assert reasons(CPU, model) == set()
    # A second estimator of another GPU, or one that was not there throughout, contradicts nobody.
    assert reasons(GPU, power("gpu:1", "gpu", SWINGING_W * 1.2, is_headline=False)) == set()
    late = power("gpu:0", "gpu", SWINGING_W[150:] * 1.2, time_s=TIME_S[150:], is_headline=False)
    assert reasons(GPU, late) == set()


HELD = {"expected_clock_mhz": {"gpu:0": 1005.0}}


def clocks(values: np.ndarray | float, *others: Gauge) -> dict[str, str]:
    return told(CPU, GPU, gauges=[gauge("clock_mhz", values), *others], **HELD)


def test_a_clock_that_is_not_held() -> None:
    assert clocks(1020.0) == clocks(990.0) == {}  # one step off
    assert set(clocks(1035.0)) == {"clock_not_held"}
    # What happens before and after the measured phase is nobody's business.
    assert clocks(np.where(INSIDE, 1005.0, 1980.0)) == {}
    once = np.full(TIME_S.shape, 1005.0)
    once[150] = 210.0  # 1 of 101 samples
    assert clocks(once) == {}
    once[151] = 210.0
    assert "2.0% of the samples (210 to 1005 MHz)" in clocks(once)["clock_not_held"]


def test_an_idle_gpu_may_drop_its_clock() -> None:
    works = (np.arange(TIME_S.size) % 10) < 8
    assert clocks(np.where(works, 1005.0, 210.0), gauge("utilisation", np.where(works, 0.7, 0.0))) == {}
    assert set(clocks(np.where(works, 210.0, 1005.0), gauge("utilisation", np.where(works, 0.7, 0.0)))) == {
        "clock_not_held"
    }
    # Sampled by another meter, at other times and more rarely.
    slow = Gauge("gpu:0", "utilisation", "other", TIME_S[::10] + 0.35, np.ones(TIME_S[::10].size))
    assert set(clocks(210.0, slow)) == {"clock_not_held"}


def test_a_clock_that_nobody_sampled_is_unverified() -> None:
    assert reasons(CPU, GPU, **HELD) == {"clock_unverified"}
    assert reasons(CPU, GPU, gauges=[gauge("clock_mhz", 1005.0, "gpu:1")], **HELD) == {"clock_unverified"}
    # Idle throughout: the clock of its work is not known.
    assert set(clocks(1005.0, gauge("utilisation", 0.0))) == {"clock_unverified"}
    before = Gauge("gpu:0", "clock_mhz", "test", TIME_S[:50], np.full(50, 1005.0))
    assert reasons(CPU, GPU, gauges=[before], **HELD) == {"clock_unverified"}


@pytest.mark.parametrize(("bit", "name"), THROTTLE_REASONS.items())
def test_each_throttle_reason_is_named(bit: int, name: str) -> None:
    masks = np.where(np.arange(TIME_S.size) % 4, 0x2, 0x2 | bit)
    found = told(CPU, GPU, gauges=[gauge("throttle_reasons", masks)])
    assert list(found) == ["throttled"]
    assert re.search(
        rf"gpu:0: throttled in 2\d\.\d% of the samples: {re.escape(name)} in 2\d\.\d%\.", found["throttled"]
    )


def test_being_idle_or_set_by_hand_is_not_throttling() -> None:
    assert reasons(CPU, GPU, gauges=[gauge("throttle_reasons", 0x1 | 0x2 | 0x100)]) == set()
    outside = np.where(INSIDE, 0, 0x4)
    assert reasons(CPU, GPU, gauges=[gauge("throttle_reasons", outside)]) == set()
    rare = np.zeros(TIME_S.size)
    rare[150] = 0x4  # 1 of 101 samples
    assert reasons(CPU, GPU, gauges=[gauge("throttle_reasons", rare)]) == set()


def test_the_table_of_reasons_is_nvmls() -> None:
    pynvml = pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed")
    names = {
        0x4: "SwPowerCap",
        0x8: "HwSlowdown",
        0x10: "SyncBoost",
        0x20: "SwThermalSlowdown",
        0x40: "HwThermalSlowdown",
        0x80: "HwPowerBrakeSlowdown",
    }
    assert {getattr(pynvml, f"nvmlClocksEventReason{name}") for name in names.values()} == set(names)
    not_throttling = ("GpuIdle", "ApplicationsClocksSetting", "DisplayClockSetting")
    bits = set(names) | {getattr(pynvml, f"nvmlClocksEventReason{name}") for name in not_throttling}
    # Together they are all that NVML's present names know.
    assert sum(bits) == pynvml.nvmlClocksEventReasonAll
    assert set(THROTTLE_REASONS) == set(names) | {0x200, 0x400}


def test_company_on_the_gpu() -> None:
    counts = np.zeros(TIME_S.size)
    counts[50] = 3.0  # before the measured phase
    assert reasons(CPU, GPU, gauges=[gauge("foreign_processes", counts)]) == set()
    counts[150] = 2.0
    assert "up to 2 other" in told(CPU, GPU, gauges=[gauge("foreign_processes", counts)])["gpu_shared"]


def test_what_was_asked_and_answered() -> None:
    assert reasons(CPU, n_output_tokens=0) == {"no_tokens"}
    assert reasons(CPU, n_requests=0, n_output_tokens=0) == {"no_requests"}
    assert reasons(CPU, n_planned=5) == {"prompts_missing"}
    assert reasons(CPU, n_requests_kept=3) == {"requests_missing"}


def test_what_is_not_in_the_sum_raises_no_doubt() -> None:
    # An idle integrated GPU (PP1) stands still, a core counter may reset: the package holds them both.
    still = trace("cpu_uncore", "part", 0.0, values=np.full_like(TIME_S, 7.0))
    broken = CPU.values.copy()
    broken[160:] -= 900.0
    core = replace(CPU, domain="cpu_core", component="part", values=broken)
    assert reasons(CPU, GPU, still, core) == set()
    readings = {each.domain: each for each in attribute([core], PHASES[1:], origin_s=100.0)}
    assert readings["cpu_core"].energy_j is None and "no wrap" in readings["cpu_core"].note
    # Where nothing else is measured, the whole system is the sum, and is doubted like any other.
    assert reasons(trace("psys", "system", 0.0), still) == {"energy_not_positive"}
    assert reasons(still) == {"no_energy"}


def test_a_trial_that_never_measured_breaks_no_rule_of_samples() -> None:
    load = [PhaseWindow(phase=Phase.LOAD, start_s=1.0, duration_s=2.0)]
    evidence = Evidence([], [CPU], load, 100.0, 0, 0, gauges=[gauge("throttle_reasons", 0x4)])
    assert {reason.code for reason in find_reasons(evidence)} == {"no_energy", "no_requests"}


def test_every_rule_and_code_is_in_the_manual() -> None:
    manual = (Path(__file__).parents[2] / "docs" / "validity.md").read_text()
    sources = "".join(
        (Path(__file__).parents[2] / "energy" / name).read_text() for name in ("validity.py", "device_rules.py")
    )
    for code in set(re.findall(r'code="(\w+)"', sources)):
        assert f"`{code}`" in manual
    assert all(rule.__doc__ for rule in RULES)
