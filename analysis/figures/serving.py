"""Figure of a serving case: what a request costs over the share of requests that are in time."""

from typing import TYPE_CHECKING

from analysis.figures.style import MARKERS, PALETTE, new_figure, plain
from analysis.serving import ServingCase
from contract.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def serving_figure(case: ServingCase) -> "Figure":
    """Each policy a point with the 95 % intervals of both means; down and to the right is better.

    Args:
        case: with its policies.

    Raises:
        UsageError: no policy has both figures.
    """
    name = "energy_per_request_j"
    rows = [row for row in case.rows if row.mean(name) is not None and row.mean("slo_share") is not None]
    if not rows:
        raise UsageError(f"{case.name}: no policy has an energy: there is no figure.")
    figure = new_figure(7.2, 4.4)
    axes = figure.subplots()
    for i, row in enumerate(rows):
        share, energy_j = row.means["slo_share"], row.means[name]
        assert share.mean is not None and energy_j.mean is not None
        axes.errorbar(
            [100 * share.mean],
            [energy_j.mean],
            xerr=[100 * (share.half_width or 0.0)],
            yerr=[energy_j.half_width or 0.0],
            color=PALETTE[i % len(PALETTE)],
            marker=MARKERS[i // len(PALETTE) % len(MARKERS)],
            markersize=6,
            capsize=2,
            linestyle="none",
            label=f"{row.policy} ({row.role})",
        )
    word = " (simulated)" if any(row.is_simulated for row in rows) else ""
    axes.set_xlabel("requests in time (%)")
    axes.set_ylabel(f"energy per request, idling included (J){word}")
    axes.set_ylim(bottom=0)
    axes.set_title(case.name, fontsize=9)
    axes.grid(visible=True, color="0.9")
    axes.legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
    plain(axes)
    return figure
