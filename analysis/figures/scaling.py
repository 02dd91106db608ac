"""Scaling with a setting: how speed and energy go with threads, or with layers on the GPU."""

from typing import TYPE_CHECKING

from analysis.ablation import scaling
from analysis.figures.style import MARKERS, colours, energy_label, estimate_note, new_figure, plain
from analysis.summary import Summary
from contract.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MAX_LINES = 12


def setting_scaling(summary: Summary, setting: str, unit: str) -> "Figure":
    """Tokens per second and energy per token over the levels of a setting, a line per combination of the others.

    Args:
        summary: by all factors.
        setting: a factor with numbers as levels.
        unit: what is counted, for the axis.

    Raises:
        UsageError: it has fewer than two levels with results, or too many lines to tell apart.
    """
    speed, cost = scaling(summary, setting, "tokens_per_s"), scaling(summary, setting, "energy_per_output_token_j")
    if not speed or not cost:
        raise UsageError(f"{setting} has fewer than two levels with results: there is no scaling to draw.")
    if len(speed) > _MAX_LINES:
        raise UsageError(f"{len(speed)} lines over {setting} cannot be told apart. Average over a factor with --by.")
    figure = new_figure(10.0, 4.6)
    left, right = figure.subplots(1, 2)
    colour_of = colours(speed)
    levels = sorted({x for points in speed.values() for x, _ in points})
    # Side by side, or the intervals of equal levels would cover each other.
    step = 0.012 * (levels[-1] - levels[0])
    for axes, lines in ((left, speed), (right, cost)):
        for i, (label, points) in enumerate(lines.items()):
            axes.errorbar(
                [x + step * (i - (len(lines) - 1) / 2) for x, _ in points],
                [mean.mean or 0.0 for _, mean in points],
                yerr=[mean.half_width or 0.0 for _, mean in points],
                marker=MARKERS[i % len(MARKERS)],
                color=colour_of.get(label, "black"),
                linewidth=1.2,
                markersize=5,
                capsize=3,
                label=label or "mean",
            )
        axes.set_xticks(levels, [f"{level:g}" for level in levels])
        axes.set_xlabel(unit)
        axes.set_ylim(bottom=0.0)
        axes.grid(visible=True, color="0.9", zorder=0)
        plain(axes)
    left.set_ylabel("output tokens per second")
    right.set_ylabel(energy_label(summary, "energy per output token (J)"))
    left.legend(fontsize=8, frameon=False)
    title = f"{summary.experiment.name}: speed and energy by {unit}{estimate_note(summary)}"
    figure.suptitle(f"{title}\npoints: means with 95 % intervals", fontsize=10)
    return figure
