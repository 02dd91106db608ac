"""Which groups differ, by ranks? Dunn's pairwise comparisons after Kruskal-Wallis."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import TYPE_CHECKING

import numpy as np

from analysis.inference.adjust import ADJUSTMENTS, adjust
from analysis.inference.independence import imbalance_words
from analysis.inference.sample import Level, not_constant, split
from contract.errors import UsageError

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class DunnPair:
    """One pair of groups.

    Attributes:
        first: a group.
        second: the other.
        z: difference of mean ranks, first less second, over its standard error: above 0 where `first` is larger.
        p_value: unadjusted.
        p_adjusted: in the family of all pairs.
    """

    first: Level
    second: Level
    z: float
    p_value: float
    p_adjusted: float


@dataclass(frozen=True)
class DunnTest:
    """All pairs.

    Attributes:
        pairs: every pair of levels, earlier level first.
        levels: in order.
        n: values.
        method: in words, with adjustment and sides.
        warnings: what a reader must know.
    """

    pairs: tuple[DunnPair, ...]
    levels: tuple[Level, ...]
    n: int
    method: str
    warnings: tuple[str, ...]

    def successive(self) -> tuple[DunnPair, ...]:
        """The pairs of neighbouring levels; adjusted in the family of all pairs all the same."""
        neighbours = set(pairwise(self.levels))
        return tuple(pair for pair in self.pairs if (pair.first, pair.second) in neighbours)


def dunn(
    frame: "pl.DataFrame",
    response: str,
    factor: str,
    levels: Sequence[Level] | None = None,
    *,
    adjustment: str = "bh",
    sides: int = 2,
) -> DunnTest:
    """Dunn, 1964, with his correction for ties.

    scikit-posthocs has the p-values but not z, so the formula is here; the tests hold the two together.

    Args:
        frame: one row per independent observation.
        response: column of numbers.
        factor: column of groups.
        levels: groups to compare, in order; all by default.
        adjustment: one of `adjust.ADJUSTMENTS`.
        sides: 2, or 1 as R's `dunn.test` does by default (the tail on the side of z, whichever that is).

    Raises:
        UsageError: one group, a missing value, values all the same, or an unknown option.
    """
    from scipy.stats import norm, rankdata

    if sides not in (1, 2):
        raise UsageError(f"sides is 1 or 2, not {sides}.")
    samples = split(frame, response, factor, levels)
    not_constant(samples, response)
    ranks = rankdata(np.concatenate(list(samples.values())))
    n = ranks.size
    ends = np.cumsum([sample.size for sample in samples.values()])[:-1]
    mean_rank = dict(zip(samples, (part.mean() for part in np.split(ranks, ends)), strict=True))
    _, ties = np.unique(ranks, return_counts=True)
    variance = n * (n + 1) / 12 - float((ties**3 - ties).sum()) / (12 * (n - 1))
    names = list(combinations(samples, 2))
    z = np.asarray(
        [
            (mean_rank[a] - mean_rank[b]) / np.sqrt(variance * (1 / samples[a].size + 1 / samples[b].size))
            for a, b in names
        ]
    )
    p = sides * norm.sf(np.abs(z))
    adjusted = adjust(p, adjustment)
    pairs = tuple(DunnPair(a, b, float(z[i]), float(p[i]), float(adjusted[i])) for i, (a, b) in enumerate(names))
    return DunnTest(
        pairs,
        tuple(samples),
        n,
        f"Dunn's test of {response} by {factor}, {'two' if sides == 2 else 'one'}-sided; "
        f"{ADJUSTMENTS[adjustment]} over {len(pairs)} pairs",
        imbalance_words({level: sample.size for level, sample in samples.items()}),
    )
