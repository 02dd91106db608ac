"""Figures to look into with a line per treatment: each run a point, the mean with its interval on top."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from analysis.figures.interactive import axis_scale, interval_text, plain_text, styled
from analysis.figures.style import colours, energy_label, estimate_note, level_text, spread
from analysis.summary import Summary, TreatmentSummary
from contract.errors import UsageError

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

MAX_POINTS = 1500
"""Points that a browser draws at once without a pause that is felt."""

_ROW_PX = 24


def interactive_points(
    summary: Summary, quantity: str = "energy_j", label: str = "energy of the measured phase (J)", *, max_points: int
) -> "Figure":
    """A quantity by treatment, in the order of the summary: runs as points, means with 95 % intervals as diamonds.

    Args:
        summary: from `summarise`.
        quantity: column of `TreatmentSummary.means` that comes from energy.
        label: of the axis, with the unit.
        max_points: in all; more are thinned evenly over their order of size, and the figure's `meta["thinned"]` says
            so in words.

    Raises:
        UsageError: no run has the quantity.
    """
    from plotly.graph_objects import Figure, Scatter

    rows = [row for row in summary.treatments if row.means[quantity].mean is not None]
    if not rows:
        raise UsageError(f"No counted run of {summary.experiment.name} has a figure for {label}: nothing to draw.")
    groups = [_group(row) for row in rows]
    colour_of = colours(_group(row) for row in summary.treatments)
    kept = max(2, max_points // len(rows))
    n_all = n_shown = 0
    points: dict[str, list[tuple[float, float, str]]] = {}
    for y, row in enumerate(rows):
        found = sorted((run[quantity], run["run_id"]) for run in row.runs if run[quantity] is not None)
        shown = thin(found, kept)
        n_all, n_shown = n_all + len(found), n_shown + len(shown)
        places = spread(y, len(shown))
        said = f"{plain_text(row.label)}<br>"
        points.setdefault(groups[y], []).extend(
            (value, place, f"{said}{run_id}: {value:,.5g}")
            for (value, run_id), place in zip(shown, places, strict=True)
        )
    figure = Figure()
    for name, members in points.items():
        figure.add_trace(
            Scatter(
                x=[point[0] for point in members],
                y=[point[1] for point in members],
                text=[point[2] for point in members],
                mode="markers",
                name=plain_text(name),
                legendgroup=name,
                marker={"size": 6, "color": colour_of[name], "opacity": 0.6},
                hovertemplate="%{text}<extra></extra>",
            )
        )
    figure.add_trace(
        Scatter(
            x=[row.means[quantity].mean for row in rows],
            y=list(range(len(rows))),
            error_x={"type": "data", "array": [row.means[quantity].half_width for row in rows], "width": 3},
            text=[f"{plain_text(row.label)}<br>mean {interval_text(row.means[quantity])}" for row in rows],
            mode="markers",
            name="mean, 95 % interval",
            marker={
                "size": 9,
                "symbol": "diamond",
                "color": [colour_of[name] for name in groups],
                "line": {"width": 1, "color": "black"},
            },
            hovertemplate="%{text}<extra></extra>",
        )
    )
    values = [row.means[quantity].mean or 0.0 for row in rows]
    figure.update_xaxes(title=energy_label(summary, label), **axis_scale(values))
    _rows_axis(figure, rows)
    title = f"{label.split(' (')[0]} by treatment{estimate_note(summary)}"
    styled(figure, title[:1].upper() + title[1:], _height(rows))
    if n_shown < n_all:
        said = f"{n_shown:,} of {n_all:,} runs are drawn as points, evenly over their order; means are of all."
        figure.layout.meta = {**figure.layout.meta, "thinned": said}
    return figure


def interactive_accuracy(summary: Summary) -> "Figure":
    """Accuracy by treatment with its 95 % Wilson interval, and guessing as a line through the row.

    Args:
        summary: from `summarise`.

    Raises:
        UsageError: no answers were scored.
    """
    from plotly.graph_objects import Figure, Scatter

    rows = [row for row in summary.treatments if row.accuracy is not None]
    if not rows:
        raise UsageError(f"No answers of {summary.experiment.name} were scored: there is no accuracy to draw.")
    scores = [row.accuracy for row in rows if row.accuracy is not None]
    colour_of = colours(_group(row) for row in summary.treatments)
    figure = Figure()
    figure.add_trace(
        Scatter(
            x=[100 * each.accuracy for each in scores],
            y=list(range(len(rows))),
            error_x={
                "type": "data",
                "symmetric": False,
                "array": [100 * (each.interval[1] - each.accuracy) for each in scores],
                "arrayminus": [100 * (each.accuracy - each.interval[0]) for each in scores],
                "width": 3,
            },
            mode="markers",
            name="accuracy, 95 % Wilson interval",
            marker={
                "size": 9,
                "color": [colour_of[_group(row)] for row in rows],
                "line": {"width": 1, "color": "black"},
            },
            text=[
                f"{plain_text(row.label)}<br>{each.n_correct} of {each.n_items} right<br>{each.verdict}"
                for row, each in zip(rows, scores, strict=True)
            ],
            hovertemplate="%{text}<extra></extra>",
        )
    )
    known = [(y, each.chance_accuracy) for y, each in enumerate(scores) if each.chance_accuracy is not None]
    if known:
        figure.add_trace(
            Scatter(
                x=[100 * chance for _, chance in known],
                y=[y for y, _ in known],
                mode="markers",
                name="guessing",
                marker={"symbol": "line-ns-open", "size": 14, "color": "#888"},
                hoverinfo="skip",
            )
        )
    figure.update_xaxes(title="accuracy (%)", range=[-2, 102])
    _rows_axis(figure, rows)
    return styled(figure, "Accuracy by treatment", _height(rows))


def thin(values: Sequence[Any], n_kept: int) -> list[Any]:
    """At most so many of the values, evenly over their order; the first and the last are kept.

    Args:
        values: in order.
        n_kept: at least 2.
    """
    if len(values) <= n_kept:
        return list(values)
    step = (len(values) - 1) / (n_kept - 1)
    return [values[round(i * step)] for i in range(n_kept)]


def _group(row: TreatmentSummary) -> str:
    """What gives a row its colour: the level of the first factor."""
    return str(next(iter(row.treatment.values()), "all runs"))


def _rows_axis(figure: "Figure", rows: Sequence[TreatmentSummary]) -> None:
    figure.update_yaxes(
        tickmode="array",
        tickvals=list(range(len(rows))),
        ticktext=[plain_text(level_text(row)) for row in rows],
        range=[len(rows) - 0.4, -0.6],
        automargin=True,
        zeroline=False,
    )


def _height(rows: Sequence[TreatmentSummary]) -> int:
    return max(320, 150 + _ROW_PX * len(rows))
