"""What the parametric tests assume: normal residuals, equal variances."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from analysis.inference.sample import Floats, Level, cells, checked, has_columns
from contract.errors import UsageError

if TYPE_CHECKING:
    import polars as pl

SHAPIRO_MAXIMUM = 5000


@dataclass(frozen=True)
class AssumptionTest:
    """One test of an assumption.

    Attributes:
        statistic: W of Shapiro-Wilk, or F of Levene.
        df: of Levene's F; None for Shapiro-Wilk.
        p_value: small means that the assumption does not hold.
        n: values.
        method: in words.
        warnings: what a reader must know.
    """

    statistic: float
    df: tuple[int, int] | None
    p_value: float
    n: int
    method: str
    warnings: tuple[str, ...] = ()


def shapiro_wilk(frame: "pl.DataFrame", response: str, factors: Sequence[str] = ()) -> AssumptionTest:
    """Are the residuals normal (Shapiro and Wilk, 1965)?

    An analysis of variance assumes that of its residuals, not of the response: so the values enter less the mean of
    their cell. Without factors the values themselves are tested.

    Args:
        frame: one row per observation.
        response: column of numbers.
        factors: columns whose crossing makes the cells.

    Raises:
        UsageError: fewer than three values, or nothing but constants.
    """
    from scipy.stats import shapiro

    has_columns(frame, [response, *factors])
    residual = checked(frame[response].to_numpy(), response, 3)
    what = "the values"
    if factors:
        _, index = cells(frame, factors)
        residual = residual - (np.bincount(index, residual) / np.bincount(index))[index]
        what = f"the residuals of {response} ~ {' * '.join(factors)}"
    if np.ptp(residual) <= 1e-12 * np.abs(frame[response].to_numpy()).max():
        raise UsageError(f"{response} does not vary within the cells: normality cannot be tested.")
    warnings = []
    if residual.size > SHAPIRO_MAXIMUM:
        warnings.append(f"p is approximate beyond {SHAPIRO_MAXIMUM} values; n is {residual.size}.")
    if residual.size >= 300:
        warnings.append("With this many values the test finds departures that do no harm: look at the plot as well.")
    found = shapiro(residual)
    return AssumptionTest(
        float(found.statistic), None, float(found.pvalue), residual.size, f"Shapiro-Wilk on {what}", tuple(warnings)
    )


def levene(frame: "pl.DataFrame", response: str, factors: Sequence[str], centre: str = "median") -> AssumptionTest:
    """Are the variances of the cells equal (Levene, 1960; about the median after Brown and Forsythe, 1974)?

    Args:
        frame: one row per observation.
        response: column of numbers.
        factors: columns whose crossing makes the cells.
        centre: `median`, as in R's `car::leveneTest`, or `mean`.

    Raises:
        UsageError: fewer than two cells, a cell of one value, all of two, no variance, or an unknown centre.
    """
    from scipy.stats import levene as scipy_levene

    if centre not in ("median", "mean"):
        raise UsageError(f"Unknown centre {centre!r}. Known: median, mean.")
    if not factors:
        raise UsageError("Levene's test compares groups: name at least one factor.")
    has_columns(frame, [response, *factors])
    values = checked(frame[response].to_numpy(), response)
    crossing, index = cells(frame, factors)
    groups: dict[Level, Floats] = {
        " x ".join(cell): checked(values[index == i], f"{response} at {' x '.join(cell)}", 2)
        for i, cell in enumerate(crossing)
    }
    if all(np.ptp(group) == 0 for group in groups.values()):
        raise UsageError(f"{response} does not vary within any cell: there are no variances to compare.")
    if all(group.size == 2 for group in groups.values()):
        # Two values are equally far from their centre: there is no variance within the cells to hold others against.
        raise UsageError("Every cell has two values: Levene's test needs three in at least one. Repeat the runs.")
    found = scipy_levene(*groups.values(), center=centre)
    return AssumptionTest(
        float(found.statistic),
        (len(groups) - 1, values.size - len(groups)),
        float(found.pvalue),
        values.size,
        f"Levene's test about the {centre}, {len(groups)} cells of {' x '.join(factors)}",
    )
