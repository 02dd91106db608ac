"""How many repetitions to see a difference of 5 %?

Energy is positive and its spread goes with its size, so differences are taken on the logarithm: a relative difference
r between two treatments of equal coefficient of variation CV is an effect of d = ln(1 + r) / sqrt(ln(1 + CV^2))
standard deviations (exact for log-normal values).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from analysis.inference.sample import checked, has_columns
from analysis.statistics import wilson_interval
from contract.errors import UsageError

if TYPE_CHECKING:
    import polars as pl

SEED = 20250802
N_SIMULATIONS = 4000
TESTS = {
    "mann_whitney": "two-sided Mann-Whitney test",
    "t": "two-sided t test on the logarithms",
}
MANN_WHITNEY_EFFICIENCY = 3 / math.pi
"""Of Mann-Whitney relative to t on normal values, for many repetitions (Hodges and Lehmann, 1956)."""
N_MAXIMUM = 1_000_000


@dataclass(frozen=True)
class RepetitionAdvice:
    """Repetitions per treatment.

    Attributes:
        n: per treatment, for two treatments compared.
        difference: relative difference to be seen, 0.05 for 5 %.
        coefficient_of_variation: sd / mean of repetitions of one treatment.
        effect: the difference in standard deviations of the logarithm.
        alpha: of the test, after any division for several comparisons.
        power: chance of a p below alpha, wanted.
        method: in words.
        warnings: what a reader must know.
    """

    n: int
    difference: float
    coefficient_of_variation: float
    effect: float
    alpha: float
    power: float
    method: str
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class SimulatedPower:
    """Share of resampled experiments in which the test saw the difference.

    Attributes:
        power: the share.
        low: of its 95 % Wilson interval, for the number of simulations alone.
        high: of it.
        n: repetitions per treatment.
        difference: relative, as simulated.
        n_simulations: experiments.
        seed: of the resampling.
        method: in words.
        warnings: what a reader must know.
    """

    power: float
    low: float
    high: float
    n: int
    difference: float
    n_simulations: int
    seed: int
    method: str
    warnings: tuple[str, ...]


def coefficient_of_variation(values: ArrayLike) -> float:
    """sd / mean, with n - 1.

    Raises:
        UsageError: fewer than two values, a missing one, or one that is not above 0.
    """
    found = checked(values, "The repetitions", 2)
    if found.min() <= 0:
        raise UsageError("A value is 0 or below: relative differences need positive values.")
    return float(found.std(ddof=1) / found.mean())


def repetitions_needed(
    cv: float,
    difference: float = 0.05,
    *,
    alpha: float = 0.05,
    power: float = 0.8,
    test: str = "mann_whitney",
    n_comparisons: int = 1,
    n_observed: int | None = None,
) -> RepetitionAdvice:
    """Repetitions per treatment that show a relative difference.

    For t the exact power of the non-central t (statsmodels). For Mann-Whitney that n over its asymptotic efficiency
    3 / pi, and no fewer than can give a p below alpha at all: 2 / C(2n, n).

    Args:
        cv: sd / mean of the repetitions of one treatment.
        difference: wanted, relative; below 0 for a decrease.
        alpha: of one test.
        power: wanted.
        test: `mann_whitney` or `t`.
        n_comparisons: tests made; alpha is divided by it (Bonferroni: safe for Benjamini-Hochberg too).
        n_observed: repetitions that cv comes from, for the warning.

    Raises:
        UsageError: a value out of range, or more than a million repetitions would be needed.
    """
    _check_options(difference, alpha, power, test)
    if not math.isfinite(cv) or cv <= 0:
        raise UsageError(
            f"The coefficient of variation is {cv:g}. It must be above 0: identical repetitions say nothing."
        )
    if n_comparisons < 1:
        raise UsageError("n_comparisons is at least 1.")
    alpha = alpha / n_comparisons
    effect = abs(math.log1p(difference)) / math.sqrt(math.log1p(cv**2))

    def reached(n: int) -> bool:
        return _t_test_power(effect, n, alpha) >= power

    # By doubling and halving: the library's own root finder fails where two repetitions are more than enough.
    high = 2
    while not reached(high):
        high *= 2
        if high > N_MAXIMUM:
            raise UsageError(
                f"More than {N_MAXIMUM} repetitions would be needed to see {difference:.2%} with a CV of {cv:.2%}. "
                "Steady the measurement, or ask for a larger difference."
            )
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if middle >= 2 and reached(middle) else (middle, high)
    n = high
    if test == "mann_whitney":
        n = math.ceil(n / MANN_WHITNEY_EFFICIENCY)
        while 2 / math.comb(2 * n, n) > alpha:
            n += 1
    words = [
        "The count is of independent repetitions: those with identical outputs tell the noise of the device alone."
    ]
    if n_observed is not None and n_observed < 10:
        words.append(
            f"The CV comes from {n_observed} repetitions: it is known to about "
            f"{1 / math.sqrt(2 * (n_observed - 1)):.0%} of itself."
        )
    method = f"{TESTS[test]}, {power:.0%} power at alpha {alpha:.4g}; effect on the logarithm"
    if test == "mann_whitney":
        method += "; n of the t test over 3 / pi"
    return RepetitionAdvice(n, difference, cv, effect, alpha, power, method, tuple(words))


def detectable_difference(
    cv: float, n: int, *, alpha: float = 0.05, power: float = 0.8, test: str = "mann_whitney"
) -> float:
    """The smallest relative increase that n repetitions per treatment show; the inverse of `repetitions_needed`.

    Args:
        cv: sd / mean of the repetitions of one treatment.
        n: repetitions per treatment, at least 2.
        alpha: of one test.
        power: wanted.
        test: `mann_whitney` or `t`.

    Raises:
        UsageError: a value out of range, or n that cannot give a p below alpha.
    """
    from scipy.optimize import brentq

    _check_options(0.05, alpha, power, test)
    if n < 2 or not math.isfinite(cv) or cv <= 0:
        raise UsageError("n is at least 2 and the coefficient of variation above 0.")
    ranks = test == "mann_whitney"
    if ranks and 2 / math.comb(2 * n, n) > alpha:
        raise UsageError(f"{n} repetitions per treatment cannot give a Mann-Whitney p below {alpha:g}. Take more.")
    worth = max(1.5, n * MANN_WHITNEY_EFFICIENCY) if ranks else n
    # From "too small to see" outwards: far beyond the answer the distribution is hard to compute.
    high = 1e-6
    while _t_test_power(high, worth, alpha) < power:
        high *= 2
    effect = brentq(lambda d: _t_test_power(d, worth, alpha) - power, 1e-9, high)
    return math.expm1(effect * math.sqrt(math.log1p(cv**2)))


def simulated_power(
    values: ArrayLike,
    n: int,
    difference: float = 0.05,
    *,
    alpha: float = 0.05,
    test: str = "mann_whitney",
    n_simulations: int = N_SIMULATIONS,
    seed: int = SEED,
) -> SimulatedPower:
    """Draw experiments from repetitions that were measured, and count how often the difference is seen.

    Both treatments draw n values with replacement; the second is multiplied by 1 + difference. No distribution is
    assumed beyond the values', so give twenty or more.

    Args:
        values: repetitions of one treatment.
        n: repetitions per treatment in the experiment to be judged.
        difference: relative.
        alpha: of one test.
        test: `mann_whitney` or `t`.
        n_simulations: experiments.
        seed: of the draws.

    Raises:
        UsageError: fewer than two values, values all the same, or an option out of range.
    """
    from scipy.stats import mannwhitneyu, ttest_ind

    _check_options(difference, alpha, 0.8, test)
    found = checked(values, "The repetitions", 2)
    if coefficient_of_variation(found) == 0:
        raise UsageError("The repetitions are all the same: nothing can be drawn from them.")
    if n < 2 or n_simulations < 100:
        raise UsageError("n is at least 2, and n_simulations at least 100.")
    draws = np.random.default_rng(seed).choice(found, size=(2, n_simulations, n))
    first, second = draws[0], draws[1] * (1 + difference)
    if test == "t":
        p = ttest_ind(np.log(first), np.log(second), axis=1).pvalue
    else:
        # The exact distribution knows no ties, and draws with replacement have them only within a group.
        p = mannwhitneyu(first, second, axis=1, method="exact" if n <= 20 else "asymptotic").pvalue
    seen = int(np.count_nonzero(p < alpha))
    interval = wilson_interval(seen, n_simulations)
    assert interval is not None
    warnings = []
    if found.size < 20:
        warnings.append(
            f"Drawn from {found.size} values: their spread is known to about {1 / math.sqrt(2 * found.size):.0%}."
        )
    return SimulatedPower(
        seen / n_simulations,
        *interval,
        n,
        difference,
        n_simulations,
        seed,
        f"{TESTS[test]} at alpha {alpha:g}, {n_simulations} resampled experiments",
        tuple(warnings),
    )


def advise(
    frame: "pl.DataFrame",
    response: str,
    by: Sequence[str],
    difference: float = 0.05,
    *,
    alpha: float = 0.05,
    power: float = 0.8,
    test: str = "mann_whitney",
    n_comparisons: int = 1,
) -> dict[tuple[str, ...], RepetitionAdvice]:
    """`repetitions_needed` for each treatment, from the spread of its own repetitions.

    Args:
        frame: one row per run.
        response: column of positive numbers.
        by: columns that name the treatment.
        difference: relative, to be seen.
        alpha: of one test.
        power: wanted.
        test: `mann_whitney` or `t`.
        n_comparisons: tests made.

    Returns:
        Treatment -> advice; take the largest n.

    Raises:
        UsageError: a treatment has one repetition, equal values, or a missing one.
    """
    has_columns(frame, [response, *by])
    found = {}
    for key, part in frame.group_by(by, maintain_order=True):
        name = tuple(map(str, key))
        try:
            cv = coefficient_of_variation(part[response].to_numpy())
            found[name] = repetitions_needed(
                cv,
                difference,
                alpha=alpha,
                power=power,
                test=test,
                n_comparisons=n_comparisons,
                n_observed=part.height,
            )
        except UsageError as error:
            raise UsageError(f"{response} of {' x '.join(name)}: {error.message}") from error
    return dict(sorted(found.items()))


def _t_test_power(effect: float, n: float, alpha: float) -> float:
    """Of the two-sided t test with n values per group."""
    from scipy.stats import f, ncf
    from statsmodels.stats.power import TTestIndPower

    found = float(TTestIndPower().power(effect, n, alpha))
    if math.isfinite(found):
        return found
    # scipy's non-central t fails at some large effects; its square is a non-central F, which does not.
    df = 2 * (n - 1)
    return float(ncf.sf(f.isf(alpha, 1, df), 1, df, effect**2 * n / 2))


def _check_options(difference: float, alpha: float, power: float, test: str) -> None:
    if test not in TESTS:
        raise UsageError(f"Unknown test {test!r}. Known: {', '.join(TESTS)}.")
    if not math.isfinite(difference) or difference <= -1 or difference == 0:
        raise UsageError(f"A relative difference of {difference:g} cannot be looked for: above -1, and not 0.")
    if not 0 < alpha < 1 or not alpha < power < 1:
        raise UsageError("alpha lies between 0 and 1, power between alpha and 1.")
