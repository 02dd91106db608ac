"""Energy against accuracy, and the treatments that no other one beats."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from analysis.figures.style import (
    MARKERS,
    colours,
    energy_label,
    estimate_note,
    levels_of,
    new_figure,
    scale_axis,
    split_factors,
    with_energy,
)
from analysis.summary import Summary, TreatmentSummary
from contract.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def energy_against_accuracy(summary: Summary) -> "Figure":
    """Mean energy and accuracy of each treatment, both with 95 % intervals, and the Pareto front.

    Colour tells the first grouping factor (the first ones, where markers are too few), marker the others.
    The front (no other treatment has at most the energy and
    at least the accuracy) is drawn from two treatments on; it is one of means, so near neighbours may change places.

    Args:
        summary: from `summarise`.

    Raises:
        UsageError: no treatment has both energy and accuracy, or there are more levels than markers.
    """
    rows = [row for row in with_energy(summary) if row.accuracy is not None]
    if not rows:
        raise UsageError(f"No answers of {summary.experiment.name} were scored: there is no accuracy to draw.")
    by_colour, by_marker = split_factors(summary, rows)
    colour_of = colours(levels_of(row, by_colour) for row in rows)
    rests = list(dict.fromkeys(levels_of(row, by_marker) for row in rows))
    figure = new_figure(8.0, max(4.2, 1.6 + 0.21 * (len(colour_of) + len(rests))))
    axes = figure.subplots()
    for row in rows:
        mean, accuracy = row.means["energy_j"], row.accuracy
        if mean.mean is None or accuracy is None:
            continue
        share, (low, high) = accuracy.accuracy * 100, accuracy.interval
        axes.errorbar(
            [mean.mean],
            [share],
            xerr=None if mean.half_width is None else [mean.half_width],
            yerr=[[share - low * 100], [high * 100 - share]],
            fmt=MARKERS[rests.index(levels_of(row, by_marker))],
            markersize=7,
            color=colour_of[levels_of(row, by_colour)],
            markeredgecolor="black",
            markeredgewidth=0.6,
            elinewidth=0.9,
            capsize=2,
            alpha=0.9,
        )
    if len(rows) >= 2:
        _draw_front(axes, pareto_front(rows))
    _draw_chance(axes, rows)
    scale_axis(axes, [row.means["energy_j"].mean or 0.0 for row in rows])
    axes.set_xlabel(energy_label(summary))
    axes.set_ylabel("accuracy (%)")
    title = f"{summary.experiment.name}: energy against accuracy{estimate_note(summary)}"
    axes.set_title(f"{title}\nmeans with 95 % intervals", fontsize=10)
    _legend(figure, axes, (by_colour, by_marker), colour_of, rests)
    return figure


def pareto_front(rows: Sequence[TreatmentSummary]) -> list[TreatmentSummary]:
    """The treatments that no other one beats, by rising energy.

    One beats another when it needs no more energy and is no less accurate, and is better in one of the two.
    """
    known = [(row.means["energy_j"].mean, row.accuracy.accuracy, row) for row in rows if row.accuracy is not None]
    points = [(joules, share, row) for joules, share, row in known if joules is not None]
    front: list[TreatmentSummary] = []
    best: tuple[float, float] | None = None
    for joules, share, row in sorted(points, key=lambda point: (point[0], -point[1])):
        if best is None or share > best[1] or (joules, share) == best:
            front.append(row)
            best = (joules, share)
    return front


def _draw_front(axes: "Axes", front: Sequence[TreatmentSummary]) -> None:
    joules = [row.means["energy_j"].mean or 0.0 for row in front]
    shares = [row.accuracy.accuracy * 100 for row in front if row.accuracy is not None]
    # Steps: between two treatments there is none, so no mix of them is promised.
    axes.step(joules, shares, where="post", color="0.35", linestyle="--", linewidth=1, zorder=1)
    # The ring marks a front of one as well, and is what the legend shows.
    (ring,) = axes.plot(joules, shares, color="0.35", linestyle="", zorder=1, label="Pareto front")
    ring.set(marker="o", markersize=13, markerfacecolor="none", markeredgecolor="0.35")


def _draw_chance(axes: "Axes", rows: Sequence[TreatmentSummary]) -> None:
    chances = {row.accuracy.chance_accuracy for row in rows if row.accuracy is not None}
    for i, chance in enumerate(sorted(chance for chance in chances if chance is not None)):
        label = "guessing" if i == 0 else None
        axes.axhline(chance * 100, color="0.6", linestyle=":", linewidth=1, zorder=0, label=label)


def _legend(
    figure: "Figure",
    axes: "Axes",
    by: tuple[Sequence[str], Sequence[str]],
    colour_of: dict[str, str],
    rests: Sequence[str],
) -> None:
    """Outside, on the right: labels at the points would cover each other."""
    from matplotlib.lines import Line2D

    def entry(label: str, marker: str, colour: str) -> Line2D:
        return Line2D([], [], linestyle="", marker=marker, color=colour, markersize=7, label=label)

    def heading(text: str) -> Line2D:
        return Line2D([], [], linestyle="", label=text)

    handles: list[Any] = []
    if by[0]:
        handles += [heading(f"{', '.join(by[0])}:"), *(entry(level, "o", hue) for level, hue in colour_of.items())]
    if by[1]:
        handles.append(heading(f"{', '.join(by[1])}:"))
        handles += [entry(rest, MARKERS[i], "0.5") for i, rest in enumerate(rests)]
    handles += [line for line in axes.get_lines() if line.get_label() in ("Pareto front", "guessing")]
    figure.legend(handles=handles, loc="outside right upper", fontsize=8, frameon=False)
