"""Figures of a power profile over w*."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from analysis.edge_profile import ENERGY, W_STAR, DeviceProfile
from analysis.figures.style import MARKERS, PALETTE, new_figure, plain
from contract.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURES = {
    "energy_per_token": (ENERGY, "energy per token (J)", True),
    "net_power": ("mean_net_power_w", "net power (W)", True),
    "tokens_per_s": ("tokens_per_s", "tokens per second", False),
    "max_temp": ("max_temp_c", "highest temperature (°C)", False),
}
"""Name -> column, label, and whether it is an energy."""


def edge_figure(profiles: Sequence[DeviceProfile], name: str) -> "Figure":
    """One quantity over w*: a point per run, the mean with its 95 % interval, a ring at the efficient w*.

    Args:
        profiles: of all devices.
        name: one of `FIGURES`.

    Raises:
        UsageError: no run has the quantity.
    """
    column, label, is_energy = FIGURES[name]
    if all(profile.runs[column].is_null().all() for profile in profiles):
        raise UsageError(f"No run has {column}: there is no figure {name}.")
    figure = new_figure(6.4, 4.0)
    axes = figure.subplots()
    for i, profile in enumerate(profiles):
        colour, marker = PALETTE[i % len(PALETTE)], MARKERS[i % len(MARKERS)]
        runs = profile.runs.filter(profile.runs[column].is_not_null())
        axes.scatter(runs[W_STAR], runs[column], s=14, color=colour, marker=marker, alpha=0.35, linewidths=0)
        drawn = [point for point in profile.points if column in point.means and point.mean(column) is not None]
        word = " (estimate)" if is_energy and profile.is_estimate else ""
        if drawn:
            axes.errorbar(
                [point.w_star for point in drawn],
                [point.mean(column) for point in drawn],  # type: ignore[arg-type]
                yerr=[point.means[column].half_width or 0.0 for point in drawn],
                color=colour,
                marker=marker,
                markersize=5,
                linewidth=1.2,
                capsize=2,
                label=profile.device + word,
            )
        else:
            highest = [(each.w_star, each.maxima.get(column)) for each in profile.points]
            shown = [(w_star, value) for w_star, value in highest if value is not None]
            axes.plot(*zip(*shown, strict=True), color=colour, marker=marker, label=profile.device + word)
        best = profile.efficient
        if name == "energy_per_token" and best is not None:
            mean_j = best.point.mean(column)
            assert mean_j is not None
            axes.scatter([best.point.w_star], [mean_j], s=150, facecolors="none", edgecolors=colour, linewidths=1.4)
    axes.set_xlabel("w*: tokens generated for each request")
    axes.set_ylabel(label)
    if is_energy:
        axes.set_ylim(bottom=0)
    axes.grid(visible=True, color="0.9")
    axes.legend(frameon=False)
    plain(axes)
    return figure
