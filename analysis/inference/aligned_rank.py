"""Aligned rank transform: factorial tests without normality, and contrasts that go with them.

Wobbrock, Findlater, Gergle and Higgins, 2011 (CHI, ART): for each effect, strip the response of all other effects,
rank it, and run the usual factorial analysis on the ranks, reading that effect only. Elkin, Kay, Higgins and Wobbrock,
2021 (UIST, ART-C): contrasts need an alignment of their own, with the compared factors joined into one. As in R's
ARTool: type III tests of F; alignment by means over rows, mean ranks for ties; with a random intercept, Kenward-Roger
degrees of freedom. Aligned values are rounded before ranking, so that rounding errors make no order: to 13 digits of
the largest value (ARTool: to 8 decimals, which for energies near 1e5 J is the same but depends on the unit).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import combinations, pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from analysis.inference.adjust import ADJUSTMENTS, adjust
from analysis.inference.independence import imbalance_words
from analysis.inference.random_intercept import Matrix, RandomIntercept, fit
from analysis.inference.sample import Floats, Level, cells, checked, has_columns, labels
from contract.errors import UsageError

if TYPE_CHECKING:
    import polars as pl

ROUNDING_DIGITS = 13
LEAKAGE_MAXIMUM = 0.1


@dataclass(frozen=True)
class TermTest:
    """One effect.

    Attributes:
        term: its factors; more than one for an interaction.
        f: statistic, on the ranks aligned for this effect.
        df: of the effect.
        df_residual: of the error.
        p_value: of F.
        partial_eta_squared: F df / (F df + df_residual).
    """

    term: tuple[str, ...]
    f: float
    df: int
    df_residual: float
    p_value: float
    partial_eta_squared: float


@dataclass(frozen=True)
class ArtAnova:
    """All effects of a full factorial.

    Attributes:
        terms: main effects first, then interactions.
        n: rows.
        n_units: units of the random intercept; None without one.
        method: in words.
        warnings: what a reader must know.
    """

    terms: tuple[TermTest, ...]
    n: int
    n_units: int | None
    method: str
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class ArtContrast:
    """Two levels, or two cells of several factors.

    Attributes:
        first: a level of each factor compared.
        second: the same.
        estimate: difference of mean aligned ranks, first less second.
        standard_error: of it.
        df: of t.
        t: statistic.
        p_value: two-sided, unadjusted.
        p_adjusted: in the family of all pairs.
    """

    first: tuple[Level, ...]
    second: tuple[Level, ...]
    estimate: float
    standard_error: float
    df: float
    t: float
    p_value: float
    p_adjusted: float


@dataclass(frozen=True)
class ArtContrasts:
    """All pairs of the levels, or cells, of the compared factors.

    Attributes:
        factors: those compared.
        pairs: every pair, earlier first.
        n: rows.
        method: in words, with the adjustment.
        warnings: what a reader must know.
    """

    factors: tuple[str, ...]
    pairs: tuple[ArtContrast, ...]
    n: int
    method: str
    warnings: tuple[str, ...]

    def successive(self, *, same_others: bool = False) -> tuple[ArtContrast, ...]:
        """The pairs whose levels of the first factor are neighbours; adjusted among all pairs all the same.

        Args:
            same_others: only those that agree in all other factors: the comparisons *within* a task, where the first
                factor is the generation and the second the task. Without it, pairs that differ in both are among them.
        """
        levels = list(dict.fromkeys(each for pair in self.pairs for each in (pair.first[0], pair.second[0])))
        neighbours = set(pairwise(levels))
        return tuple(
            pair
            for pair in self.pairs
            if (pair.first[0], pair.second[0]) in neighbours and (not same_others or pair.first[1:] == pair.second[1:])
        )


@dataclass(frozen=True)
class _Design:
    """Response, cells and units of a full factorial."""

    y: Floats
    factors: tuple[str, ...]
    crossing: list[tuple[Level, ...]]
    index: NDArray[np.intp]
    unit: NDArray[np.intp] | None
    random: str

    def means(self, values: Floats, factors: Sequence[str]) -> Floats:
        """For each row, the mean over the rows that share its levels of these factors."""
        keep = [self.factors.index(factor) for factor in factors]
        group_of: dict[tuple[Level, ...], int] = {}
        of_cell = [group_of.setdefault(tuple(cell[i] for i in keep), len(group_of)) for cell in self.crossing]
        group = np.asarray(of_cell)[self.index]
        return np.asarray((np.bincount(group, values) / np.bincount(group))[group])

    def aligned(self, term: Sequence[str]) -> Floats:
        """The response less its cell mean, plus the estimated effect of the term."""
        effect = np.zeros_like(self.y)
        for size in range(len(term) + 1):
            for part in combinations(term, size):
                effect += (-1) ** (len(term) - size) * self.means(self.y, part)
        return self.rounded(self.y - self.means(self.y, self.factors) + effect)

    def rounded(self, values: Floats) -> Floats:
        """Without the rounding errors of the alignment."""
        scale = float(np.abs(self.y).max())
        return np.asarray(np.round(values / scale, ROUNDING_DIGITS) * scale)

    def fitted(self, values: Floats) -> RandomIntercept:
        """One mean per cell, with the random intercept."""
        x = np.zeros((values.size, len(self.crossing)))
        x[np.arange(values.size), self.index] = 1.0
        return fit(values, x, self.unit)

    def sizes(self) -> list[int]:
        """Levels of each factor."""
        return [len({cell[i] for cell in self.crossing}) for i in range(len(self.factors))]

    def hypothesis(self, term: Sequence[str]) -> Matrix:
        """The type III hypothesis over the cell means: differences along the term's factors, plain means elsewhere."""
        parts = []
        for factor, size in zip(self.factors, self.sizes(), strict=True):
            differences = np.eye(size)[:-1] - np.eye(size)[1:]
            parts.append(differences if factor in term else np.full((1, size), 1 / size))
        return reduce(np.kron, parts)


