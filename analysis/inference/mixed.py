"""Mixed model: fixed effects, with repetitions that nest in a testbed, block, treatment or item."""

import warnings as python_warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from analysis.inference.independence import effective_n
from analysis.inference.random_intercept import Matrix, fit
from analysis.inference.sample import checked, has_columns, labels, ordered
from contract.errors import UsageError

if TYPE_CHECKING:
    import polars as pl

FEW_UNITS = 5


@dataclass(frozen=True)
class Coefficient:
    """One fixed effect.

    Attributes:
        name: `intercept`, `column` of a number, or `column=level` against the first level.
        estimate: in the response's unit; a difference of logarithms where `log` was asked for.
        standard_error: of it, after Kenward and Roger.
        df: of t, after Kenward and Roger.
        t: statistic.
        p_value: two-sided.
        low: of the 95 % interval.
        high: of it.
    """

    name: str
    estimate: float
    standard_error: float
    df: float
    t: float
    p_value: float
    low: float
    high: float


@dataclass(frozen=True)
class MixedModel:
    """A fitted model.

    Attributes:
        coefficients: intercept first.
        variance_unit: between units, (response unit)^2.
        variance_residual: within them.
        intraclass_correlation: share of the variance between units.
        n: rows.
        n_units: units.
        effective_n: independent rows that these are worth for a mean over units (Kish, 1965).
        method: in words.
        warnings: what a reader must know.
    """

    coefficients: tuple[Coefficient, ...]
    variance_unit: float
    variance_residual: float
    intraclass_correlation: float
    n: int
    n_units: int
    effective_n: float
    method: str
    warnings: tuple[str, ...]


def mixed_model(
    frame: "pl.DataFrame", response: str, fixed: Sequence[str], unit: str, *, log: bool = False
) -> MixedModel:
    """Fit response ~ fixed + (1 | unit) by REML.

    By `random_intercept`, with Kenward and Roger's tests, and held against statsmodels' MixedLM, whose own z tests find
    too much where there are few units; where that does not converge, or says something else, a warning tells.

    Args:
        frame: one row per run.
        response: column of numbers; above 0 where `log`.
        fixed: columns; numbers enter as they are, text as differences from the first level. May be empty.
        unit: column of the random intercept.
        log: take the natural logarithm of the response: effects become ratios, exp(estimate).

    Raises:
        UsageError: a missing value, fixed effects that cannot be told apart, or one row per unit.
    """
    from scipy.stats import t as student

    has_columns(frame, [response, *fixed, unit])
    y = checked(frame[response].to_numpy(), response, 3)
    if log:
        if y.min() <= 0:
            raise UsageError(f"{response} has values of 0 or below, which have no logarithm. Fit without log.")
        y = np.log(y)
    names, x = _columns(frame, fixed)
    units = np.unique(labels(frame, unit), return_inverse=True)[1].astype(np.intp)
    n_units = int(units.max()) + 1
    if n_units < 2:
        raise UsageError(
            f"{unit} has one level: there is nothing to vary between units. Leave the random intercept out."
        )
    ours = fit(y, x, units)
    assert ours.variance_unit is not None and ours.intraclass_correlation is not None
    words = _held_against_statsmodels(y, x, units, ours.variance_unit, ours.variance_residual)
    if n_units < FEW_UNITS:
        words.append(f"Only {n_units} levels of {unit}: the variance between them is hardly known.")
    if ours.variance_unit == 0:
        words.append(f"No variance between levels of {unit} beyond that of the rows (edge of the fit).")
    coefficients = []
    for i, name in enumerate(names):
        test = ours.t_test(np.eye(len(names))[i])
        half = float(student.ppf(0.975, test.df)) * test.standard_error
        coefficients.append(
            Coefficient(
                name,
                test.estimate,
                test.standard_error,
                test.df,
                test.t,
                test.p_value,
                test.estimate - half,
                test.estimate + half,
            )
        )
    left = f"log({response})" if log else response
    return MixedModel(
        coefficients=tuple(coefficients),
        variance_unit=ours.variance_unit,
        variance_residual=ours.variance_residual,
        intraclass_correlation=ours.intraclass_correlation,
        n=y.size,
        n_units=n_units,
        effective_n=effective_n(y.size, y.size / n_units, ours.intraclass_correlation),
        method=f"Mixed model {left} ~ {' + '.join(fixed) or '1'} + (1 | {unit}), REML, Kenward-Roger t tests",
        warnings=tuple(words),
    )


def _columns(frame: "pl.DataFrame", fixed: Sequence[str]) -> tuple[list[str], Matrix]:
    names, columns = ["intercept"], [np.ones(frame.height)]
    for factor in fixed:
        if frame[factor].dtype.is_numeric():
            names.append(factor)
            columns.append(checked(frame[factor].to_numpy(), factor))
            continue
        found = labels(frame, factor)
        for level in ordered(found)[1:]:
            names.append(f"{factor}={level}")
            columns.append((found == level).astype(np.float64))
    return names, np.stack(columns, axis=1)


def _held_against_statsmodels(
    y: NDArray[np.float64], x: Matrix, units: NDArray[np.intp], variance_unit: float, variance_residual: float
) -> list[str]:
    """Words where the library's fit says something else, or nothing."""
    from statsmodels.regression.mixed_linear_model import MixedLM

    scale = float(y.std()) or 1.0  # its optimiser's tolerances are absolute
    with python_warnings.catch_warnings():
        python_warnings.simplefilter("ignore")
        try:
            # Without derivatives: its default methods stop at a singular matrix on lme4's own textbook data.
            found = MixedLM(y / scale, x, groups=units).fit(reml=True, method=["powell"])
        except np.linalg.LinAlgError:
            found = None
    if variance_unit <= 1e-6 * variance_residual:
        return []  # at the edge it often stops early, and the caller says that it is the edge
    if found is None or not found.converged:
        return [
            "statsmodels' fit does not converge; the figures are those of the direct search. The data hardly tell the "
            "variances: fewer fixed effects, more units, or log=True for values over orders of magnitude may help."
        ]
    theirs = float(np.asarray(found.cov_re)[0, 0]) * scale**2
    if abs(theirs - variance_unit) > 0.02 * max(theirs, variance_unit):
        return [
            f"statsmodels puts the variance between units at {theirs:.4g}, the direct search at {variance_unit:.4g}: "
            "the data hardly tell it."
        ]
    return []
