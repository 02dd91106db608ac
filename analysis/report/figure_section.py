"""The figures that the data carry; what cannot be drawn is said, with the reason."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from analysis import figures
from analysis.figures.interactive import interactive_edp, interactive_pareto, interactive_power
from analysis.figures.power import PowerTrace
from analysis.report.document import Bullets, Picture, Plot, Section
from analysis.summary import Summary
from contract.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def figure_section(summary: Summary, power: PowerTrace | str) -> Section:
    """All figures, those to look into beside their printed twin.

    Args:
        summary: of the experiment.
        power: of one run; or why there is none.
    """
    blocks: list[Picture | Plot | Bullets] = []
    missing: list[str] = []

    def draw(name: str, caption: str, make: "Callable[[], Figure]") -> None:
        try:
            blocks.append(Picture(name, caption + _word(summary), make()))
        except UsageError as error:
            missing.append(error.message)

    draw(
        "energy_by_treatment",
        "Energy of the measured phase by treatment. Points are runs, the shape their density where there are five or "
        "more, the diamond their mean with its 95 % interval.",
        lambda: figures.energy_by_treatment(summary),
    )
    by = figures.token_factor(summary)
    draw(
        "energy_per_token",
        f"Energy per output token{f' by {by}' if by else ''}. Points are runs; a diamond is the mean over "
        "the treatments of one colour, each counted once.",
        lambda: figures.energy_per_token(summary),
    )
    draw(
        "pareto",
        "Energy against accuracy, means with 95 % intervals. On the front (ringed, dashed) no other treatment needs "
        "less energy and is more accurate; it is one of means, so near neighbours may change places. Treatments of "
        "different tasks answer different questions.",
        lambda: figures.energy_against_accuracy(summary),
    )
    if any(block.name == "pareto" for block in blocks if isinstance(block, Picture)):
        caption = "The same to look into: what a point is stands under the pointer."
        blocks.append(Plot("pareto_interactive", caption + _word(summary), interactive_pareto(summary), "pareto"))
    draw(
        "interaction",
        "Interaction profile: where lines are not parallel, a factor acts differently at different levels of the "
        "other.",
        lambda: figures.interaction_profile(summary),
    )
    draw(
        "edp_ranking",
        "Treatments by energy-delay product, the smallest on top, with 95 % intervals. Ranks compare only treatments "
        "that do the same work.",
        lambda: figures.edp_ranking(summary),
    )
    if any(block.name == "edp_ranking" for block in blocks if isinstance(block, Picture)):
        caption = "The same to look into, with energy, time and ED²P under the pointer."
        blocks.append(Plot("edp_interactive", caption + _word(summary), interactive_edp(summary), "edp_ranking"))
    if isinstance(power, PowerTrace):
        word = " Estimate, not a measurement." if power.is_estimate else ""
        caption = f"Power over time of {power.title}; the phases are bands. The area under a line is its energy.{word}"
        blocks.append(Picture("power_trace", caption, figures.power_trace(power)))
        blocks.append(
            Plot("power_interactive", f"The same to zoom into.{word}", interactive_power(power), "power_trace")
        )
    else:
        missing.append(power)
    draw(
        "thermal_carry_over",
        "Thermal carry-over. Left: start temperature by what ran before. Right: energy against start temperature, "
        "each run less its treatment's mean; the line is least squares, with its 95 % interval. An association: "
        "outputs that differ between runs move energy too.",
        lambda: figures.thermal_carry_over(summary),
    )
    if missing:
        blocks.append(Bullets(tuple(f"Not drawn: {reason}" for reason in dict.fromkeys(missing))))
    return Section("figures", "Figures", tuple(blocks))


def _word(summary: Summary) -> str:
    """Never an estimate without the word."""
    if not summary.is_estimate:
        return ""
    return " Energies are estimates." if len(summary.methods) == 1 else " Some energies are estimates."