def _design(frame: "pl.DataFrame", response: str, factors: Sequence[str], unit: str | None) -> _Design:
    if not factors:
        raise UsageError("Name at least one factor.")
    has_columns(frame, [response, *factors, *([unit] if unit else [])])
    y = checked(frame[response].to_numpy(), response, 3)
    if np.ptp(y) == 0:
        raise UsageError(f"{response} is the same everywhere: no test can be made. Was it measured?")
    crossing, index = cells(frame, factors)
    units = np.unique(labels(frame, unit), return_inverse=True)[1].astype(np.intp) if unit else None
    return _Design(y, tuple(factors), crossing, index, units, f" + (1 | {unit})" if unit else "")


def _warnings(design: _Design) -> list[str]:
    counts = np.bincount(design.index)
    names = [" x ".join(cell) for cell in design.crossing]
    words = list(imbalance_words(dict(zip(names, map(int, counts), strict=True))))
    if design.unit is None:
        return words
    pairs = np.unique(np.stack([design.unit, design.index]), axis=1)
    if pairs.shape[1] == design.unit.max() + 1:  # every unit lies within one cell
        per_cell = np.bincount(pairs[1], minlength=len(names))
        several = [name for name, n_units in zip(names, per_cell, strict=True) if n_units > 1]
        if len(several) < len(names):
            words.append(
                f"Only {len(several)} of {len(names)} cells have more than one unit ({', '.join(several[:3])}"
                f"{', ...' if len(several) > 3 else ''}): the error between units is known from these alone, and "
                "whatever else differs between their units counts as error."
            )
    return words


