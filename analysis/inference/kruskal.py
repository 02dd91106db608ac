"""Do groups differ, by ranks? Kruskal-Wallis with its effect size."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from analysis.inference.independence import imbalance_words
from analysis.inference.sample import Level, not_constant, split

if TYPE_CHECKING:
    import polars as pl

SMALL_GROUP = 5


@dataclass(frozen=True)
class KruskalWallis:
    """The omnibus test.

    Attributes:
        statistic: H, corrected for ties.
        df: groups less one.
        p_value: by the chi-squared approximation.
        epsilon_squared: H / (n - 1), from 0 to 1.
        eta_squared: (H - k + 1) / (n - k); below 0 where the groups are closer than chance; None
            where every group has one value.
        n: values.
        n_by_level: group -> values.
        method: in words.
        warnings: what a reader must know.
    """

    statistic: float
    df: int
    p_value: float
    epsilon_squared: float
    eta_squared: float | None
    n: int
    n_by_level: dict[Level, int]
    method: str
    warnings: tuple[str, ...]


def kruskal_wallis(
    frame: "pl.DataFrame", response: str, factor: str, levels: Sequence[Level] | None = None
) -> KruskalWallis:
    """Kruskal and Wallis, 1952; effect sizes after Tomczak and Tomczak, 2014.

    H in their epsilon squared is divided by (n^2 - 1) / (n + 1), which is n - 1. The rows must be independent: give
    treatment means where repetitions of one treatment are not.

    Args:
        frame: one row per independent observation.
        response: column of numbers.
        factor: column of groups.
        levels: groups to compare; all by default.

    Raises:
        UsageError: one group, a missing value, or values all the same.
    """
    from scipy.stats import kruskal

    samples = split(frame, response, factor, levels)
    not_constant(samples, response)
    found = kruskal(*samples.values())
    k, n = len(samples), sum(sample.size for sample in samples.values())
    counts = {level: sample.size for level, sample in samples.items()}
    warnings = list(imbalance_words(counts))
    small = [level for level, count in counts.items() if count < SMALL_GROUP]
    if small:
        warnings.append(f"Fewer than {SMALL_GROUP} values at {', '.join(small)}: the chi-squared p is rough.")
    h = float(found.statistic)
    return KruskalWallis(
        statistic=h,
        df=k - 1,
        p_value=float(found.pvalue),
        epsilon_squared=h / (n - 1),
        eta_squared=(h - k + 1) / (n - k) if n > k else None,
        n=n,
        n_by_level=counts,
        method=f"Kruskal-Wallis of {response} by {factor}, corrected for ties; epsilon squared H / (n - 1)",
        warnings=tuple(warnings),
    )
