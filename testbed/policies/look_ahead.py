"""Serve now, at which clock, or wait: weighed with the true waits of all that are queued."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_MOST_STEPS = 32
_MOST_NEW = 24


class LookAhead:
    """Optimal stopping over the next waits, with a planner's values for what follows a batch.

    A batch that serves the whole queue leaves what arrived meanwhile: Poisson, so all that the future depends on is how
    long the batch takes. That value comes from the planner, and with it the choice between serving now and waiting j
    times is a small backward induction over (j, requests that arrive meanwhile). The misses among those queued are
    counted from their true waits; those that arrive meanwhile count as evenly spread over the time that was waited. A
    queue that has grown beyond the largest batch is worth what the planner's grid says.

    Args:
        serve_value_j: (2, M, C); see `Plan`.
        latency_s: (M, C); see `Plan`.
        longer_value_j: (C, N - M, W); see `Plan`.
        step_s: of the grid.
        slo_s: objective.
        switch_s: of a change of the clock.
        wait_s: of a wait; None: no waiting.
        rate_per_s: of the arrivals.
        price_j: of a miss.
        wait_cost_w: of a second of waiting: idle power less the gain.
    """

    def __init__(
        self,
        *,
        serve_value_j: Floats,
        latency_s: Floats,
        longer_value_j: npt.NDArray[np.float32],
        step_s: float,
        slo_s: float,
        switch_s: float,
        wait_s: float | None,
        rate_per_s: float,
        price_j: float,
        wait_cost_w: float,
    ) -> None:
        self._slo_s, self._price_j = slo_s, float(price_j)
        self._longer, self._grid_s, self._most = longer_value_j, step_s, latency_s.shape[0]
        n_new, n_steps = 1, 0
        self._step_s: float | None = None
        if wait_s is not None:
            # Many short waits are taken several at a time: only the first is acted on, and then all is weighed again.
            self._step_s = wait_s * math.ceil(slo_s / wait_s / _MOST_STEPS)
            self._wait_cost_j = wait_cost_w * self._step_s
            n_steps = math.ceil(slo_s / self._step_s)
            # By number of steps ahead: how many arrivals are worth counting.
            expected = [rate_per_s * self._step_s * step for step in range(n_steps + 1)]
            self._n_new = [min(_MOST_NEW, math.ceil(each + 3 * math.sqrt(each)) + 1) for each in expected]
            n_new = self._n_new[-1]
            self._arrive = [arrival_matrix(rate_per_s * self._step_s, each).T.copy() for each in self._n_new]
        waited = (np.arange(n_steps + 1) * (self._step_s or 0.0))[:, None, None]
        self._waited_s = waited
        rows = worth_it(serve_value_j[1], latency_s)
        self._by_clock = []
        for clock in range(latency_s.shape[1]):
            own = np.union1d(rows, clock)
            stays = own == clock
            value = np.where(stays, serve_value_j[0][:, own], serve_value_j[1][:, own])
            finish = latency_s[:, own] + np.where(stays, 0.0, switch_s)
            # Beyond the largest batch: of no account where the grid has longer queues, see `clock`.
            padding = ((0, n_new), (0, 0))
            late_from = np.pad(finish, padding, mode="edge") - slo_s - _IN_TIME_S
            # Of those that arrive while it waits, the part that came before the last moment to be in time.
            late_part = ((late_from + waited) / np.maximum(waited, _IN_TIME_S)).clip(0.0, 1.0)
            priced = (price_j * late_part).astype(np.float32)  # (steps + 1, M + new, clocks)
            self._by_clock.append((own.tolist(), np.pad(value, padding, mode="edge"), late_from, priced))

    def clock(self, waits_s: Sequence[float] | Floats, clock_index: int) -> int | None:
        """The clock to serve all at, now; None: wait. Arguments as of `weigh`."""
        return self.weigh(waits_s, clock_index)[0]

    def weigh(self, waits_s: Sequence[float] | Floats, clock_index: int) -> tuple[int | None, float]:
        """The clock to serve all at, now, or None: wait; and the relative value of it, J.

        Args:
            waits_s: (n,), head first; n at least 1 and at most M.
            clock_index: of the clock that is set.
        """
        n = len(waits_s)
        rows, value, late_from, priced = self._by_clock[clock_index]
        since = np.negative(waits_s)  # arrivals, rising, now being 0
        if self._step_s is None or waits_s[0] >= self._slo_s:
            now = value[n - 1] + self._price_j * since.searchsorted(late_from[n - 1])
            return int(rows[now.argmin()]), float(now.min())
        n_steps = math.ceil((self._slo_s - waits_s[0]) / self._step_s)
        n_new, arrive = self._n_new[n_steps], self._arrive[n_steps]
        ahead = slice(n - 1, n - 1 + n_new)
        cost = self._price_j * since.searchsorted(late_from[ahead] + self._waited_s[: n_steps + 1])
        cost += priced[: n_steps + 1, ahead] * np.arange(n_new)[:, None]
        cost += value[ahead]
        now = cost[0, 0]
        best = cost.min(axis=2)
        if n + n_new - 1 > self._most and self._longer.shape[1]:
            at_s = waits_s[0] + self._waited_s[: n_steps + 1, 0, 0]
            columns = np.minimum((at_s / self._grid_s).astype(np.int64), self._longer.shape[2] - 1)
            # Longer than the grid counts as its longest.
            queued = np.minimum(np.arange(n_new - (self._most - n) - 1), self._longer.shape[1] - 1)
            best[:, self._most - n + 1 :] = self._longer[clock_index][queued[None, :], columns[:, None]]
        after = best[n_steps]
        for step in range(n_steps - 1, 0, -1):
            after = np.minimum(best[step], after @ arrive + self._wait_cost_j)
        waiting = float(after @ arrive[:, 0]) + self._wait_cost_j
        serve = int(now.argmin())
        return (None, waiting) if waiting < now[serve] - _TIE_J else (int(rows[serve]), float(now[serve]))


def arrival_matrix(mean: float, n: int) -> Floats:
    """Poisson arrivals on top of what is there: (n, n), from row to column; more than n - 1 count as n - 1."""
    chances = poisson_chances(mean, n)
    matrix: Floats = np.zeros((n, n))
    for row in range(n):
        matrix[row, row:] = chances[: n - row]
        matrix[row, -1] += 1 - matrix[row].sum()
    return matrix


def poisson_chances(mean: float, n: int) -> Floats:
    """Chances of 0, 1, ..., n - 1 arrivals where `mean` are expected; (n,)."""
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n)))])
    chances: Floats = np.exp(np.arange(n) * math.log(mean) - mean - log_factorial)
    return chances


def worth_it(value_j: Floats, latency_s: Floats) -> npt.NDArray[np.int64]:
    """Clocks that for some batch no other clock beats in both value and latency."""
    n_clocks = latency_s.shape[1]
    kept = np.zeros(n_clocks, dtype=bool)
    for value, latency in zip(value_j, latency_s, strict=True):
        no_worse = (value[None, :] <= value[:, None]) & (latency[None, :] <= latency[:, None])
        better = no_worse & ((value[None, :] < value[:, None]) | (latency[None, :] < latency[:, None]))
        kept |= ~better.any(axis=1)
    return np.flatnonzero(kept)


_IN_TIME_S = 1e-9
_TIE_J = 1e-9
