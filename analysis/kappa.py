"""Cohen's kappa with a bootstrap interval over clusters. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

N_RESAMPLES = 2000


@dataclass(frozen=True)
class Kappa:
    """Agreement of two raters beyond chance.

    Attributes:
        n: pairs of ratings.
        n_clusters: items behind them.
        n_agreed: pairs that are equal.
        kappa: Cohen's, unweighted; None where it is not defined: nothing rated, or one category only.
        interval: 95 % percentile bootstrap over clusters; None where kappa is, or with fewer than two clusters.
        categories: in the order of `counts`.
        counts: row: the first rater's category, column: the second's.
    """

    n: int
    n_clusters: int
    n_agreed: int
    kappa: float | None
    interval: tuple[float, float] | None
    categories: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]


def cohen_kappa(
    first: Sequence[str],
    second: Sequence[str],
    clusters: Sequence[str],
    *,
    categories: Sequence[str] = (),
    seed: int = 0,
    n_resamples: int = N_RESAMPLES,
) -> Kappa:
    """Cohen's kappa, (observed - expected agreement) / (1 - expected agreement) (Cohen, 1960).

    Ratings of one item are not independent: whole items are drawn for the interval. Draws without a defined kappa
    are left out of it.

    Args:
        first: one rater's categories.
        second: the other's, in the same order.
        clusters: the item of each pair.
        categories: to be listed, also where nobody used them; further ones are added.
        seed: of the bootstrap.
        n_resamples: draws.
    """
    import numpy as np

    names = tuple(dict.fromkeys([*categories, *sorted({*first, *second})]))
    at = {name: index for index, name in enumerate(names)}
    cluster_at: dict[str, int] = {}
    for cluster in clusters:
        cluster_at.setdefault(cluster, len(cluster_at))
    tables = np.zeros((len(cluster_at), len(names), len(names)))
    for one, other, cluster in zip(first, second, clusters, strict=True):
        tables[cluster_at[cluster], at[one], at[other]] += 1
    whole = tables.sum(axis=0)
    kappa = float(_kappas(whole[None])[0]) if len(first) else float("nan")
    interval = None
    if np.isfinite(kappa) and len(cluster_at) > 1:
        draws = np.random.default_rng(seed).multinomial(
            len(cluster_at), np.full(len(cluster_at), 1 / len(cluster_at)), size=n_resamples
        )
        kappas = _kappas(np.einsum("rc,cij->rij", draws, tables))
        kappas = kappas[np.isfinite(kappas)]
        interval = (float(np.quantile(kappas, 0.025)), float(np.quantile(kappas, 0.975))) if len(kappas) else None
    return Kappa(
        n=len(first),
        n_clusters=len(cluster_at),
        n_agreed=int(np.trace(whole)),
        kappa=kappa if np.isfinite(kappa) else None,
        interval=interval,
        categories=names,
        counts=tuple(tuple(int(count) for count in row) for row in whole),
    )


def _kappas(tables: "NDArray[np.float64]") -> "NDArray[np.float64]":
    """Kappa of each table; NaN where both raters used one and the same category only.

    Args:
        tables: counts, (n, k, k).
    """
    import numpy as np

    total = tables.sum(axis=(1, 2))
    with np.errstate(divide="ignore", invalid="ignore"):
        observed = np.trace(tables, axis1=1, axis2=2) / total
        expected = (tables.sum(axis=1) * tables.sum(axis=2)).sum(axis=1) / total**2
        found = (observed - expected) / (1 - expected)
    return np.where(expected < 1, found, np.nan)
