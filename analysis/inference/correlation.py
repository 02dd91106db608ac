"""Do two quantities rise together? Spearman's rank correlation, alone or by group."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from analysis.inference.adjust import ADJUSTMENTS, adjust
from analysis.inference.sample import checked, has_columns, labels, ordered
from contract.errors import UsageError

if TYPE_CHECKING:
    import polars as pl

MANY_TIES = 0.5


@dataclass(frozen=True)
class Spearman:
    """One correlation.

    Attributes:
        rho: from -1 to 1; mean ranks for ties.
        p_value: two-sided, t approximation with n - 2 degrees of freedom.
        p_adjusted: in the family of groups; equals p_value where there is one.
        low: of the 95 % interval after Bonett and Wright, 2000; None below 5 pairs or at a rho of -1 or 1.
        high: of it.
        n: pairs.
        group: level of the grouping column; None where there is none.
        method: in words.
        warnings: what a reader must know.
    """

    rho: float
    p_value: float
    p_adjusted: float
    low: float | None
    high: float | None
    n: int
    group: str | None
    method: str
    warnings: tuple[str, ...]


def spearman(x: ArrayLike, y: ArrayLike) -> Spearman:
    """Spearman, 1904.

    Args:
        x: (n,), n at least 3.
        y: (n,), same order.

    Raises:
        UsageError: lengths differ, fewer than 3 pairs, a missing value, or one side is constant.
    """
    from scipy.stats import norm, spearmanr

    first, second = checked(x, "x", 3), checked(y, "y", 3)
    if first.size != second.size:
        raise UsageError(f"x has {first.size} values, y has {second.size}: they must be pairs.")
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        raise UsageError("One side is the same everywhere: a correlation is not defined.")
    found = spearmanr(first, second)
    rho, n = float(found.statistic), first.size
    low = high = None
    warnings = []
    if n >= 5 and abs(rho) < 1 - 1e-12:
        half = float(norm.ppf(0.975)) * np.sqrt((1 + rho**2 / 2) / (n - 3))
        low, high = float(np.tanh(np.arctanh(rho) - half)), float(np.tanh(np.arctanh(rho) + half))
    if n < 10:
        warnings.append(f"Only {n} pairs: the p-value is rough.")
    distinct = min(np.unique(first).size, np.unique(second).size)
    if n >= 10 and distinct < MANY_TIES * n:
        warnings.append(
            f"One side has {distinct} distinct values in {n} pairs: the rows may be repetitions and not independent, "
            "which makes p too small and the interval too narrow."
        )
    method = "Spearman's rho, two-sided by t; interval after Bonett and Wright"
    p = float(found.pvalue)
    return Spearman(rho, p, p, low, high, n, None, method, tuple(warnings))


def spearman_by(
    frame: "pl.DataFrame",
    x: str,
    y: str,
    by: str,
    levels: Sequence[str] | None = None,
    adjustment: str = "bh",
) -> tuple[Spearman, ...]:
    """One correlation per group, adjusted over the groups.

    Args:
        frame: one row per pair.
        x: column of numbers.
        y: column of numbers.
        by: column of groups.
        levels: groups, in order; all by default.
        adjustment: one of `adjust.ADJUSTMENTS`.

    Raises:
        UsageError: as `spearman`; the message names the group.
    """
    has_columns(frame, [x, y, by])
    group_of, first, second = labels(frame, by), frame[x].to_numpy(), frame[y].to_numpy()
    found = []
    for level in ordered(group_of) if levels is None else levels:
        rows = group_of == level
        try:
            found.append(replace(spearman(first[rows], second[rows]), group=level))
        except UsageError as error:
            raise UsageError(f"{x} and {y} at {by} {level}: {error.message}") from error
    adjusted = adjust([each.p_value for each in found], adjustment)
    return tuple(
        replace(
            each,
            p_adjusted=float(adjusted[i]),
            method=f"{each.method}; {x} with {y}; {ADJUSTMENTS[adjustment]} over {len(found)} groups",
        )
        for i, each in enumerate(found)
    )
