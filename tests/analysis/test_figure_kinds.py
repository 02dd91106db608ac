"""The figures of `analysis.figures` that a report adds to energy and accuracy."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.figures import (
    edp_ranking,
    energy_per_token,
    interaction_profile,
    power_trace,
    temperature_slope,
    thermal_carry_over,
)
from analysis.figures.energy import token_factor
from analysis.figures.interactive import interactive_edp, interactive_pareto, interactive_power
from analysis.figures.power import Band, power_of
from analysis.figures.ranking import ranked
from analysis.figures.style import MIN_VIOLIN
from analysis.load import load_runs
from analysis.summary import Summary, summarise
from contract.errors import UsageError
from contract.trial_result import EnergyMethod
from energy.trace import Trace


def summary_of(table: Any, **options: Any) -> Summary:
    return summarise(load_runs(table.folder), **options)


def violins(figure: Any) -> int:
    from matplotlib.collections import FillBetweenPolyCollection

    return sum(isinstance(each, FillBetweenPolyCollection) for axes in figure.axes for each in axes.collections)


def trace(time_s: Any, values: Any, kind: Any = "power", method: EnergyMethod = EnergyMethod.SAMPLED) -> Trace:
    return Trace("gpu:0", "gpu", kind, method, "nvml", np.asarray(time_s, float), np.asarray(values, float))


@pytest.mark.parametrize(("repetitions", "expected"), [(MIN_VIOLIN - 1, 0), (MIN_VIOLIN, 2)])
def test_a_violin_needs_five_runs(write_experiment: Any, repetitions: int, expected: int) -> None:
    table = write_experiment("violin", {"task": ["a", "b"]}, repetitions)
    table.succeed_all(lambda _, r: {"energy_j": 100.0 + r, "duration_s": 10.0})
    assert violins(edp_ranking(summary_of(table))) == expected


def test_equal_runs_have_no_violin(write_experiment: Any) -> None:
    table = write_experiment("equal", {"task": ["a", "b"]}, MIN_VIOLIN)
    table.succeed_all(lambda *_: {"energy_j": 100.0})
    assert violins(edp_ranking(summary_of(table))) == 0


def test_energy_per_token_is_by_generation_and_coloured_by_what_separates_it(write_experiment: Any) -> None:
    table = write_experiment("llama", {"task": ["a", "b"], "generation": ["2", "3"], "size": ["1B", "8B"]})
    table.succeed_all(lambda t, r: {"energy_j": (100.0 if t["size"] == "1B" else 900.0) + r, "n_output_tokens": 100})
    summary = summary_of(table)
    assert token_factor(summary) == "generation"
    figure = energy_per_token(summary)
    (axes,) = figure.axes
    assert axes.get_ylabel() == "energy per output token (J/token), counter by rapl"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["2", "3"]
    (legend,) = figure.legends
    assert legend.get_title().get_text() == "size"
    assert [text.get_text() for text in legend.get_texts()] == ["1B", "8B"]


def test_an_interaction_needs_two_factors(write_experiment: Any, quickstart: Any) -> None:
    table = write_experiment("one", {"task": ["a", "b"], "n": [1]})
    table.succeed_all()
    with pytest.raises(UsageError, match="an interaction needs two"):
        interaction_profile(summary_of(table))
    (axes,) = interaction_profile(summary_of(quickstart)).axes
    assert axes.get_xlabel() == "concurrency"
    assert axes.get_ylabel().endswith("(J), estimate")


def test_the_smallest_product_is_first(write_experiment: Any) -> None:
    table = write_experiment("rank", {"model": ["a", "b", "c"]})
    # 100 J x 30 s, 200 J x 10 s, 150 J x 16 s
    values = {"a": (100.0, 30.0), "b": (200.0, 10.0), "c": (150.0, 16.0)}
    table.succeed_all(lambda t, _: {"energy_j": values[t["model"]][0], "duration_s": values[t["model"]][1]})
    summary = summary_of(table)
    assert [row.treatment["model"] for row in ranked(summary)] == ["b", "c", "a"]
    (axes,) = edp_ranking(summary).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["1. b", "2. c", "3. a"]
    assert "(J·s)" in axes.get_xlabel()
    assert "(J·s)" in interactive_edp(summary).layout.xaxis.title.text


@given(
    power_w=st.lists(st.floats(0, 1000), min_size=3, max_size=300),
    period_s=st.floats(0.01, 10),
    max_bins=st.integers(1, 500),
)
def test_the_area_under_the_power_is_the_energy_at_any_number_of_bins(
    power_w: list[float], period_s: float, max_bins: int
) -> None:
    time_s = np.arange(len(power_w)) * period_s + 1e6
    shown = power_of("run", [trace(time_s, power_w)], [], max_bins=max_bins).series[0]
    area_j = float(np.sum(shown.power_w * np.diff(shown.edge_s)))
    energy_j = float(np.sum((np.array(power_w[1:]) + np.array(power_w[:-1])) / 2) * period_s)
    assert area_j == pytest.approx(energy_j, rel=1e-6, abs=1e-6)
    assert len(shown.power_w) <= max_bins


def test_a_counter_of_100_w_is_drawn_at_100_w_with_its_phases() -> None:
    time_s = np.arange(0, 10.2, 0.2) + 5000
    shown = power_of("run_0", [trace(time_s, 100 * (time_s - 4000), kind="counter")], [Band("measure", 5002.0, 5008.0)])
    assert shown.series[0].power_w == pytest.approx(100.0)
    assert shown.bands[0].start_s == pytest.approx(2.0)
    (axes,) = power_trace(shown).axes
    assert axes.get_ylabel() == "power (W)"
    assert axes.get_xlabel() == "time since the first sample (s)"
    drawn = interactive_power(shown)
    assert {each.name for each in drawn.data} == {"gpu:0 (sampled by nvml)", "measure"}


def test_an_estimated_power_says_so() -> None:
    shown = power_of("run_0", [trace([0, 1, 2], [5, 5, 5], method=EnergyMethod.ESTIMATE)], [])
    (axes,) = power_trace(shown).axes
    assert "estimate" in axes.get_ylabel()
    assert "(estimate)" in axes.get_title()
    assert "estimate" in interactive_power(shown).layout.yaxis.title.text


def test_parts_and_second_estimators_are_not_drawn() -> None:
    part = Trace("cpu_core", "part", "power", EnergyMethod.SAMPLED, "x", np.arange(3.0), np.ones(3))
    with pytest.raises(UsageError, match="nothing to draw"):
        power_of("run_0", [part], [])


def heated(write_experiment: Any, result_of: Any, percent_per_c: float) -> Summary:
    """Twelve runs whose energy follows their start temperature exactly, around 1000 J and 3000 J."""
    from contract.attempt_state import AttemptState

    table = write_experiment("heat", {"model": ["small", "large"]}, repetitions=6)
    for repetition in range(6):
        for i, base_j in enumerate((1000.0, 3000.0)):
            # -2.5 to 2.5 around 40 °C: the treatment's means are base_j and 40.
            offset_c = repetition - 2.5
            run_id = f"run_{i}_repetition_{repetition}"
            result = result_of(run_id, energy_j=base_j * (1 + percent_per_c / 100 * offset_c))
            warm = result.model_copy(update={"start_temp_c": 40 + offset_c})
            table.attempt(run_id, AttemptState.SUCCEEDED, result=warm, run_state="DONE")
    return summary_of(table)


def test_a_known_slope_is_found_within_treatments(write_experiment: Any, result_of: Any) -> None:
    summary = heated(write_experiment, result_of, 0.43)
    slope = temperature_slope(summary)
    assert slope is not None
    assert slope.percent_per_c == pytest.approx(0.43)
    assert (slope.n, slope.n_treatments) == (12, 2)
    assert slope.low == pytest.approx(0.43, abs=1e-6)
    left, right = thermal_carry_over(summary).axes
    assert left.get_ylabel() == "start temperature (°C)"
    assert "(%)" in right.get_ylabel()


def test_without_temperatures_no_slope_is_made_up(quickstart: Any) -> None:
    # All start at 38 °C: nothing can be said of another temperature.
    summary = summary_of(quickstart)
    assert temperature_slope(summary) is None
    with pytest.raises(UsageError, match="temperatures that differ"):
        thermal_carry_over(summary)


def test_the_interactive_front_names_each_point(quickstart: Any) -> None:
    drawn = interactive_pareto(summary_of(quickstart))
    texts = [text for each in drawn.data if each.text is not None for text in each.text]
    assert any(text.startswith("task=BoolQ, concurrency=4<br>") for text in texts)
    assert drawn.layout.xaxis.title.text == "energy of the measured phase (J), estimate"
    assert drawn.layout.yaxis.title.text == "accuracy (%)"
