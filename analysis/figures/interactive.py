"""The figures to look into: plotly, with what a point is under the pointer. Nothing is fetched from anywhere."""

from typing import TYPE_CHECKING, Any

from analysis.figures.accuracy import pareto_front
from analysis.figures.power import BAND_COLOURS, PowerTrace, series_label
from analysis.figures.ranking import EDP, ranked
from analysis.figures.style import PALETTE, colours, energy_label, estimate_note, level_text, levels_of, split_factors
from analysis.statistics import MeanInterval
from analysis.summary import Summary
from contract.errors import UsageError

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_SYMBOLS = (
    "circle",
    "square",
    "diamond",
    "triangle-up",
    "triangle-down",
    "cross",
    "star",
    "x",
    "hexagon",
    "pentagon",
    "triangle-left",
    "triangle-right",
)
_LOG_FROM = 20.0


def interactive_pareto(summary: Summary) -> "Figure":
    """Energy against accuracy, one point per treatment.

    Args:
        summary: from `summarise`.

    Raises:
        UsageError: no treatment has both.
    """
    from plotly.graph_objects import Figure, Scatter

    rows = [row for row in summary.treatments if row.accuracy is not None and row.means["energy_j"].mean is not None]
    if not rows:
        raise UsageError(f"No answers of {summary.experiment.name} were scored: there is no accuracy to draw.")
    try:
        by_colour, by_marker = split_factors(summary, rows)
    except UsageError:
        # Too many for markers. What a point is stands under the pointer.
        by_colour, by_marker = summary.by[:1], ()
    rests = list(dict.fromkeys(levels_of(row, by_marker) for row in rows))
    groups: dict[str, list[Any]] = {}
    for row in rows:
        groups.setdefault(levels_of(row, by_colour), []).append(row)
    colour_of = colours(groups)
    figure = Figure()
    for name, members in groups.items():
        figure.add_trace(
            Scatter(
                x=[row.means["energy_j"].mean for row in members],
                y=[100 * row.accuracy.accuracy for row in members],
                error_x={"type": "data", "array": [row.means["energy_j"].half_width for row in members], "width": 2},
                error_y={
                    "type": "data",
                    "symmetric": False,
                    "array": [100 * (row.accuracy.interval[1] - row.accuracy.accuracy) for row in members],
                    "arrayminus": [100 * (row.accuracy.accuracy - row.accuracy.interval[0]) for row in members],
                    "thickness": 0.8,
                    "width": 2,
                },
                mode="markers",
                name=plain_text(name),
                marker={
                    "size": 10,
                    "color": colour_of[name],
                    "symbol": [_SYMBOLS[rests.index(levels_of(row, by_marker)) % len(_SYMBOLS)] for row in members],
                    "line": {"width": 1, "color": "black"},
                },
                text=[
                    f"{plain_text(row.label)}<br>{interval_text(row.means['energy_j'])} J<br>"
                    f"{row.accuracy.n_correct} of {row.accuracy.n_items} right<br>{row.accuracy.verdict}"
                    for row in members
                ],
                hovertemplate="%{text}<extra></extra>",
            )
        )
    front = pareto_front(rows)
    if len(rows) >= 2:
        figure.add_trace(
            Scatter(
                x=[row.means["energy_j"].mean for row in front],
                y=[100 * row.accuracy.accuracy for row in front if row.accuracy is not None],
                mode="lines",
                line={"shape": "hv", "dash": "dash", "color": "#555"},
                name="Pareto front",
                hoverinfo="skip",
            )
        )
    chances = {row.accuracy.chance_accuracy for row in rows if row.accuracy}
    for chance in sorted(each for each in chances if each is not None):
        figure.add_hline(y=100 * chance, line={"dash": "dot", "color": "#999", "width": 1}, annotation_text="guessing")
    figure.update_xaxes(title=energy_label(summary), **axis_scale([row.means["energy_j"].mean or 0.0 for row in rows]))
    figure.update_yaxes(title="accuracy (%)")
    return styled(figure, f"Energy against accuracy{estimate_note(summary)}", 480)


