"""Interaction profile: does a factor act alike at every level of another?"""

from typing import TYPE_CHECKING, Any

from analysis.figures.style import (
    MARKERS,
    PALETTE,
    colours,
    energy_label,
    estimate_note,
    new_figure,
    scale_axis,
    with_energy,
)
from analysis.statistics import mean_interval
from analysis.summary import Summary, TreatmentSummary
from contract.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def interaction_profile(summary: Summary) -> "Figure":
    """Mean energy over the levels of one factor, a line for each combination of the others.

    Parallel lines (on a logarithmic axis: equal ratios) are no interaction. On the x axis stands the last factor of
    the design, the task as a rule. With more lines than colours the first factor alone makes the lines, and the
    title says what is averaged.

    Args:
        summary: from `summarise`.

    Raises:
        UsageError: fewer than two factors have two levels, or no run has an energy.
    """
    rows = with_energy(summary)
    varied = [name for name in summary.by if len({row.treatment[name] for row in rows}) > 1]
    if len(varied) < 2:
        raise UsageError(
            f"{summary.experiment.name} has {len(varied)} factor{'' if len(varied) == 1 else 's'} with two levels or "
            f"more: an interaction needs two."
        )
    x_name, line_names = varied[-1], varied[:-1]
    averaged: list[str] = []
    if len({_key(row, line_names) for row in rows}) > len(PALETTE):
        line_names, averaged = line_names[:1], line_names[1:]
    xs = list(dict.fromkeys(row.treatment[x_name] for row in rows))
    lines = list(dict.fromkeys(_key(row, line_names) for row in rows))
    colour_of = colours(lines)
    figure = new_figure(max(6.5, 2.5 + 0.95 * len(xs)), 4.8)
    axes = figure.subplots()
    shift = 0.05
    for i, line in enumerate(lines):
        points = []
        for x, level in enumerate(xs):
            cell = [row for row in rows if _key(row, line_names) == line and row.treatment[x_name] == level]
            if not cell:
                continue
            means = [row.means["energy_j"] for row in cell]
            # Runs of one treatment have an interval; a mean over treatments has none.
            half_width = means[0].half_width if len(means) == 1 else None
            mean = mean_interval(each.mean for each in means).mean
            points.append((x + shift * (i - (len(lines) - 1) / 2), mean or 0.0, half_width))
        axes.errorbar(
            [x for x, _, _ in points],
            [mean for _, mean, _ in points],
            yerr=[half_width or 0.0 for _, _, half_width in points],
            marker=MARKERS[i % len(MARKERS)],
            color=colour_of[line],
            markeredgecolor="black",
            markeredgewidth=0.5,
            linewidth=1.2,
            capsize=2,
            label=", ".join(str(level) for level in line),
        )
    axes.set_xticks(range(len(xs)), [str(level) for level in xs])
    axes.set_xlim(-0.4, len(xs) - 0.6)
    axes.set_xlabel(x_name)
    axes.set_ylabel(energy_label(summary))
    scale_axis(axes, [row.means["energy_j"].mean or 0.0 for row in rows], which="y")
    axes.grid(axis="x", visible=False)
    names = " × ".join([*line_names, x_name])
    over = f"; mean over {', '.join(averaged)}" if averaged else "; bars: 95 % interval over runs"
    title = f"{summary.experiment.name}: interaction of {names}{estimate_note(summary)}"
    axes.set_title(
        f"{title}\nparallel lines: no interaction{over}",
        fontsize=10,
    )
    figure.legend(title=", ".join(line_names), loc="outside right upper", fontsize=8, frameon=False)
    return figure


def _key(row: TreatmentSummary, names: list[str]) -> tuple[Any, ...]:
    return tuple(row.treatment[name] for name in names)
