"""Thermal carry-over: what a run leaves behind for the next one, and whether it matters."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.figures.style import PALETTE, estimate_note, new_figure, plain, spread
from analysis.statistics import CONFIDENCE
from analysis.summary import Summary
from contract.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MIN_RUNS = 10
"""Runs with a start temperature and a predecessor, below which nothing is drawn."""


@dataclass(frozen=True)
class TemperatureSlope:
    """Energy by start temperature, within treatments.

    Attributes:
        percent_per_c: change of energy per degree.
        low: of the 95 % interval.
        high: of the 95 % interval.
        n: runs.
        n_treatments: whose means were taken out.
        deviations: (degrees, percent) from the treatment's mean, one per run.
    """

    percent_per_c: float
    low: float
    high: float
    n: int
    n_treatments: int
    deviations: tuple[tuple[float, float], ...]


def temperature_slope(summary: Summary) -> TemperatureSlope | None:
    """Least squares of energy on start temperature after each treatment's mean is taken out of both.

    Association, not cause: runs are not drawn by temperature, and outputs that differ between dates move energy too.

    Args:
        summary: from `summarise`.

    Returns:
        None with fewer than `MIN_RUNS` runs in treatments of two or more, or where temperatures never differ.
    """
    from scipy.special import stdtrit

    deviations: list[tuple[float, float]] = []
    n_treatments = 0
    for row in summary.treatments:
        pairs = [
            (run["start_temp_c"], run["energy_j"])
            for run in row.runs
            if run["start_temp_c"] is not None and run["energy_j"] is not None
        ]
        if len(pairs) < 2:
            continue
        n_treatments += 1
        mean_c = math.fsum(temp for temp, _ in pairs) / len(pairs)
        mean_j = math.fsum(joules for _, joules in pairs) / len(pairs)
        if mean_j > 0:
            deviations += [(temp - mean_c, 100 * (joules / mean_j - 1)) for temp, joules in pairs]
    freedom = len(deviations) - n_treatments - 1
    x, y = np.array([d[0] for d in deviations]), np.array([d[1] for d in deviations])
    if len(deviations) < MIN_RUNS or freedom < 1 or float(x @ x) < 1e-9:
        return None
    slope = float(x @ y) / float(x @ x)
    rest = y - slope * x
    half = float(stdtrit(freedom, 0.5 + CONFIDENCE / 2)) * math.sqrt(float(rest @ rest) / freedom / float(x @ x))
    return TemperatureSlope(slope, slope - half, slope + half, len(deviations), n_treatments, tuple(deviations))


def thermal_carry_over(summary: Summary) -> "Figure":
    """Start temperature by what ran before, and energy by start temperature within treatments.

    Args:
        summary: from `summarise`.

    Raises:
        UsageError: too few runs have a start temperature and a known predecessor.
    """
    pairs = _predecessors(summary)
    slope = temperature_slope(summary)
    if len(pairs) < MIN_RUNS or slope is None:
        raise UsageError(
            f"{len(pairs)} runs of {summary.experiment.name} have a start temperature and a known predecessor; "
            f"thermal carry-over needs {MIN_RUNS}, at temperatures that differ."
        )
    factor, groups = _strongest(summary, pairs)
    figure = new_figure(9.5, 4.2)
    left, right = figure.subplots(1, 2)
    for x, values in enumerate(groups.values()):
        left.scatter(
            spread(x, len(values)), values, s=14, color=PALETTE[x % len(PALETTE)], alpha=0.4, linewidths=0, zorder=2
        )
        left.plot([x], [math.fsum(values) / len(values)], "D", color="white", markeredgecolor="black", zorder=3)
    left.set_xticks(range(len(groups)), [str(level) for level in groups])
    left.set_xlim(-0.6, len(groups) - 0.4)
    left.set_xlabel(f"{factor} of the run before" if factor else "any run before")
    left.set_ylabel("start temperature (°C)")
    left.grid(axis="y", color="0.9")
    left.set_title("what the run before leaves\ndiamond: mean", fontsize=10)
    degrees = [each for each, _ in slope.deviations]
    percents = [each for _, each in slope.deviations]
    right.scatter(degrees, percents, s=14, color=PALETTE[0], alpha=0.4, linewidths=0)
    ends = [min(degrees), max(degrees)]
    right.plot(ends, [slope.percent_per_c * end for end in ends], color=PALETTE[1], linewidth=1.6)
    right.axhline(0, color="0.6", linewidth=0.8, zorder=0)
    right.set_xlabel("start temperature less treatment mean (°C)")
    right.set_ylabel(f"energy against treatment mean (%){', estimate' if summary.is_estimate else ''}")
    right.grid(color="0.92")
    right.set_title(
        f"{slope.percent_per_c:+.2f} % per °C [{slope.low:+.2f}, {slope.high:+.2f}]\n"
        f"{slope.n} runs in {slope.n_treatments} treatments",
        fontsize=10,
    )
    for axes in (left, right):
        plain(axes)
    figure.suptitle(f"{summary.experiment.name}: thermal carry-over{estimate_note(summary)}", fontsize=10)
    return figure


def _predecessors(summary: Summary) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """(the planned run before, a counted run with a start temperature), in execution order."""
    before = {row["position"]: row for row in summary.experiment.runs.iter_rows(named=True)}
    runs = [run for row in summary.treatments for run in row.runs]
    return [
        (before[run["position"] - 1], run)
        for run in runs
        if run["start_temp_c"] is not None and run["position"] is not None and run["position"] - 1 in before
    ]


def _strongest(
    summary: Summary, pairs: Sequence[tuple[dict[str, Any], dict[str, Any]]]
) -> tuple[str | None, dict[Any, list[float]]]:
    """The factor of the run before that explains most of the start temperature, and the temperatures by its level."""
    best: tuple[float, str | None, dict[Any, list[float]]] = (
        -1.0,
        None,
        {"all": [run["start_temp_c"] for _, run in pairs]},
    )
    for name in summary.by:
        groups: dict[Any, list[float]] = {}
        for previous, run in pairs:
            groups.setdefault(previous[name], []).append(run["start_temp_c"])
        if len(groups) < 2:
            continue
        whole = np.concatenate([np.array(values) for values in groups.values()])
        rest = sum(float(((np.array(values) - np.mean(values)) ** 2).sum()) for values in groups.values())
        total = float(((whole - whole.mean()) ** 2).sum())
        share = 1 - rest / total if total > 0 else 0.0
        if share > best[0]:
            best = (share, name, dict(sorted(groups.items(), key=lambda item: str(item[0]))))
    return best[1], best[2]