def interactive_power(trace: PowerTrace) -> "Figure":
    """Power over time with phase bands.

    Args:
        trace: from `power_of`.
    """
    from plotly.graph_objects import Figure, Scatter

    figure = Figure()
    for i, each in enumerate(trace.series):
        figure.add_trace(
            Scatter(
                x=[round(float(edge), 3) for edge in each.edge_s[:-1]],
                y=[round(float(power), 3) for power in each.power_w],
                mode="lines",
                line={"shape": "hv", "width": 1.2, "color": PALETTE[i % len(PALETTE)]},
                name=series_label(each),
                hovertemplate="%{x:.2f} s: %{y:.1f} W",
            )
        )
    names = list(dict.fromkeys(band.name for band in trace.bands))
    for i, name in enumerate(names):
        colour = BAND_COLOURS[i % len(BAND_COLOURS)]
        for band in (each for each in trace.bands if each.name == name):
            figure.add_vrect(x0=band.start_s, x1=band.end_s, fillcolor=colour, opacity=0.14, line_width=0)
        # Names inside the bands would cover each other where bands are narrow: the legend has them.
        square = {"symbol": "square", "size": 12, "color": colour, "opacity": 0.4}
        figure.add_trace(Scatter(x=[None], y=[None], mode="markers", marker=square, name=name))
    estimate = ", estimate" if trace.is_estimate else ""
    figure.update_xaxes(title="time since the first sample (s)")
    figure.update_yaxes(title=f"power (W){estimate}", rangemode="tozero")
    return styled(figure, f"{trace.title}: power{' (estimate)' if trace.is_estimate else ''}", 420)


def interactive_edp(summary: Summary) -> "Figure":
    """Energy-delay product by treatment, the smallest on top.

    Args:
        summary: from `summarise`.

    Raises:
        UsageError: no run has energy and duration.
    """
    from plotly.graph_objects import Figure, Scatter

    rows = ranked(summary)
    first = [str(next(iter(row.treatment.values()), "all runs")) for row in rows]
    colour_of = colours(str(next(iter(row.treatment.values()), "all runs")) for row in summary.treatments)
    labels = [f"{rank}. {plain_text(level_text(row))}" for rank, row in enumerate(rows, start=1)]
    figure = Figure()
    for group in colour_of:
        members = [i for i, name in enumerate(first) if name == group]
        if not members:
            continue
        figure.add_trace(
            Scatter(
                x=[rows[i].means[EDP].mean for i in members],
                y=[labels[i] for i in members],
                error_x={"type": "data", "array": [rows[i].means[EDP].half_width for i in members], "width": 3},
                mode="markers",
                name=plain_text(group),
                marker={"size": 9, "color": colour_of[group], "line": {"width": 1, "color": "black"}},
                text=[
                    f"{plain_text(rows[i].label)}<br>EDP {interval_text(rows[i].means[EDP])} J·s<br>"
                    f"ED²P {interval_text(rows[i].means['ed2p_js2'])} J·s²<br>"
                    f"{interval_text(rows[i].means['energy_j'])} J, {interval_text(rows[i].means['duration_s'])} s"
                    for i in members
                ],
                hovertemplate="%{text}<extra></extra>",
            )
        )
    values = [row.means[EDP].mean or 0.0 for row in rows]
    figure.update_xaxes(title=energy_label(summary, "energy-delay product (J·s)"), **axis_scale(values))
    # Said, because labels of numbers would be taken for numbers.
    figure.update_yaxes(
        type="category", categoryorder="array", categoryarray=labels, autorange="reversed", automargin=True
    )
    return styled(figure, f"Energy-delay product{estimate_note(summary)}", max(320, 130 + 24 * len(rows)))


def plain_text(text: str) -> str:
    """Text as it is: plotly takes `<` for the beginning of a tag."""
    return text.replace("&", "&amp;").replace("<", "&lt;")


def interval_text(mean: MeanInterval) -> str:
    """Mean and half-width for a label under the pointer."""
    if mean.mean is None:
        return "–"
    return f"{mean.mean:,.5g}" + ("" if mean.half_width is None else f" ± {mean.half_width:,.2g}")


def axis_scale(values: list[float]) -> dict[str, Any]:
    """Settings of an axis: logarithmic where the values differ much."""
    if min(values) > 0 and max(values) / min(values) > _LOG_FROM:
        return {"type": "log", "dtick": "D2"}
    return {}


def styled(figure: "Figure", title: str, height_px: int) -> "Figure":
    """The figure with the look that all of them share.

    Args:
        figure: is changed.
        title: goes into the figure's `meta`.
        height_px: of the figure.
    """
    figure.update_layout(
        # Narrow screens have no room for it beside the buttons, and the caption says the same.
        meta={"title": title},
        template="simple_white",
        height=height_px,
        margin={"l": 70, "r": 20, "t": 35, "b": 60},
        # In parts of the plotting area: as far below it in a high figure as in a low one.
        legend={"orientation": "h", "y": -65 / (height_px - 120), "yanchor": "top"},
        font={"family": "system-ui, sans-serif", "size": 12},
        hovermode="closest",
    )
    figure.update_xaxes(showgrid=True, gridcolor="#eee", separatethousands=True)
    figure.update_yaxes(showgrid=True, gridcolor="#eee")
    return figure
