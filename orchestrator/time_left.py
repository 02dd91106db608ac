"""When a campaign will end, from how long its runs took so far, with the spread that follows from their variation."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

ENOUGH = 5
"""Runs that must have ended before anything is said."""

LEVEL = 0.9
"""Share of ends that the spread is to hold."""


@dataclass(frozen=True)
class TimeLeft:
    """How long a campaign will go on, cooldowns and retries included.

    Attributes:
        left_s: expected.
        low_s: lower end of the spread; never below 0.
        high_s: upper end of it.
        n_known: ended runs behind it.
    """

    left_s: float
    low_s: float
    high_s: float
    n_known: int


def time_left(run_s: Sequence[float], n_left: int, *, n_at_once: int = 1, begun_s: float = 0.0) -> TimeLeft | None:
    """Estimate the time that the runs to come will take.

    The runs that are left are taken as draws from what the ended ones were drawn from: plans are shuffled. The spread
    is the prediction interval of a sum of future draws, s * t * sqrt(n_left + n_left^2 / n): the first term is the
    variation of what is to come, the second that the mean is known from n runs only.

    Args:
        run_s: seconds that each ended run took, its cooldowns and all its attempts included.
        n_left: runs without an end.
        n_at_once: testbeds that work.
        begun_s: seconds that the open attempts have had already.

    Returns:
        None: fewer than `ENOUGH` runs have ended, or none is left.
    """
    n = len(run_s)
    if n < ENOUGH or n_left <= 0:
        return None
    mean_s = statistics.fmean(run_s)
    # What is under way is worth at most what it is expected to take.
    total_s = n_left * mean_s - min(begun_s, n_at_once * mean_s)
    # `statistics.stdev` reckons in fractions: a hundred times slower, and felt with 10,000 runs.
    spread_s = math.sqrt(math.fsum([(each - mean_s) ** 2 for each in run_s]) / (n - 1))
    reach_s = _t_quantile((1 + LEVEL) / 2, n - 1) * spread_s * (n_left + n_left**2 / n) ** 0.5
    at_once = max(n_at_once, 1)
    left_s, half_s = max(total_s, 0.0) / at_once, reach_s / at_once
    return TimeLeft(left_s, max(left_s - half_s, 0.0), left_s + half_s, n)


def _t_quantile(p: float, freedom: int) -> float:
    """Student's t by its expansion about the normal (Abramowitz and Stegun 26.7.5); within 1 % from 4 degrees on."""
    z = statistics.NormalDist().inv_cdf(p)
    g1 = (z**3 + z) / 4
    g2 = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    g3 = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + g1 / freedom + g2 / freedom**2 + g3 / freedom**3
