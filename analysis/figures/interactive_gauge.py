"""Conditions of one run over time, to look into: temperatures, clocks, utilisation."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from analysis.figures.interactive import plain_text, styled
from analysis.figures.style import PALETTE
from energy.trace import FloatArray, Gauge

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

MAX_POINTS = 1200
NAMES = {
    "temp_c": "temperature (°C)",
    "clock_mhz": "clock (MHz)",
    "utilisation": "utilisation (0 to 1)",
    "power_limit_w": "power limit (W)",
}
"""Quantity -> label of its axis, those first that are looked at first."""


def interactive_gauges(gauges: Sequence[Gauge], zero_s: float, *, max_points: int = MAX_POINTS) -> "dict[str, Figure]":
    """A figure per quantity, a line per domain.

    Args:
        gauges: of a run, on one clock.
        zero_s: what the figures call 0, on that clock: the first sample of the power.
        max_points: of a line; longer ones are averaged, and the figure's `meta["thinned"]` says so in words.

    Returns:
        Quantity -> figure; empty without samples.
    """
    from plotly.graph_objects import Figure, Scatter

    by_quantity: dict[str, list[Gauge]] = {}
    for each in gauges:
        if each.time_s.size:
            by_quantity.setdefault(each.quantity, []).append(each)
    order = [*NAMES, *sorted(by_quantity.keys() - NAMES.keys())]
    figures = {}
    for quantity in (name for name in order if name in by_quantity):
        figure, is_thinned = Figure(), False
        for i, each in enumerate(by_quantity[quantity]):
            time_s, values = averaged(each.time_s - zero_s, each.values, max_points)
            is_thinned |= time_s.size < each.time_s.size
            figure.add_trace(
                Scatter(
                    x=np.round(time_s, 3).tolist(),
                    y=np.round(values, 4).tolist(),
                    mode="lines" if time_s.size > 1 else "markers",
                    line={"width": 1.2, "color": PALETTE[i % len(PALETTE)]},
                    name=plain_text(f"{each.domain} ({each.source})"),
                    hovertemplate="%{x:.2f} s: %{y:.5g}",
                    showlegend=True,
                )
            )
        title = NAMES.get(quantity, quantity)
        figure.update_xaxes(title="time since the first sample of power (s)")
        figure.update_yaxes(title=title)
        styled(figure, title[:1].upper() + title[1:], 260)
        if is_thinned:
            figure.layout.meta = {
                **figure.layout.meta,
                "thinned": f"Averaged to {max_points:,} points a line; peaks shorter than that are flattened.",
            }
        figures[quantity] = figure
    return figures


def averaged(time_s: FloatArray, values: FloatArray, max_points: int) -> tuple[FloatArray, FloatArray]:
    """Means of consecutive samples, at most so many.

    Args:
        time_s: shape (n,), rising.
        values: shape (n,).
        max_points: at least 1.
    """
    if time_s.size <= max_points:
        return time_s, values
    starts = np.unique(np.linspace(0, time_s.size, max_points, endpoint=False).astype(int))
    counts = np.diff(np.append(starts, time_s.size))
    return np.add.reduceat(time_s, starts) / counts, np.add.reduceat(values, starts) / counts
