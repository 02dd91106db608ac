"""Whether an objective can be met at all, told before anything is learned or drawn."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from control.constant import constants
from control.serving_case import ServingCase
from testbed.policies.base import Decision
from testbed.simulation.arrivals import draw_arrivals

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Feasibility:
    """What can be met, from above and from below.

    Attributes:
        wanted_share: the objective, 0 to 1.
        best_share: no policy meets a larger share of these arrivals: an upper bound, often not reached.
        reached_share: met by the best constant setting in simulation, see `control.constant`.
        reached_by: that setting.
        floor_latency_s: the fastest batch of the table.
        is_possible: `best_share` is not below the objective. Whether a policy gets there only trying tells.
        message: one or two sentences for a person.
    """

    wanted_share: float
    best_share: float
    reached_share: float
    reached_by: Decision
    floor_latency_s: float
    is_possible: bool
    message: str


def feasibility(case: ServingCase, wanted_share: float = 0.98, seed: int = 0) -> Feasibility:
    """Bound the share of requests that can be finished within the SLO.

    Args:
        case: the problem.
        wanted_share: the objective, 0 to 1.
        seed: of the arrivals that it is told for.
    """
    arrivals_s = draw_arrivals(case.arrivals, case.duration_s, seed)
    best = min(_bound_by_windows(case, arrivals_s), _bound_by_capacity(case, arrivals_s.size))
    constant = constants(case, wanted_share, [seed])[0]
    setting, share = constant.decision, constant.slo_share
    is_possible = best >= wanted_share
    floor = f"the fastest batch of {case.table.source} takes {case.floor_latency_s:.3g} s"
    reached = (
        f"{setting.clock_mhz:g} MHz with batches of at most {setting.max_batch}, the best constant, meets {share:.1%}"
    )
    if not is_possible:
        message = (
            f"An SLO of {case.slo_s:g} s cannot be met for {wanted_share:.4g} of the requests: at best {best:.1%} can "
            f"be met (upper bound for any policy; {floor}); {reached}. Give a longer SLO, or a lower rate."
        )
    elif share >= wanted_share:
        message = f"An SLO of {case.slo_s:g} s can be met: {reached}; {floor}."
    else:
        message = (
            f"Whether an SLO of {case.slo_s:g} s can be met for {wanted_share:.4g} of the requests is open: {reached}, "
            f"and no policy more than {best:.1%}; {floor}."
        )
    return Feasibility(wanted_share, best, share, setting, case.floor_latency_s, is_possible, message)


def _bound_by_windows(case: ServingCase, arrivals_s: Floats) -> float:
    """Batches start at least the floor latency apart, and a request is met only where its batch starts soon enough.

    A request is met only if its batch starts within SLO - floor of its arrival. So those met by one batch arrived
    within a window of that length, after the start of the batch before it plus floor minus that length, and that
    batch did not start before the last of its own requests. The best choice of such windows is found from the last
    arrival back; that the starts fit each other otherwise is left out, so it is a bound.
    """
    floor_s, n = case.floor_latency_s, arrivals_s.size
    window_s = case.slo_s - floor_s
    if window_s < 0 or n == 0:
        return 0.0 if n else 1.0
    times, limit = arrivals_s.tolist(), case.batch_limit
    following = np.searchsorted(arrivals_s, arrivals_s + (floor_s - window_s) - _ROUNDING_S).tolist()
    ends = np.searchsorted(arrivals_s, arrivals_s + window_s + _ROUNDING_S, side="right").tolist()
    best = [0] * (n + 1)
    for first in reversed(range(n)):
        found = best[first + 1]
        for last in range(first, min(ends[first], first + limit)):
            found = max(found, last - first + 1 + best[max(following[last], last + 1)])
        best[first] = found
    return best[0] / len(times)


def _bound_by_capacity(case: ServingCase, n_arrived: int) -> float:
    """Only batches that take no longer than the SLO meet anything, and only so many of them fit into the time."""
    latency_s = case.table.latency_s[:, : case.batch_limit].min(axis=0)
    fits = latency_s <= case.slo_s
    if not fits.any():
        return 0.0
    per_s = float((np.arange(1, case.batch_limit + 1)[fits] / latency_s[fits]).max())
    # The last batch that meets anything ends an SLO after the last arrival, at most.
    return min(1.0, per_s * (case.duration_s + case.slo_s) / n_arrived) if n_arrived else 1.0


_ROUNDING_S = 1e-9
