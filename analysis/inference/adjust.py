"""p-values adjusted for how many there are."""

import numpy as np
from numpy.typing import ArrayLike

from analysis.inference.sample import Floats, checked
from contract.errors import UsageError

ADJUSTMENTS = {
    "bh": "Benjamini-Hochberg (R's p.adjust: with the running minimum)",
    "bh_dunn_test": "Benjamini-Hochberg as R's dunn.test does it (without the running minimum)",
    "holm": "Holm",
    "bonferroni": "Bonferroni",
    "none": "not adjusted",
}
"""Name -> what it is, in words."""


def adjust(p_values: ArrayLike, method: str = "bh") -> Floats:
    """Adjust a family of p-values.

    Two Benjamini-Hochbergs are in use. Both multiply the i-th smallest of m by m / i. The step-up procedure
    (Benjamini and Hochberg, 1995) rejects everything below the largest p that passes, which as an adjusted p-value is
    the running minimum from the largest down: `bh`, as `p.adjust` and statsmodels. The R package `dunn.test` leaves
    that minimum out: `bh_dunn_test`. There a smaller p may get a larger adjusted one, and one below alpha may be
    missed; never does it find more.

    Args:
        p_values: the family, all tests that were made and not only those shown; any order, two-sided or one-sided.
        method: one of `ADJUSTMENTS`.

    Returns:
        Adjusted p-values, at most 1, in the order given.

    Raises:
        UsageError: a value outside [0, 1], or an unknown method.
    """
    p = checked(p_values, "The p-values")
    if p.min() < 0 or p.max() > 1:
        raise UsageError(f"A p-value lies outside 0 to 1: {p.min():g} to {p.max():g}.")
    if method not in ADJUSTMENTS:
        raise UsageError(f"Unknown adjustment {method!r}. Known: {', '.join(ADJUSTMENTS)}.")
    if method == "none":
        return p
    if method == "bh_dunn_test":
        rank = np.empty(p.size)
        rank[np.argsort(p, kind="stable")] = np.arange(1, p.size + 1)
        return np.minimum(1.0, p * p.size / rank)
    from statsmodels.stats.multitest import multipletests

    name = {"bh": "fdr_bh"}.get(method, method)
    return np.asarray(multipletests(p, method=name)[1], dtype=np.float64)
