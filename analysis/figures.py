"""Figures of a summary: energy by treatment, and energy against accuracy. matplotlib objects, no global state."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.summary import Summary, TreatmentSummary
from contract.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito, 2008: told apart with any colour vision. Their yellow is left out: too pale on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = "osD^vP*X<>ph"
_LOG_FROM = 20.0
"""Largest over smallest mean from which an energy axis is logarithmic."""


def energy_by_treatment(summary: Summary) -> "Figure":
    """Energy of the measured phase by treatment: each run a point, the mean with its 95 % interval.

    Args:
        summary: from `summarise`.

    Raises:
        UsageError: no counted run has an energy.
    """
    rows = _with_energy(summary)
    colour_of = _colours(row.treatment[summary.by[0]] for row in rows) if summary.by else {}
    figure = _figure(8.0, 1.7 + 0.32 * len(rows))
    axes = figure.subplots()
    for y, row in enumerate(rows):
        colour = colour_of[row.treatment[summary.by[0]]] if summary.by else PALETTE[0]
        joules = [run["energy_j"] for run in row.runs if run["energy_j"] is not None]
        axes.scatter(joules, _spread(y, len(joules)), s=14, color=colour, alpha=0.35, linewidths=0, zorder=2)
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
    axes.set_yticks(range(len(rows)), [_levels(row) for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_ylabel(", ".join(summary.by))
    axes.grid(axis="y", visible=False)
    _energy_axis(axes, rows, summary)
    title = f"{summary.experiment.name}: energy by treatment{_estimate(summary)}"
    axes.set_title(f"{title}\npoints: runs; diamond: mean with 95 % interval", fontsize=10)
    return figure


def energy_against_accuracy(summary: Summary) -> "Figure":
    """Mean energy and accuracy of each treatment, both with 95 % intervals, and the Pareto front.

    Colour is the first grouping factor, marker the others. The front (no other treatment has at most the energy and
    at least the accuracy) is drawn from two treatments on; it is one of means, so near neighbours may change places.

    Args:
        summary: from `summarise`.

    Raises:
        UsageError: no treatment has both energy and accuracy, or there are more levels than markers.
    """
    rows = [row for row in _with_energy(summary) if row.accuracy is not None]
    if not rows:
        raise UsageError(f"No answers of {summary.experiment.name} were scored: there is no accuracy to draw.")
    colour_of = _colours(_first(row) for row in rows)
    rests = list(dict.fromkeys(_rest(row) for row in rows))
    if len(rests) > len(_MARKERS):
        raise UsageError(
            f"{len(rests)} combinations of {', '.join(summary.by[1:])} are more than can be told apart by "
            f"{len(_MARKERS)} markers. Summarise by fewer factors (`by=`)."
        )
    figure = _figure(8.0, max(4.2, 1.6 + 0.21 * (len(colour_of) + len(rests))))
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
            fmt=_MARKERS[rests.index(_rest(row))],
            markersize=7,
            color=colour_of[_first(row)],
            markeredgecolor="black",
            markeredgewidth=0.6,
            elinewidth=0.9,
            capsize=2,
            alpha=0.9,
        )
    if len(rows) >= 2:
        _draw_front(axes, pareto_front(rows))
    _draw_chance(axes, rows)
    _energy_axis(axes, rows, summary)
    axes.set_ylabel("accuracy (%)")
    title = f"{summary.experiment.name}: energy against accuracy{_estimate(summary)}"
    axes.set_title(f"{title}\nmeans with 95 % intervals", fontsize=10)
    _legend(figure, axes, summary, colour_of, rests)
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


def save_figure(figure: "Figure", path: Path) -> list[Path]:
    """Write a figure as PNG (200 dpi) and SVG beside each other.

    Args:
        figure: from this module.
        path: without suffix, or with one that is replaced; folders are made.

    Returns:
        The files written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not `with_suffix` alone: a name like `llama-3.2` would lose its end.
    stem = path.with_suffix("") if path.suffix in (".png", ".svg") else path
    written = [stem.with_name(f"{stem.name}{suffix}") for suffix in (".png", ".svg")]
    for file in written:
        figure.savefig(file, dpi=200, bbox_inches="tight", facecolor="white")
    return written


def _figure(width_in: float, height_in: float) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(width_in, height_in), layout="constrained")


def _with_energy(summary: Summary) -> list[TreatmentSummary]:
    rows = [row for row in summary.treatments if row.means["energy_j"].mean is not None]
    if not rows:
        raise UsageError(
            f"No counted run of {summary.experiment.name} has an energy: there is nothing to draw. "
            f"`python -m analysis summary` says why."
        )
    return rows


def _estimate(summary: Summary) -> str:
    """Never an estimate without the word."""
    if not summary.is_estimate:
        return ""
    return " (estimate)" if len(summary.methods) == 1 else " (partly estimate)"


def _energy_axis(axes: "Axes", rows: Sequence[TreatmentSummary], summary: Summary) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    means = [row.means["energy_j"].mean or 0.0 for row in rows]
    how = " + ".join(summary.methods) + " by " + " + ".join(summary.sources)
    axes.set_xlabel("energy of the measured phase (J), " + ("estimate" if how == "estimate by estimate" else how))
    if min(means) > 0 and max(means) / min(means) > _LOG_FROM:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axes.grid(axis="x", color="0.9", zorder=0)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


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


def _legend(figure: "Figure", axes: "Axes", summary: Summary, colour_of: dict[str, str], rests: Sequence[str]) -> None:
    """Outside, on the right: labels at the points would cover each other."""
    from matplotlib.lines import Line2D

    def entry(label: str, marker: str, colour: str) -> Line2D:
        return Line2D([], [], linestyle="", marker=marker, color=colour, markersize=7, label=label)

    def heading(text: str) -> Line2D:
        return Line2D([], [], linestyle="", label=text)

    handles: list[Any] = []
    if summary.by:
        handles += [heading(f"{summary.by[0]}:"), *(entry(level, "o", hue) for level, hue in colour_of.items())]
    if summary.by[1:]:
        handles.append(heading(f"{', '.join(summary.by[1:])}:"))
        handles += [entry(rest, _MARKERS[i], "0.5") for i, rest in enumerate(rests)]
    handles += [line for line in axes.get_lines() if line.get_label() in ("Pareto front", "guessing")]
    figure.legend(handles=handles, loc="outside right upper", fontsize=8, frameon=False)


def _spread(y: int, n: int) -> list[float]:
    """Offsets in a fixed pattern, so that equal values stay visible and a figure never changes by itself."""
    lanes = min(n, 5)
    return [y + 0.12 * (i % lanes - (lanes - 1) / 2) for i in range(n)]


def _colours(levels: Iterable[Any]) -> dict[Any, str]:
    """A colour per level; more levels than colours take even steps of a perceptually uniform map."""
    distinct = list(dict.fromkeys(levels))
    if len(distinct) <= len(PALETTE):
        return dict(zip(distinct, PALETTE, strict=False))
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return {level: to_hex(colormaps["cividis"](i / (len(distinct) - 1))) for i, level in enumerate(distinct)}


def _levels(row: TreatmentSummary) -> str:
    return ", ".join(str(level) for level in row.treatment.values()) or "all runs"


def _first(row: TreatmentSummary) -> str:
    return str(next(iter(row.treatment.values()), "all runs"))


def _rest(row: TreatmentSummary) -> str:
    return ", ".join(str(level) for level in list(row.treatment.values())[1:])
