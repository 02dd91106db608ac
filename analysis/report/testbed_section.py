"""Whether the testbeds of a pool measured alike; nothing where there was one."""

from collections import Counter
from typing import NamedTuple

from analysis.inference.block_effect import BlockEffect, block_effect
from analysis.report.document import Caution, Section, Table, Text
from analysis.report.quantity import many, number, p_value
from analysis.summary import Summary
from contract.errors import UsageError

ENERGY = "energy_j"
_ALPHA = 0.05
_SHOWN = 10


class Testbeds(NamedTuple):
    """The section, and what to beware of."""

    section: Section
    cautions: tuple[Caution, ...]


def testbed_section(summary: Summary, seed: int) -> Testbeds | None:
    """Test the testbed as a block beside the treatments; None: all counted runs come from one.

    Args:
        summary: of the experiment.
        seed: of the permutations.
    """
    import polars as pl

    rows = [
        {"treatment": row.label, "testbed": str(run["testbed"]), ENERGY: run[ENERGY]}
        for row in summary.treatments
        for run in row.runs
        if run[ENERGY] is not None and run.get("testbed")
    ]
    counts = Counter(row["testbed"] for row in rows)
    if len(counts) < 2:
        return None
    try:
        effect = block_effect(pl.DataFrame(rows), ENERGY, "treatment", "testbed", seed=seed)
    except UsageError as error:
        text = (
            f"{len(counts)} testbeds ran this, and what is the testbed's cannot be told from what is the treatment's. "
            f"{error.message}"
        )
        return Testbeds(Section("testbeds", "Testbeds", (Text(text),)), (Caution("doubt", text),))
    return Testbeds(
        Section("testbeds", "Testbeds", (Text(_words(effect, len(counts))), _table(effect, counts))),
        _cautions(effect, len(counts)),
    )


def _words(effect: BlockEffect, n_testbeds: int) -> str:
    low, high = _ends(effect)
    differ = "The testbeds differ" if effect.p_value < _ALPHA else "No difference between the testbeds can be detected"
    alone = (
        f" {many(effect.n_alone, 'treatment')} ran on one testbed alone, and tell nothing of it."
        if effect.n_alone
        else ""
    )
    return (
        f"{n_testbeds} testbeds, each a block. {differ}: {_p(effect)}, over {many(effect.n, 'run')}; "
        f"{100 * effect.share:.0f} % of the variance within treatments lies between testbeds. {high} measured "
        f"{_percent(effect, low, high)} more than {low} for the same treatments.{alone} {effect.method}."
    )


def _cautions(effect: BlockEffect, n_testbeds: int) -> tuple[Caution, ...]:
    found = []
    if effect.p_value < _ALPHA:
        low, high = _ends(effect)
        found.append(
            Caution(
                "doubt",
                f"The testbeds differ ({_p(effect)}): for the same treatments {high} measured "
                f"{_percent(effect, low, high)} more than {low}. Where a treatment's runs are not spread evenly over "
                "them, its mean holds the machine's part too; intervals are wider than on one machine.",
            )
        )
    if effect.n_alone:
        found.append(
            Caution(
                "doubt",
                f"{many(effect.n_alone, 'treatment')} of a campaign on {n_testbeds} testbeds ran on one alone: what is "
                "the machine's there cannot be told from what is the treatment's.",
            )
        )
    return tuple(found)


def _table(effect: BlockEffect, counts: Counter[str]) -> Table:
    shown = sorted(effect.ratios, key=lambda name: effect.ratios[name])
    if len(shown) > _SHOWN:
        shown = [*shown[: _SHOWN // 2], *shown[-_SHOWN // 2 :]]
    what = f", the {_SHOWN // 2} lowest and highest of {len(effect.ratios)}" if len(effect.ratios) > _SHOWN else ""
    return Table(
        caption=f"Energy of each testbed over the mean of the same treatments on all (geometric){what}.",
        header=("testbed", "runs", "over the mean"),
        rows=tuple((name, str(counts[name]), number(effect.ratios[name])) for name in shown),
    )


def _p(effect: BlockEffect) -> str:
    told = p_value(effect.p_value)
    return f"p {told}" if told.startswith("<") else f"p = {told}"


def _ends(effect: BlockEffect) -> tuple[str, str]:
    return min(effect.ratios, key=lambda name: effect.ratios[name]), max(
        effect.ratios, key=lambda name: effect.ratios[name]
    )


def _percent(effect: BlockEffect, low: str, high: str) -> str:
    return f"{100 * (effect.ratios[high] / effect.ratios[low] - 1):.1f} %"
