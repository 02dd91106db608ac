"""Power over time of one run, with its phases as bands."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from analysis.figures.style import PALETTE, new_figure, plain
from contract.errors import UsageError
from contract.trial_result import EnergyMethod
from energy.integrate import CumulativeEnergy
from energy.trace import FloatArray, Trace

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_BINS = 1200
BAND_COLOURS = ("#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#7F7F7F")
_LINES = ("-", "--", "-.", ":")


@dataclass(frozen=True)
class PowerSeries:
    """Mean power of one domain in consecutive bins.

    Attributes:
        domain: as in `Trace.domain`.
        source: meter.
        method: how the figures came about.
        edge_s: shape (n + 1,), seconds from the first sample of the run.
        power_w: shape (n,); energy of the bin over its width, so the area is the energy, exactly.
    """

    domain: str
    source: str
    method: EnergyMethod
    edge_s: FloatArray = field(repr=False)
    power_w: FloatArray = field(repr=False)


@dataclass(frozen=True)
class Band:
    """A phase: name, and when, in seconds from the first sample of the run."""

    name: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class PowerTrace:
    """What `power_trace` draws.

    Attributes:
        title: names the run.
        series: one per domain that adds up; parts and second estimators are not among them.
        bands: phases; may be empty.
    """

    title: str
    series: tuple[PowerSeries, ...]
    bands: tuple[Band, ...] = ()

    @property
    def is_estimate(self) -> bool:
        """Whether any of it was computed from a model instead of measured."""
        return any(each.method is EnergyMethod.ESTIMATE for each in self.series)


def power_of(title: str, traces: Iterable[Trace], bands: Sequence[Band], *, max_bins: int = MAX_BINS) -> PowerTrace:
    """From samples to power over time.

    Args:
        title: names the run.
        traces: of the run, on one clock; parts, second estimators and traces of fewer than three samples are left
            out.
        bands: phases, on the traces' clock.
        max_bins: of the longest trace; longer ones are averaged, so that peaks shorter than a bin are flattened.

    Raises:
        UsageError: nothing is left to draw.
    """
    used = [each for each in traces if each.is_headline and each.component != "part" and each.time_s.size > 2]
    if not used:
        raise UsageError(f"{title}: no trace of power or energy with three samples or more. There is nothing to draw.")
    zero_s = min(float(each.time_s[0]) for each in used)
    series = [_series(each, zero_s, max_bins) for each in used]
    shown = [each for each in series if each is not None]
    moved = tuple(Band(band.name, band.start_s - zero_s, band.end_s - zero_s) for band in bands)
    return PowerTrace(title, tuple(shown), moved)


def _series(trace: Trace, zero_s: float, max_bins: int) -> PowerSeries | None:
    cumulative = CumulativeEnergy(trace)
    first_s, last_s = float(trace.time_s[0]), float(trace.time_s[-1])
    period_s = cumulative.period_s
    if period_s is None or last_s <= first_s:
        return None
    # Not finer than the samples: a counter between two of them is a straight line.
    n_bins = max(1, min(max_bins, int((last_s - first_s) / period_s)))
    edges_s = np.linspace(first_s, last_s, n_bins + 1)
    energy_j = np.array([cumulative.at(float(edge)) for edge in edges_s])
    return PowerSeries(trace.domain, trace.source, trace.method, edges_s - zero_s, np.diff(energy_j) / np.diff(edges_s))


def series_label(series: PowerSeries) -> str:
    """Domain, method and meter."""
    if series.method is EnergyMethod.ESTIMATE:
        return f"{series.domain} (estimate)"
    return f"{series.domain} ({series.method.value} by {series.source})"


def power_trace(trace: PowerTrace) -> "Figure":
    """Power of each domain over a run; phases as bands.

    Args:
        trace: from `power_of`.
    """
    figure = new_figure(9.0, 4.2)
    axes = figure.subplots()
    names = list(dict.fromkeys(band.name for band in trace.bands))
    for band in trace.bands:
        colour = BAND_COLOURS[names.index(band.name) % len(BAND_COLOURS)]
        axes.axvspan(band.start_s, band.end_s, color=colour, alpha=0.14, linewidth=0, zorder=0)
    for i, each in enumerate(trace.series):
        axes.stairs(
            each.power_w,
            each.edge_s,
            baseline=None,
            color=PALETTE[i % len(PALETTE)],
            linestyle=_LINES[i // len(PALETTE) % len(_LINES)],
            linewidth=1.0,
            label=series_label(each),
        )
    axes.set_ylim(bottom=0)
    axes.set_xlim(0, max(float(each.edge_s[-1]) for each in trace.series))
    axes.set_xlabel("time since the first sample (s)")
    axes.set_ylabel("power (W)" + (", estimate" if trace.is_estimate else ""))
    axes.grid(visible=True, color="0.92", zorder=0)
    plain(axes)
    axes.set_title(f"{trace.title}: power{' (estimate)' if trace.is_estimate else ''}", fontsize=10)
    from matplotlib.patches import Patch

    handles = [
        *axes.get_legend_handles_labels()[0],
        *(Patch(color=BAND_COLOURS[i % len(BAND_COLOURS)], alpha=0.3, label=name) for i, name in enumerate(names)),
    ]
    figure.legend(handles=handles, loc="outside right upper", fontsize=8, frameon=False)
    return figure
