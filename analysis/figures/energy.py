"""Energy by treatment, and energy per token by one factor: violins, and each run as a point."""

from typing import TYPE_CHECKING, Any

from analysis.figures.style import (
    MARKERS,
    MIN_VIOLIN,
    PALETTE,
    colours,
    draw_violin,
    energy_label,
    estimate_note,
    level_text,
    new_figure,
    scale_axis,
    spread,
    with_energy,
)
from analysis.statistics import mean_interval
from analysis.summary import Summary
from contract.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_GENERATION = "generation"


def energy_by_treatment(summary: Summary) -> "Figure":
    """Energy of the measured phase by treatment: each run a point, the mean with its 95 % interval.

    Behind five runs or more stands their density; with fewer the points stand alone.

    Args:
        summary: from `summarise`.

    Raises:
        UsageError: no counted run has an energy.
    """
    rows = with_energy(summary)
    colour_of = colours(row.treatment[summary.by[0]] for row in rows) if summary.by else {}
    figure = new_figure(8.0, 1.7 + 0.32 * len(rows))
    axes = figure.subplots()
    has_violin = False
    for y, row in enumerate(rows):
        colour = colour_of[row.treatment[summary.by[0]]] if summary.by else PALETTE[0]
        joules = [run["energy_j"] for run in row.runs if run["energy_j"] is not None]
        has_violin |= draw_violin(axes, joules, y, colour, vertical=False, width=0.85)
        axes.scatter(joules, spread(y, len(joules)), s=12, color=colour, alpha=0.35, linewidths=0, zorder=2)
        mean = row.means["energy_j"]
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
    axes.set_yticks(range(len(rows)), [level_text(row) for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_ylabel(", ".join(summary.by))
    scale_axis(axes, [row.means["energy_j"].mean or 0.0 for row in rows])
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(energy_label(summary))
    coloured = f" (colour: {summary.by[0]})" if len(colour_of) > 1 else ""
    title = f"{summary.experiment.name}: energy by treatment{estimate_note(summary)}{coloured}"
    shape = f"shape: density of {MIN_VIOLIN} runs or more; " if has_violin else ""
    axes.set_title(f"{title}\n{shape}points: runs; diamond: mean with 95 % interval", fontsize=10)
    return figure


def token_factor(summary: Summary) -> str | None:
    """The factor of `energy_per_token`: the generation where there is one, else the first with two levels."""
    runs = [run for row in summary.treatments for run in row.runs]
    varied = [name for name in summary.by if len({run[name] for run in runs}) > 1]
    if _GENERATION in varied:
        return _GENERATION
    return varied[0] if varied else (summary.by[0] if summary.by else None)


def energy_per_token(summary: Summary, factor: str | None = None) -> "Figure":
    """Energy per output token by the levels of a factor; a second factor gives points their colour and marker.

    A diamond is the mean over the treatments of one colour, each counted once, so that unequal numbers of runs do
    not weigh; there is no interval, since treatments are no sample of anything.

    Args:
        summary: from `summarise`.
        factor: None takes `token_factor`.

    Raises:
        UsageError: no factor of that name, or no run has energy and output tokens.
    """
    factor = factor or token_factor(summary)
    if factor is not None and factor not in summary.by:
        raise UsageError(f"{summary.experiment.name} has no factor {factor!r}. Its factors: {list(summary.by)}.")
    name = "energy_per_output_token_j"
    rows = [row for row in summary.treatments if row.means[name].mean is not None]
    if not rows:
        raise UsageError(f"No run of {summary.experiment.name} has both energy and output tokens: nothing to draw.")
    levels = list(dict.fromkeys(row.treatment[factor] if factor else "all runs" for row in rows))
    second = _second_factor(summary, rows, factor)
    hues = list(dict.fromkeys(row.treatment[second] for row in rows)) if second else []
    colour_of = colours(hues)
    figure = new_figure(max(5.5, 1.9 + 1.35 * len(levels)), 4.6)
    axes = figure.subplots()
    for x, level in enumerate(levels):
        of_level = [row for row in rows if factor is None or row.treatment[factor] == level]
        of_hue: dict[Any, list[float]] = {}
        for row in of_level:
            hue = row.treatment[second] if second else None
            of_hue.setdefault(hue, []).extend(run[name] for run in row.runs if run[name] is not None)
        for hue, points in of_hue.items():
            # One shape over two clusters would show runs where there are none.
            draw_violin(axes, points, x, colour_of.get(hue, PALETTE[0]), vertical=True, width=0.85)
            axes.scatter(
                spread(x, len(points)),
                points,
                s=14,
                color=colour_of.get(hue, PALETTE[0]),
                marker=MARKERS[hues.index(hue) % len(MARKERS)] if second else "o",
                alpha=0.5,
                linewidths=0,
                zorder=2,
                label=str(hue) if second and str(hue) not in _labelled(axes) else None,
            )
        for hue in of_hue:
            means = [row.means[name].mean for row in of_level if second is None or row.treatment[second] == hue]
            mean = mean_interval(means).mean
            axes.plot([x], [mean or 0.0], "D", color="white", markeredgecolor="black", markersize=6, zorder=3)
    axes.set_xticks(range(len(levels)), [str(level) for level in levels])
    axes.set_xlim(-0.6, len(levels) - 0.4)
    axes.set_xlabel(factor or "")
    axes.set_ylabel(energy_label(summary, "energy per output token (J/token)"))
    scale_axis(axes, [row.means[name].mean or 0.0 for row in rows], which="y")
    axes.grid(axis="x", visible=False)
    by = f" by {factor}" if factor else ""
    axes.set_title(
        f"{summary.experiment.name}: energy per output token{by}{estimate_note(summary)}\n"
        f"shape: density of {MIN_VIOLIN} runs or more; points: runs; diamond: mean of the treatments' means",
        fontsize=10,
    )
    if second:
        figure.legend(title=second, loc="outside right upper", fontsize=8, frameon=False)
    return figure


def _labelled(axes: Any) -> list[str]:
    return [str(label) for label in axes.get_legend_handles_labels()[1]]


def _second_factor(summary: Summary, rows: list[Any], factor: str | None) -> str | None:
    """The factor that separates the points of a level best: the largest share of their variance."""
    best: tuple[float, str] | None = None
    for name in summary.by:
        levels = list(dict.fromkeys(row.treatment[name] for row in rows))
        if name == factor or not 2 <= len(levels) <= len(PALETTE):
            continue
        groups: dict[Any, list[float]] = {}
        whole: dict[Any, list[float]] = {}
        for row in rows:
            value = row.means["energy_per_output_token_j"].mean or 0.0
            at = row.treatment[factor] if factor else None
            groups.setdefault((at, row.treatment[name]), []).append(value)
            whole.setdefault(at, []).append(value)
        total = _within(whole)
        share = 1 - _within(groups) / total if total > 0 else 0.0
        if best is None or share > best[0] + 1e-9:
            best = (share, name)
    return best[1] if best else None


def _within(groups: dict[Any, list[float]]) -> float:
    means = {key: sum(values) / len(values) for key, values in groups.items()}
    return sum((value - means[key]) ** 2 for key, values in groups.items() for value in values)
