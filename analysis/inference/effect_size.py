"""How far apart are two groups? Cliff's delta and Vargha and Delaney's A, with bootstrap intervals."""

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.inference.sample import Floats, Level, checked, split
from contract.errors import UsageError

if TYPE_CHECKING:
    import polars as pl

SEED = 20250801
N_RESAMPLES = 4999
BATCH_VALUES = 2_000_000
SMALL_GROUP = 10
MAGNITUDES = ((0.147, "negligible"), (0.33, "small"), (0.474, "medium"))
"""Upper bound of |delta| -> word; `large` above (Romano et al., 2006)."""


@dataclass(frozen=True)
class EffectSize:
    """How often a value of the first group is above one of the second.

    Attributes:
        cliffs_delta: P(first > second) - P(first < second), from -1 to 1 (Cliff, 1993).
        vargha_delaney_a: P(first > second) + P(equal) / 2, from 0 to 1 (Vargha and Delaney, 2000); (delta + 1) / 2.
        delta_low: of the interval of delta; None where the groups do not overlap.
        delta_high: of it.
        a_low: of the interval of A.
        a_high: of it.
        magnitude: in a word.
        n_first: values.
        n_second: values.
        first: name of a group, where one was given.
        second: the other.
        method: in words, with seed and resamples.
        warnings: what a reader must know.
    """

    cliffs_delta: float
    vargha_delaney_a: float
    delta_low: float | None
    delta_high: float | None
    a_low: float | None
    a_high: float | None
    magnitude: str
    n_first: int
    n_second: int
    first: Level
    second: Level
    method: str
    warnings: tuple[str, ...]


def superiority(first: NDArray[np.float64], second: NDArray[np.float64], axis: int = -1) -> NDArray[np.float64]:
    """Vargha and Delaney's A along an axis, by ranks: (R1 / m - (m + 1) / 2) / n.

    Args:
        first: (..., m).
        second: (..., n), same leading shape.
        axis: of the values.
    """
    from scipy.stats import rankdata

    first, second = np.moveaxis(first, axis, -1), np.moveaxis(second, axis, -1)
    m, n = first.shape[-1], second.shape[-1]
    leading = np.broadcast_shapes(first.shape[:-1], second.shape[:-1])
    both = np.concatenate([np.broadcast_to(first, (*leading, m)), np.broadcast_to(second, (*leading, n))], axis=-1)
    return np.asarray((rankdata(both, axis=-1)[..., :m].mean(axis=-1) - (m + 1) / 2) / n)


def effect_size(
    first: ArrayLike,
    second: ArrayLike,
    *,
    names: tuple[Level, Level] = ("first", "second"),
    confidence: float = 0.95,
    bootstrap: str = "BCa",
    n_resamples: int = N_RESAMPLES,
    seed: int = SEED,
) -> EffectSize:
    """Compare two groups of independent values.

    Args:
        first: (m,), m at least 2.
        second: (n,), n at least 2.
        names: of the groups.
        confidence: coverage of the interval.
        bootstrap: `BCa` (Efron, 1987) or `percentile`; both resample each group by itself.
        n_resamples: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        UsageError: a missing value, fewer than two, or an option out of range.
    """
    from scipy.stats import bootstrap as scipy_bootstrap

    a, b = checked(first, names[0], 2), checked(second, names[1], 2)
    if bootstrap not in ("BCa", "percentile"):
        raise UsageError(f"Unknown bootstrap {bootstrap!r}. Known: BCa, percentile.")
    if not 0 < confidence < 1 or n_resamples < 100:
        raise UsageError("confidence lies between 0 and 1, and n_resamples is at least 100.")
    share = float(superiority(a, b))
    delta = 2 * share - 1
    warnings = []
    low: float | None = None
    high: float | None = None
    if a.min() > b.max() or a.max() < b.min():
        warnings.append(
            f"{names[0]} and {names[1]} do not overlap: resampling cannot show how sure that is; no interval."
        )
    elif np.ptp(np.concatenate([a, b])) == 0:
        warnings.append("All values are the same: there is nothing to resample, so there is no interval.")
    else:
        interval = scipy_bootstrap(
            (a, b),
            superiority,
            vectorized=True,
            method=bootstrap,
            confidence_level=confidence,
            n_resamples=n_resamples,
            batch=max(1, BATCH_VALUES // (a.size + b.size)),
            rng=np.random.default_rng(seed),
        ).confidence_interval
        if np.isfinite([interval.low, interval.high]).all():
            low, high = float(interval.low), float(interval.high)
        else:
            warnings.append(f"The {bootstrap} interval is not defined here. Ask for the percentile one.")
        if min(a.size, b.size) < SMALL_GROUP:
            warnings.append(f"Fewer than {SMALL_GROUP} values in a group: a bootstrap interval is too narrow.")
    return EffectSize(
        cliffs_delta=delta,
        vargha_delaney_a=share,
        delta_low=None if low is None else 2 * low - 1,
        delta_high=None if high is None else 2 * high - 1,
        a_low=low,
        a_high=high,
        magnitude=magnitude(delta),
        n_first=a.size,
        n_second=b.size,
        first=names[0],
        second=names[1],
        method=f"Cliff's delta and Vargha-Delaney A; {confidence:.0%} {bootstrap} bootstrap, {n_resamples} resamples, "
        f"seed {seed}",
        warnings=tuple(warnings),
    )


def magnitude(delta: float) -> str:
    """`negligible`, `small`, `medium` or `large`: the convention of Romano et al., 2006."""
    return next((word for bound, word in MAGNITUDES if abs(delta) < bound), "large")


def pairwise_effect_sizes(
    frame: "pl.DataFrame",
    response: str,
    factor: str,
    levels: "tuple[Level, ...] | None" = None,
    *,
    bootstrap: str = "BCa",
    n_resamples: int = N_RESAMPLES,
    seed: int = SEED,
) -> tuple[EffectSize, ...]:
    """`effect_size` of every pair of levels, earlier level first.

    Raises:
        UsageError: as `effect_size`, or one level.
    """
    samples: dict[Level, Floats] = split(frame, response, factor, levels, 2)
    return tuple(
        effect_size(samples[a], samples[b], names=(a, b), bootstrap=bootstrap, n_resamples=n_resamples, seed=seed)
        for a, b in combinations(samples, 2)
    )
