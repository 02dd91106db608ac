"""What the figures to look into leave out, and which factors are work."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from analysis.figures.interactive_gauge import averaged, interactive_gauges
from analysis.figures.interactive_points import interactive_points, thin
from analysis.load import load_runs
from analysis.load_joulebed import load_joulebed
from analysis.summary import Summary, summarise
from analysis.work_factor import configuration_factors
from contract.errors import UsageError
from energy.trace import Gauge
from tests.analysis.conftest import RunTableWriter


@pytest.mark.parametrize("n", [1, 2, 5, 99, 100, 101, 1000])
@pytest.mark.parametrize("kept", [2, 7, 100])
def test_thinning_keeps_the_ends_and_the_bound(n: int, kept: int) -> None:
    values = list(range(n))
    shown = thin(values, kept)
    assert len(shown) == min(n, kept)
    assert (shown[0], shown[-1]) == (0, n - 1)
    assert shown == sorted(set(shown))


def test_averaging_keeps_the_mean_of_even_bins() -> None:
    time_s, values = np.arange(1200.0), np.random.default_rng(0).normal(size=1200)
    few_s, few = averaged(time_s, values, 100)
    assert few.size == 100
    assert few.mean() == pytest.approx(values.mean())
    assert few_s.mean() == pytest.approx(time_s.mean())
    same_s, same = averaged(time_s, values, 1200)
    assert same is values and same_s is time_s


def test_gauges_are_on_the_clock_of_the_power() -> None:
    hot = Gauge("gpu:0", "temp_c", "nvml", np.array([100.0, 101.0]), np.array([50.0, 51.0]))
    clock = Gauge("gpu:0", "clock_mhz", "nvml", np.array([100.0]), np.array([1005.0]))
    figures = interactive_gauges([clock, hot], 99.0)
    assert list(figures) == ["temp_c", "clock_mhz"]
    assert list(figures["temp_c"].data[0].x) == [1.0, 2.0]
    assert interactive_gauges([], 0.0) == {}


def test_points_are_bounded_and_the_means_are_of_all(quickstart: RunTableWriter) -> None:
    summary = summarise(load_runs(quickstart.folder))
    few = interactive_points(summary, max_points=8)
    assert sum(len(trace.x) for trace in few.data[:-1]) == 8
    assert "8 of 12 runs" in few.layout.meta["thinned"]
    every = interactive_points(summary, max_points=100)
    assert "thinned" not in every.layout.meta
    assert list(few.data[-1].x) == list(every.data[-1].x) == [row.means["energy_j"].mean for row in summary.treatments]
    assert "estimate" in few.layout.meta["title"]


def hashed(summary: Summary, name: Callable[[dict[str, object]], str]) -> Summary:
    treatments = tuple(
        replace(row, runs=tuple({**run, "prompt_sha256": name(row.treatment)} for run in row.runs))  # type: ignore[arg-type]
        for row in summary.treatments
    )
    return replace(summary, treatments=treatments)


def test_factors_that_change_the_prompts_are_work(write_experiment: Callable[..., RunTableWriter]) -> None:
    table = write_experiment("questions", {"book": ["one", "two"], "power_limit": [100, 200]})
    table.succeed_all()
    summary = summarise(load_runs(table.folder))
    assert configuration_factors(summary) == ("book", "power_limit")  # the same prompts everywhere
    by_book = hashed(summary, lambda treatment: str(treatment["book"]))
    assert configuration_factors(by_book) == ("power_limit",)
    by_both = hashed(summary, str)
    assert configuration_factors(by_both) == ("book", "power_limit")  # something must be compared


def test_one_run_is_read_alone(quickstart: RunTableWriter) -> None:
    whole = load_runs(quickstart.folder)
    alone = load_joulebed(quickstart.folder, run_id="run_1_repetition_2")
    assert alone.runs.rows() == whole.runs.filter(whole.runs["run_id"] == "run_1_repetition_2").rows()
    with pytest.raises(UsageError, match="has no run 'run_9'"):
        load_joulebed(quickstart.folder, run_id="run_9")
