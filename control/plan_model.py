"""A serving case as a semi-Markov decision process over (clock, queue length, head wait), and its solution.

At a boundary n requests are queued, the head has waited for w, and clock c is set. The waits of the other n - 1 are
taken for what Poisson arrivals make of them given n and w: evenly spread over (0, w), as if nothing else were known.
Costs are joules, and `price_j` for each request that misses its deadline. Wanted is the least cost per second in the
long run, the gain g, by the optimality equation of the average-cost semi-Markov process (Puterman, *Markov Decision
Processes*, 1994, chapter 11; Bertsekas, *Dynamic Programming and Optimal Control* II, chapter 5):

    h(s) = min over a of [ cost(s, a) - g * duration(s, a) + E h(next state) ],    h fixed to 0 on one state

Serving all that is queued at clock c for d seconds leaves a state that depends on c and d alone, so that its value is
one function G_c(d): with x = d - (first arrival), and idling with chance exp(-r d) until one request comes,

    G_c(d) = exp(-r d) h_c(1, 0) + integral over x of r exp(-r (d - x)) H_c(x) dx
    H_c(x) = sum over m of Poisson(m; r x) h_c(1 + m, x)

Waiting leads to (n + Poisson(r * wait), w + wait): swept from long waits to short ones, a whole episode of waiting is
settled in one sweep, and what remains between sweeps is G, which forgets its start within a few batches. g follows the
drift of G; both settle in tens of sweeps.

A batch smaller than the queue leaves the (b + 1)-th request at the head; its wait is taken for its mean, w (n - b) / n.
That belief is crude, and a planner makes the most of what a belief leaves out, so such batches are left out here except
where the queue is longer than the largest batch. `testbed.policies.part_batch` weighs them with the true waits.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from control.plan_grid import IN_TIME_S, Floats, PlanGrid, expected_above
from testbed.policies.look_ahead import arrival_matrix

_MOST_SWEEPS = 400
_SWEEPS_BEFORE_WAITING = 25
_SWEEPS_PER_PARTIAL = 5
_SWEEPS_PER_PACE = 100


@dataclass(frozen=True, eq=False)
class Solution:
    """What the values of a price came to.

    Attributes:
        price_j: of a miss.
        gain_w: g.
        values_j: h, (C, N, W).
        serve_value_j: (2, M, C), see `Plan`.
        grid_actions: (C, N, W), see `Plan`.
        n_sweeps: until it settled.
        residual_j: how far values still moved apart in the last sweep, over states with the head in time.
    """

    price_j: float
    gain_w: float
    values_j: Floats
    serve_value_j: Floats
    grid_actions: npt.NDArray[np.int16]
    n_sweeps: int
    residual_j: float


class PlanModel(PlanGrid):
    """The process of one case, and its solution for a price.

    Args:
        case: the problem; of its arrivals the mean rate is used, as if they were Poisson.
    """

    def solve(self, price_j: float, start: Solution | None = None, tolerance_j: float = 0.02) -> Solution:
        """Value iteration.

        Args:
            price_j: of a miss.
            start: of another price, to begin from.
            tolerance_j: done when values move apart by less.
        """
        shape = (self._latency_s.shape[0], self._n_rows, self._waits_s.size)
        values = np.zeros(shape) if start is None else start.values_j
        gain_w = self._first_gain_w() if start is None else start.gain_w
        waits_from = _SWEEPS_BEFORE_WAITING if start is None else 0
        priced = price_j * self._misses
        fixed = self._batch_cost_j + price_j * self._lost_while_serving
        longer: tuple[Floats, npt.NDArray[np.int64]] | None = None
        sweep, residual = 0, math.inf
        # The drift of a sweep is about a cycle's error in g; a time no shorter than a cycle keeps g from overshooting.
        idle_s = math.exp(-self.rate_per_s * float(self._latency_s.min())) / self.rate_per_s
        pace_s = (self.case.slo_s if self.case.wait_s is not None else 0.0) + float(self._latency_s.max()) + idle_s
        for sweep in range(1, _MOST_SWEEPS + 1):
            serve = fixed + self._interpolate(self.after_batch(values)) - gain_w * self._cycle_s
            if self._n_rows > self._n_full and (longer is None or sweep % _SWEEPS_PER_PARTIAL == 0):
                longer = self._serve_part(values, price_j, gain_w)
            new = self._best_service(serve, priced, longer)
            if self.case.wait_s is not None and sweep > waits_from:
                self._sweep_waiting(new, price_j, gain_w)
            drift = self._level(new) - self._level(values)
            moved = (new - values)[:, : self._n_full, : self._n_waiting]
            residual = float(moved.max() - moved.min())
            values = new - self._level(new)
            if sweep % _SWEEPS_PER_PACE == 0:
                pace_s *= 2
            gain_w += drift / pace_s
            if sweep > waits_from + 3 and residual < tolerance_j and abs(drift) < tolerance_j:
                break
        serve = fixed + self._interpolate(self.after_batch(values)) - gain_w * self._cycle_s
        return Solution(
            price_j=price_j,
            gain_w=gain_w,
            values_j=values,
            serve_value_j=np.ascontiguousarray(serve.transpose(0, 2, 1)),
            grid_actions=self._greedy(
                serve, priced, self._serve_part(values, price_j, gain_w), values, price_j, gain_w
            ),
            n_sweeps=sweep,
            residual_j=residual,
        )

    def _first_gain_w(self) -> float:
        """As if each batch took what arrives in one SLO."""
        batch = min(max(1, round(self.rate_per_s * self.case.slo_s)), self.case.batch_limit)
        return float(self._energy_j[:, batch - 1].min()) / batch * self.rate_per_s

    def _level(self, values_j: Floats) -> float:
        """G of a usual batch: the value that is held at 0. Every policy passes it, so all values move with it."""
        batch = min(max(1, round(self.rate_per_s * self.case.slo_s)), self.case.batch_limit)
        clock = int(self._energy_j[:, batch - 1].argmin())
        row = min(int(self._latency_s[clock, batch - 1] / self.step_s), self._waits_s.size - 1)
        behind = (self._arrivals_by_wait * values_j[clock]).sum(axis=0)
        idle = math.exp(-self.rate_per_s * float(self._waits_s[row])) * values_j[clock, 0, 0]
        return float(self._after_kernel[row] @ behind + idle)

    def _best_service(
        self, serve: Floats, priced: Floats, longer: tuple[Floats, npt.NDArray[np.int64]] | None
    ) -> Floats:
        """(C, N, W): the best of serving now."""
        whole = serve[..., None] + priced
        best = np.empty((whole.shape[1], self._n_rows, self._waits_s.size))
        np.minimum(whole[0], whole[1].min(axis=0), out=best[:, : self._n_full])
        if longer is not None:
            best[:, self._n_full :] = longer[0]
        return best

    def _sweep_waiting(self, values: Floats, price_j: float, gain_w: float) -> None:
        """Lower `values` in place to those of waiting, from the longest wait down."""
        cost = self._wait_cost_j(price_j, gain_w)
        steps = self._wait_steps
        for begin in range((self._n_waiting - 1) // steps * steps, -1, -steps):
            end = min(begin + steps, self._n_waiting, self._waits_s.size - steps)
            if end <= begin:
                continue
            waited = np.matmul(self._arrive, values[:, :, begin + steps : end + steps]) + cost
            np.minimum(values[:, :, begin:end], waited, out=values[:, :, begin:end])

    def _wait_cost_j(self, price_j: float, gain_w: float) -> Floats:
        """(N, 1) of one wait."""
        return ((self.case.idle_power_w - gain_w) * self._wait_s + price_j * self._lost_while_waiting)[:, None]

    def _serve_part(self, values: Floats, price_j: float, gain_w: float) -> tuple[Floats, npt.NDArray[np.int64]]:
        """The largest batch from a longer queue: its best value and clock, (N - M, W) each."""
        batch, n_rows, waits_s = self._n_full, self._n_rows, self._waits_s
        best = np.full((n_rows - batch, waits_s.size), np.inf)
        clocks = np.zeros(best.shape, dtype=np.int64)
        if not best.size:
            return best, clocks
        queued = np.arange(batch + 1, n_rows + 1)[:, None]
        left = np.arange(n_rows - batch)[:, None]
        for clock in range(values.shape[0]):
            duration_s = float(self._latency_s[clock, batch - 1]) + self.case.switch_s
            arrive = arrival_matrix(self.rate_per_s * duration_s, n_rows)[: n_rows - batch]
            after = arrive @ values[clock]
            place = np.minimum(
                (waits_s * (queued - batch) / queued + duration_s) / self.step_s, waits_s.size - 1.000001
            )
            below = place.astype(np.int64)
            part = place - below
            late_part = ((waits_s + duration_s - self.case.slo_s) / np.maximum(waits_s, IN_TIME_S)).clip(0.0, 1.0)
            head_late = waits_s + duration_s > self.case.slo_s + IN_TIME_S
            misses = head_late + np.minimum((queued - 1) * late_part, batch - 1)
            lost = expected_above(self.rate_per_s * duration_s, self._rooms[: n_rows - batch])[:, None]
            cost = float(self._energy_j[clock, batch - 1]) + self.case.joules_per_switch - gain_w * duration_s
            value = after[left, below] * (1 - part) + after[left, below + 1] * part
            value += cost + price_j * (misses + lost)
            clocks = np.where(value < best, clock, clocks)
            best = np.minimum(best, value)
        return best, clocks

    def _greedy(
        self,
        serve: Floats,
        priced: Floats,
        longer: tuple[Floats, npt.NDArray[np.int64]],
        values: Floats,
        price_j: float,
        gain_w: float,
    ) -> npt.NDArray[np.int16]:
        """The best action of every state."""
        whole = serve[..., None] + priced
        switched, clock_to = whole[1].min(axis=0), whole[1].argmin(axis=0)
        n_clocks = whole.shape[1]
        actions = np.empty((n_clocks, self._n_rows, self._waits_s.size), dtype=np.int16)
        own = np.arange(n_clocks)[:, None, None]
        actions[:, : self._n_full] = np.where(whole[0] <= switched, own, clock_to)
        actions[:, self._n_full :] = longer[1]
        # Of the batch choices, the smallest that serves all.
        batches = self.action_set.batches
        columns = np.minimum(np.searchsorted(batches, np.arange(1, self._n_rows + 1)), len(batches) - 1)
        actions = np.asarray(actions * len(batches) + columns[:, None], dtype=np.int16)
        steps = self._wait_steps
        if self.action_set.wait_index is not None:
            served = self._best_service(serve, priced, longer)
            end = max(0, min(self._n_waiting, self._waits_s.size - steps))
            waited = np.matmul(self._arrive, values[:, :, steps : end + steps]) + self._wait_cost_j(price_j, gain_w)
            waits = waited < served[:, :, :end] - _TIE_J
            actions[:, :, :end][waits] = self.action_set.wait_index
        return actions


_TIE_J = 1e-9
