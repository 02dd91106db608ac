"""Ranking by the energy-delay product: what is cheap and quick at once."""

from typing import TYPE_CHECKING

from analysis.figures.style import (
    PALETTE,
    colours,
    draw_violin,
    energy_label,
    estimate_note,
    level_text,
    new_figure,
    scale_axis,
    spread,
)
from analysis.summary import Summary, TreatmentSummary
from contract.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EDP = "edp_js"


def ranked(summary: Summary) -> list[TreatmentSummary]:
    """Treatments by rising mean energy-delay product; those without one are left out.

    Raises:
        UsageError: none has one.
    """
    rows = [row for row in summary.treatments if row.means[EDP].mean is not None]
    if not rows:
        raise UsageError(
            f"No run of {summary.experiment.name} has both energy and duration: there is no energy-delay product."
        )
    return sorted(rows, key=lambda row: row.means[EDP].mean or 0.0)


def edp_ranking(summary: Summary) -> "Figure":
    """Energy-delay product of each treatment, the smallest on top: each run a point, the mean with its 95 % interval.

    The product of joules and seconds of the measured phase (Gonzalez and Horowitz, 1996). Ranks compare only
    treatments that do the same work.

    Args:
        summary: from `summarise`.

    Raises:
        UsageError: no run has energy and duration.
    """
    rows = ranked(summary)
    colour_of = colours(row.treatment[summary.by[0]] for row in summary.treatments) if summary.by else {}
    figure = new_figure(8.0, 1.7 + 0.32 * len(rows))
    axes = figure.subplots()
    for y, row in enumerate(rows):
        colour = colour_of[row.treatment[summary.by[0]]] if summary.by else PALETTE[0]
        values = [run[EDP] for run in row.runs if run[EDP] is not None]
        draw_violin(axes, values, y, colour, vertical=False, width=0.85)
        axes.scatter(values, spread(y, len(values)), s=12, color=colour, alpha=0.35, linewidths=0, zorder=2)
        mean = row.means[EDP]
        axes.errorbar(
            [mean.mean or 0.0],
            [y],
            xerr=None if mean.half_width is None else [mean.half_width],
            fmt="D",
            markersize=5,
            color=colour,
            markeredgecolor="black",
            ecolor="black",
            capsize=3,
            zorder=3,
        )
    axes.set_yticks(range(len(rows)), [f"{rank}. {level_text(row)}" for rank, row in enumerate(rows, start=1)])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_ylabel(", ".join(summary.by))
    scale_axis(axes, [row.means[EDP].mean or 0.0 for row in rows])
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(energy_label(summary, "energy-delay product (J·s)"))
    coloured = f" (colour: {summary.by[0]})" if len(colour_of) > 1 else ""
    title = f"{summary.experiment.name}: energy-delay product{estimate_note(summary)}{coloured}"
    axes.set_title(f"{title}\nsmallest first; points: runs; diamond: mean with 95 % interval", fontsize=10)
    return figure
