"""What all figures share: colours, labels with units, the spread of points, and the files they are written to."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.summary import Summary, TreatmentSummary
from contract.errors import UsageError
from contract.trial_result import EnergyMethod

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito, 2008: told apart with any colour vision. Their yellow is left out: too pale on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vP*X<>ph"
SUFFIXES = (".pdf", ".svg", ".png")
MIN_VIOLIN = 5
"""Points from which a density is drawn: below, its shape is the kernel's and not the data's."""

_LOG_FROM = 20.0
"""Largest over smallest mean from which an energy axis is logarithmic."""


def new_figure(width_in: float, height_in: float) -> "Figure":
    """An empty figure that keeps its labels inside."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width_in, height_in), layout="constrained")


def save_figure(figure: "Figure", path: Path) -> list[Path]:
    """Write a figure as PDF and SVG (vectors) and PNG (200 dpi) beside each other.

    Text in the PDF stays text; the SVG draws it as curves, so that it looks the same everywhere.

    Args:
        figure: from this package.
        path: without suffix, or with one that is replaced; folders are made.

    Returns:
        The files written.

    Raises:
        UsageError: they cannot be written.
    """
    from matplotlib import rc_context

    # Not `with_suffix` alone: a name like `llama-3.2` would lose its end.
    stem = path.with_suffix("") if path.suffix in SUFFIXES else path
    written = [stem.with_name(f"{stem.name}{suffix}") for suffix in SUFFIXES]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The salt makes equal figures equal files.
        with rc_context({"pdf.fonttype": 42, "svg.hashsalt": stem.name}):
            for file in written:
                # The time of writing would make each file new.
                dates = {".pdf": {"CreationDate": None}, ".svg": {"Date": None}}.get(file.suffix)
                figure.savefig(file, dpi=200, bbox_inches="tight", facecolor="white", metadata=dates)
    except OSError as error:
        raise UsageError(f"The figure {stem.name} cannot be written to {stem.parent}: {error}.") from error
    return written


def with_energy(summary: Summary) -> list[TreatmentSummary]:
    """The rows that have a mean energy.

    Raises:
        UsageError: there is none.
    """
    rows = [row for row in summary.treatments if row.means["energy_j"].mean is not None]
    if not rows:
        raise UsageError(
            f"No counted run of {summary.experiment.name} has an energy: there is nothing to draw. "
            f"`python -m analysis summary` says why."
        )
    return rows


def estimate_note(summary: Summary) -> str:
    """Never an estimate without the word: what goes behind a title."""
    if not summary.is_estimate:
        return ""
    return " (estimate)" if len(summary.methods) == 1 else " (partly estimate)"


def energy_label(summary: Summary, quantity: str = "energy of the measured phase (J)") -> str:
    """Label of an axis of energy: quantity with unit, method and meter.

    Args:
        summary: whose energy it is.
        quantity: what is drawn, with its unit.
    """
    how = " + ".join(summary.methods) + " by " + " + ".join(summary.sources)
    if set(summary.methods) == {EnergyMethod.ESTIMATE.value}:
        how = "estimate"
    return f"{quantity}, {how}"


def scale_axis(axes: "Axes", values: Sequence[float], which: str = "x") -> None:
    """Logarithmic where the values differ much, with whole numbers as labels; grid behind, no box around.

    Args:
        axes: that shows them.
        values: means on the axis.
        which: `x` or `y`.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis = axes.xaxis if which == "x" else axes.yaxis
    if min(values) > 0 and max(values) / min(values) > _LOG_FROM:
        (axes.set_xscale if which == "x" else axes.set_yscale)("log")
        # Labels of many digits would cover each other.
        decades = math.log10(max(values) / min(values))
        subs = (1.0, 2.0, 5.0) if decades < 2 else (1.0, 3.0) if decades < 2.5 and max(values) < 1e5 else (1.0,)
        axis.set_major_locator(LogLocator(base=10, subs=subs))
        axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axis.grid(visible=True, color="0.9", zorder=0)
    plain(axes)


def plain(axes: "Axes") -> None:
    """No box around the data, and the grid behind it."""
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def spread(centre: float, n: int, step: float = 0.12) -> list[float]:
    """Offsets in a fixed pattern, so that equal values stay visible and a figure never changes by itself."""
    lanes = min(n, 5)
    return [centre + step * (i % lanes - (lanes - 1) / 2) for i in range(n)]


def draw_violin(axes: "Axes", values: Sequence[float], at: float, colour: str, *, vertical: bool, width: float) -> bool:
    """A density behind the points, where there are enough of them and they differ.

    Returns:
        Whether one was drawn.
    """
    if len(values) < MIN_VIOLIN or max(values) - min(values) <= 1e-9 * max(abs(value) for value in values):
        return False
    parts: dict[str, Any] = axes.violinplot(
        [list(values)],
        positions=[at],
        orientation="vertical" if vertical else "horizontal",
        widths=width,
        showextrema=False,
        points=200,
    )
    for body in parts["bodies"]:
        body.set(facecolor=colour, edgecolor=colour, alpha=0.25, linewidth=0.8, zorder=1)
    return True


def colours(levels: Iterable[Any]) -> dict[Any, str]:
    """A colour per level; more levels than colours take even steps of a perceptually uniform map."""
    distinct = list(dict.fromkeys(levels))
    if len(distinct) <= len(PALETTE):
        return dict(zip(distinct, PALETTE, strict=False))
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return {level: to_hex(colormaps["cividis"](i / (len(distinct) - 1))) for i, level in enumerate(distinct)}


def split_factors(summary: Summary, rows: Sequence[TreatmentSummary]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Factors that colours tell, and those that markers tell: as few by colour as the markers allow.

    Raises:
        UsageError: there are more combinations than colours and markers.
    """

    def n_levels(names: Sequence[str]) -> int:
        return len({tuple(row.treatment[name] for name in names) for row in rows})

    by = summary.by
    for n_coloured in range(1, max(2, len(by))):
        by_colour, by_marker = by[:n_coloured], by[n_coloured:]
        fits = n_levels(by_colour) <= len(PALETTE) or n_coloured == 1
        if fits and n_levels(by_marker) <= len(MARKERS):
            return by_colour, by_marker
    raise UsageError(
        f"{n_levels(by[1:])} combinations of {', '.join(by[1:])} are more than can be told apart by "
        f"{len(MARKERS)} markers. Summarise by fewer factors (`by=`)."
    )


def levels_of(row: TreatmentSummary, names: Sequence[str]) -> str:
    """The levels of some factors, in a line."""
    return ", ".join(str(row.treatment[name]) for name in names) or "all runs"


def level_text(row: TreatmentSummary) -> str:
    """The levels of a row, without the factors' names."""
    return ", ".join(str(level) for level in row.treatment.values()) or "all runs"
