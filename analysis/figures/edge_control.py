"""Figures of edge control: treatments side by side, and what was chosen as a board warmed."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from analysis.edge_control import FIGURES, EdgeRow
from analysis.figures.style import MARKERS, PALETTE, new_figure, plain
from contract.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_RUNS = 7
_CLOCKS = (("setting_prefill_bin", "prefill clock (bin)"), ("setting_decode_bin", "decode clock (bin)"))
_OTHERS = (("setting_batch", "batch"), ("setting_exit_layer", "exit layer"))


def overview_figure(rows: Sequence[EdgeRow]) -> "Figure":
    """Tokens per second over the hottest batch, a point for each run: right of the line is a violation.

    Args:
        rows: of the study.

    Raises:
        UsageError: no run has a temperature.
    """
    shown = [row for row in rows if row.means["hottest_c"].mean is not None]
    if not shown:
        raise UsageError("No run has a temperature: there is no figure.")
    figure = new_figure(7.4, 4.4)
    axes = figure.subplots()
    has_legend = len(shown) <= 4 * len(PALETTE)
    for number, row in enumerate(shown):
        pairs = [(FIGURES["hottest_c"](each), FIGURES["throughput_per_s"](each)) for each in row.reports.values()]
        known = [(temp_c, rate) for temp_c, rate in pairs if temp_c is not None and rate is not None]
        axes.plot(
            [temp_c for temp_c, _ in known],
            [rate for _, rate in known],
            MARKERS[number // len(PALETTE) % len(MARKERS)] if has_legend else "o",
            color=PALETTE[number % len(PALETTE)] if has_legend else PALETTE[0],
            ms=5,
            alpha=0.7,
            label=row.name,
        )
    limit_c = next(iter(shown[0].reports.values())).temp_limit_c
    axes.axvline(limit_c, color="0.4", lw=0.8, ls="--")
    word = " (simulated)" if any(row.is_simulated for row in shown) else ""
    axes.set_xlabel("hottest (deg C); dashed: the limit")
    axes.set_ylabel(f"tokens per second{word}")
    axes.set_ylim(bottom=0)
    axes.grid(visible=True, color="0.9")
    if has_legend:
        axes.legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
    plain(axes)
    return figure


def runs_figure(runs: Mapping[str, Sequence[Mapping[str, str]]]) -> "Figure":
    """Temperature and settings, batch after batch, of a run of each treatment; grey: batches that were evaluated.

    Args:
        runs: treatment -> its rows of `edge_batches.csv`; the first few are drawn.
    """
    drawn = dict(list(runs.items())[:_MOST_RUNS])
    figure = new_figure(7.4, 7.6)
    panels = figure.subplots(5, sharex=True, height_ratios=(2, 1, 1, 1, 1))
    names = [("temp_c", "deg C"), *_CLOCKS, *_OTHERS]
    first = 0
    for number, (name, batches) in enumerate(drawn.items()):
        # Those that seek and those that do not begin to serve at 0.
        n_sought = sum(each["is_evaluation"] == "1" for each in batches)
        first = min(first, -n_sought)
        for axes, (column, _) in zip(panels, names, strict=True):
            at = [int(each["batch"]) - n_sought for each in batches if each[column]]
            values = [float(each[column]) for each in batches if each[column]]
            style = {"lw": 1.0} if column == "temp_c" else {"ls": "none", "marker": ".", "ms": 2}
            axes.plot(at, values, color=PALETTE[number % len(PALETTE)], label=name, **style)
    for axes, (_, label) in zip(panels, names, strict=True):
        if first < 0:
            axes.axvspan(first - 0.5, -0.5, color="0.93", zorder=0)
        axes.set_ylabel(label, fontsize=8)
        plain(axes)
    panels[-1].set_xlabel("batch served; grey: evaluated before" if first < 0 else "batch")
    panels[0].legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure
