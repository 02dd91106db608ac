"""What adds up, what does not, and how sure the sum is."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from contract.errors import LogFormatError
from contract.trial_result import EnergyMethod, Phase, PhaseWindow
from energy.attribution import attribute, settle_headlines, summarise
from energy.trace import Trace
from energy.trace_log import read_traces, write_traces

TIME_S = np.arange(100.0, 131.0, 0.1)
PHASES = [
    PhaseWindow(phase=Phase.LOAD, start_s=1.0, duration_s=5.0),
    PhaseWindow(phase=Phase.BASELINE, start_s=6.0, duration_s=4.0),
    PhaseWindow(phase=Phase.MEASURE, start_s=11.0, duration_s=10.0),
]


def trace(domain: str, component: str, watts: float, **changes: object) -> Trace:
    base = Trace(
        domain,
        component,  # type: ignore[arg-type]
        "counter",
        EnergyMethod.COUNTER,
        "test",
        TIME_S,
        watts * (TIME_S - 100.0) + 7.0,
    )
    return replace(base, **changes)  # type: ignore[arg-type]


CPU = trace("cpu_package", "cpu", 50.0)
GPU = trace("gpu:0", "gpu", 200.0)


def summary_of(*traces: Trace):  # type: ignore[no-untyped-def]
    readings = attribute(traces, PHASES, origin_s=100.0)
    return summarise(readings, PHASES)


def test_cpu_and_gpu_are_added_once() -> None:
    others = [
        trace("cpu_core", "part", 30.0),
        trace("psys", "system", 300.0),
        trace("gpu:0", "gpu", 210.0, is_headline=False),
        trace("dram", "dram", 5.0),
    ]
    summary = summary_of(CPU, GPU, *others)
    assert summary.energy_j == pytest.approx(2550.0)
    assert (summary.cpu_energy_j, summary.gpu_energy_j) == (pytest.approx(500.0), pytest.approx(2000.0))
    assert summary.dram_energy_j == pytest.approx(50.0)
    assert summary.domains == ["cpu_package", "gpu:0", "dram"]


def test_psys_alone_is_the_sum_where_nothing_else_is() -> None:
    summary = summary_of(trace("psys", "system", 300.0), trace("cpu_core", "part", 30.0))
    assert (summary.energy_j, summary.domains) == (pytest.approx(3000.0), ["psys"])
    assert summary.cpu_energy_j is None


def test_net_is_gross_less_the_idle_baseline() -> None:
    idle_then_busy = 20.0 * (TIME_S - 100.0) + np.maximum(TIME_S - 111.0, 0.0) * 80.0
    summary = summary_of(trace("cpu_package", "cpu", 0.0, values=idle_then_busy))
    assert summary.baseline_power_w == pytest.approx(20.0)
    assert summary.energy_j == pytest.approx(1000.0)
    assert summary.energy_net_j == pytest.approx(800.0)


def test_without_a_baseline_net_is_not_measured() -> None:
    phases = [PHASES[2]]
    summary = summarise(attribute([CPU], phases, origin_s=100.0), phases)
    assert summary is not None
    assert (summary.energy_net_j, summary.baseline_power_w) == (None, None)


def test_one_estimate_makes_the_sum_an_estimate() -> None:
    assert summary_of(CPU, GPU).method is EnergyMethod.COUNTER
    assert summary_of(CPU, replace(GPU, method=EnergyMethod.SAMPLED)).method is EnergyMethod.SAMPLED
    assert summary_of(replace(CPU, method=EnergyMethod.ESTIMATE), GPU).method is EnergyMethod.ESTIMATE


def test_a_part_of_a_sum_is_not_the_sum() -> None:
    short = replace(GPU, time_s=TIME_S[:150], values=GPU.values[:150])  # ends in the measured phase
    summary = summary_of(CPU, short)
    assert summary.energy_j is None
    assert summary.cpu_energy_j == pytest.approx(500.0)


def test_no_trace_is_no_summary() -> None:
    assert summary_of() is None


def test_a_domain_of_two_meters_is_added_once() -> None:
    other = replace(CPU, source="other", values=CPU.values * 1.01)
    power = replace(CPU, source="power", kind="power", method=EnergyMethod.SAMPLED, values=np.full_like(TIME_S, 60.0))
    model = replace(CPU, source="model", method=EnergyMethod.ESTIMATE, values=CPU.values * 3)
    for order in ([model, power, CPU, other], [CPU, other, power, model]):
        settled = settle_headlines([*order, GPU])
        assert [each.source for each in settled if each.is_headline] == ["test", "test"]
        assert [replace(each, is_headline=True) for each in settled] == [*order, GPU]
        assert summary_of(*settled).energy_j == pytest.approx(2500.0)
    assert summary_of(*settle_headlines([model, power])).energy_j == pytest.approx(600.0)
    second = replace(power, is_headline=False)
    assert settle_headlines([second, CPU]) == [second, CPU]


def test_traces_survive_the_disk_to_the_last_bit(tmp_path: Path) -> None:
    odd = replace(GPU, wrap_j=262144.0, is_headline=False, note='a "quoted", comma; note', values=GPU.values / 3)
    write_traces(tmp_path / "trace_x.csv", [CPU, odd])
    for before, after in zip([CPU, odd], read_traces(tmp_path / "trace_x.csv"), strict=True):
        assert np.array_equal(before.time_s, after.time_s) and np.array_equal(before.values, after.values)
        assert (
            replace(before, time_s=TIME_S, values=TIME_S).__repr__()
            == replace(after, time_s=TIME_S, values=TIME_S).__repr__()
        )


@pytest.mark.parametrize(
    "text", ["", "a,b\n", "domain,component,kind,method,source,wrap_j,is_headline,note,time_s,value\nx\n"]
)
def test_a_broken_trace_log_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "trace_x.csv").write_text(text)
    with pytest.raises(LogFormatError, match=r"trace_x\.csv, line"):
        read_traces(tmp_path / "trace_x.csv")