def art_anova(frame: "pl.DataFrame", response: str, factors: Sequence[str], unit: str | None = None) -> ArtAnova:
    """Test all main effects and interactions of a full factorial.

    Args:
        frame: one row per observation; all cells of the crossing must be filled.
        response: column of numbers.
        factors: one or more columns of levels.
        unit: column of the random intercept: the treatment whose repetitions the rows are, a subject, a testbed.
            None treats the rows as independent.

    Raises:
        UsageError: a missing value, an empty cell, no repetition, or no unit to tell the error by.
    """
    design = _design(frame, response, factors, unit)
    warnings = _warnings(design)
    terms = []
    for size in range(1, len(factors) + 1):
        for term in combinations(factors, size):
            left = leakage(frame, response, factors, term, unit)
            if left > LEAKAGE_MAXIMUM:
                warnings.append(
                    f"The alignment for {' x '.join(term)} leaves other effects in (F up to {left:.3g}; should be near "
                    "0), because the cells are not in proportion: read its test with care."
                )
            model = design.fitted(_ranks(design.aligned(term)))
            found = model.f_test(design.hypothesis(term))
            share = found.f * found.df / (found.f * found.df + found.df_residual)
            terms.append(TermTest(term, found.f, found.df, found.df_residual, found.p_value, share))
            if model.variance_residual == 0:
                warnings.append(f"{' x '.join(term)}: the rows of a unit are all equal, so each unit counts once.")
            elif model.variance_unit == 0:
                warnings.append(
                    f"{' x '.join(term)}: no variance between units beyond that of the rows (edge of the fit)."
                )
    n_units = None if design.unit is None else int(design.unit.max()) + 1
    method = f"Aligned rank transform, {response} ~ {' * '.join(factors)}{design.random}; type III F tests"
    if unit:
        method += ", REML, Kenward-Roger degrees of freedom"
    return ArtAnova(tuple(terms), design.y.size, n_units, method, tuple(warnings))


def art_contrasts(
    frame: "pl.DataFrame",
    response: str,
    factors: Sequence[str],
    compare: Sequence[str],
    unit: str | None = None,
    adjustment: str = "bh",
) -> ArtContrasts:
    """All pairs of levels of one factor, or of cells of several, after ART-C.

    Args:
        frame: as for `art_anova`.
        response: column of numbers.
        factors: all factors of the design.
        compare: those to compare, some or all of `factors`.
        unit: column of the random intercept, or None.
        adjustment: one of `adjust.ADJUSTMENTS`, over all pairs.

    Raises:
        UsageError: as `art_anova`, or a compared factor is not in the design.
    """
    unknown = [factor for factor in compare if factor not in factors]
    if unknown or not compare or len(set(compare)) < len(compare):
        raise UsageError(f"compare names factors of the design, each once: {', '.join(factors)}.")
    design = _design(frame, response, factors, unit)
    # Joined into one factor, the compared ones have a single effect: their means less the grand mean.
    values = design.y - design.means(design.y, design.factors)
    values = values + design.means(design.y, compare) - design.y.mean()
    model = design.fitted(_ranks(design.rounded(values)))
    keep = [design.factors.index(factor) for factor in compare]
    of_cell = [tuple(cell[i] for i in keep) for cell in design.crossing]
    groups, _ = cells(frame, compare)
    marginal = {group: np.asarray([float(each == group) for each in of_cell]) for group in groups}
    names = list(combinations(groups, 2))
    tests = [model.t_test(marginal[a] / marginal[a].sum() - marginal[b] / marginal[b].sum()) for a, b in names]
    adjusted = adjust([test.p_value for test in tests], adjustment)
    pairs = tuple(
        ArtContrast(a, b, test.estimate, test.standard_error, test.df, test.t, test.p_value, float(adjusted[i]))
        for i, ((a, b), test) in enumerate(zip(names, tests, strict=True))
    )
    method = (
        f"ART-C contrasts of {' x '.join(compare)} in {response} ~ {' * '.join(factors)}{design.random}; "
        f"{ADJUSTMENTS[adjustment]} over {len(pairs)} pairs"
    )
    return ArtContrasts(tuple(compare), pairs, design.y.size, method, tuple(_warnings(design)))


def leakage(
    frame: "pl.DataFrame", response: str, factors: Sequence[str], term: Sequence[str], unit: str | None = None
) -> float:
    """The largest F that effects other than the term have in the response aligned for it; 0 where all is well.

    ARTool's own check of an alignment: on the aligned values before ranking.

    Args:
        frame: as for `art_anova`.
        response: column of numbers.
        factors: all factors.
        term: the effect the response is aligned for.
        unit: column of the random intercept, or None.
    """
    design = _design(frame, response, factors, unit)
    model = design.fitted(design.aligned(term))
    others = [
        other for size in range(1, len(factors) + 1) for other in combinations(factors, size) if set(other) != set(term)
    ]
    return max((model.f_test(design.hypothesis(other)).f for other in others), default=0.0)


def _ranks(values: Floats) -> Floats:
    from scipy.stats import rankdata

    return np.asarray(rankdata(values), dtype=np.float64)
