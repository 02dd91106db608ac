"""The grid of `control.plan_model`: what a case's states and batches cost and lead to, laid out once for all prices.

Axes: C clocks, N queue lengths from 1, W waits of the head, M queue lengths that one batch serves whole.
"""

import math
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy.stats import poisson

from control.serving_case import ServingCase
from testbed.policies.actions import ActionSet
from testbed.policies.look_ahead import arrival_matrix, poisson_chances
from testbed.simulation.service_table import ServiceTable

Floats = npt.NDArray[np.float64]

IN_TIME_S = 1e-9
"""Rounding that does not make a request late."""

STEPS_PER_SLO = 200
_MOST_PARTS = 6
_STEP = 0.03
_MOST_STEPS = 1500


class PlanGrid:
    """States, costs and kernels of one case.

    Args:
        case: the problem; of its arrivals the mean rate is used, as if they were Poisson.
    """

    def __init__(self, case: ServingCase) -> None:
        self.case = case
        self.rate_per_s = case.arrivals.mean_rate_per_s
        batches = (*part_batches(case.table, case.batch_limit), case.batch_limit)
        self.action_set = ActionSet(tuple(case.table.clock_mhz.tolist()), batches, case.wait_s)
        self._latency_s = case.table.latency_s[:, : case.batch_limit]  # (C, B)
        self._energy_j = case.table.energy_j[:, : case.batch_limit]
        slowest_s = float(self._latency_s.max()) + case.switch_s
        # Longer waits are all late: the grid may end where that is so for the head and most of the others.
        longest_s = max(1.6 * case.slo_s, case.slo_s + 0.5 * slowest_s, slowest_s + 1.0)
        self.step_s = max(case.slo_s / STEPS_PER_SLO, longest_s / _MOST_STEPS)
        self._wait_steps = 0
        self._wait_s = 0.0
        if case.wait_s is not None:
            # Waits shorter than a step are taken several at a time; a longer one is a whole number of steps.
            self._wait_s = case.wait_s * max(1, math.ceil(self.step_s / case.wait_s - 1e-9))
            self._wait_steps = max(1, round(self._wait_s / self.step_s))
            self.step_s = self._wait_s / self._wait_steps
        self._waits_s = np.arange(math.ceil(longest_s / self.step_s) + 1) * self.step_s  # (W,)
        expected = self.rate_per_s * longest_s
        self._n_rows = min(case.queue_limit, math.ceil(expected + 6 * math.sqrt(expected)) + 6)
        self._n_full = min(self._n_rows, case.batch_limit)
        # Waiting on with a late head is not considered: all its gain is in the requests behind it.
        self._n_waiting = min(math.ceil(case.slo_s / self.step_s), self._waits_s.size)

    @cached_property
    def _durations_s(self) -> Floats:
        """(2, C, M) of serving all queued: clock set already, or not."""
        latency = self._latency_s[:, : self._n_full]
        return np.stack([latency, latency + self.case.switch_s])

    @cached_property
    def _batch_cost_j(self) -> Floats:
        """(2, C, M): energy of the batch, of the change of the clock, and of idling after it."""
        idle_s = np.exp(-self.rate_per_s * self._durations_s) / self.rate_per_s
        switch_j = np.array([0.0, self.case.joules_per_switch])[:, None, None]
        cost: Floats = self._energy_j[None, :, : self._n_full] + switch_j + self.case.idle_power_w * idle_s
        return cost

    @cached_property
    def _cycle_s(self) -> Floats:
        """(2, C, M): mean time to the next boundary."""
        return self._durations_s + np.exp(-self.rate_per_s * self._durations_s) / self.rate_per_s

    @cached_property
    def _misses(self) -> Floats:
        """(2, C, M, W): expected misses of serving all queued."""
        finish_s = self._durations_s[..., None] + self._waits_s
        others = np.arange(self._n_full)[:, None]
        late_part = ((finish_s - self.case.slo_s) / np.maximum(self._waits_s, IN_TIME_S)).clip(0.0, 1.0)
        misses: Floats = (finish_s > self.case.slo_s + IN_TIME_S) + others * late_part
        return misses

    @cached_property
    def _arrivals_by_wait(self) -> Floats:
        """(N, W): chance of m further requests behind a head of this wait; the last row has all above it too."""
        chances = np.zeros((self._n_rows, self._waits_s.size))
        chances[0, 0] = 1.0
        for column, wait_s in enumerate(self._waits_s[1:].tolist(), start=1):
            chances[:, column] = poisson_chances(self.rate_per_s * wait_s, self._n_rows)
        chances[-1] += 1 - chances.sum(axis=0)
        return chances

    @cached_property
    def _after_kernel(self) -> Floats:
        """(W, W): the integral of G over the grid, exact for an H that is linear between grid points."""
        decay, n = math.exp(-self.rate_per_s * self.step_s), self._waits_s.size
        newer = 1 - (1 - decay) / (self.rate_per_s * self.step_s)
        older = (1 - decay) - newer
        kernel = np.zeros((n, n))
        for row in range(1, n):
            kernel[row] = kernel[row - 1] * decay
            kernel[row, row - 1] += older
            kernel[row, row] += newer
        return kernel

    @cached_property
    def _lost_while_serving(self) -> Floats:
        """(2, C, M): expected arrivals beyond the queue's limit, the queue being empty at first."""
        return expected_above(self.rate_per_s * self._durations_s, self.case.queue_limit)

    @cached_property
    def _lost_while_waiting(self) -> Floats:
        """(N,): the same, of one wait from n + 1 queued."""
        return expected_above(self.rate_per_s * self._wait_s, self._rooms)

    @cached_property
    def _rooms(self) -> Floats:
        """(N,): how many more fit behind n + 1 queued."""
        return np.arange(self.case.queue_limit, dtype=float)[::-1][: self._n_rows]

    @property
    def part_energy_j(self) -> Floats:
        """(batch choices below the largest, C), see `Plan`."""
        return np.ascontiguousarray(self._energy_j[:, [each - 1 for each in self.action_set.batches[:-1]]].T)

    @property
    def latency_s(self) -> Floats:
        """(M, C) of the batches that serve all queued, see `Plan`."""
        return np.ascontiguousarray(self._latency_s[:, : self._n_full].T)

    def after_batch(self, values_j: Floats) -> Floats:
        """G on the grid, (C, W)."""
        behind = np.einsum("nw,cnw->cw", self._arrivals_by_wait, values_j)
        empty = np.exp(-self.rate_per_s * self._waits_s)
        after: Floats = behind @ self._after_kernel.T + empty * values_j[:, 0, 0][:, None]
        return after

    def _interpolate(self, after: Floats) -> Floats:
        """G at the durations, (2, C, M)."""
        place = np.minimum(self._durations_s / self.step_s, self._waits_s.size - 1.000001)
        below = place.astype(np.int64)
        part = place - below
        clock = np.arange(after.shape[0])[None, :, None]
        found: Floats = after[clock, below] * (1 - part) + after[clock, below + 1] * part
        return found

    @cached_property
    def _arrive(self) -> Floats:
        return arrival_matrix(self.rate_per_s * self._wait_s, self._n_rows)


def expected_above(mean: float | Floats, limit: int | Floats) -> Floats:
    """E[max(X - limit, 0)] of Poisson X = mean P(X >= limit) - limit P(X > limit), of any shape."""
    return np.asarray(mean * poisson.sf(np.subtract(limit, 1), mean) - limit * poisson.sf(limit, mean))


def part_batches(table: ServiceTable, limit: int) -> tuple[int, ...]:
    """Batch sizes worth cutting a longer queue at: those after which the latency rises at a step, six at most.

    Args:
        table: of the device.
        limit: largest batch; all that is returned is below it.

    Returns:
        Rising; none where the latency has no steps: there the next batch is little longer for the rest of the queue.
    """
    latency = table.latency_s[:, :limit]
    rise = np.median(latency[:, 1:] / latency[:, :-1] - 1, axis=0)  # [b - 1]: of the step from b to b + 1
    steepest = np.argsort(-rise, kind="stable")[:_MOST_PARTS]
    return tuple(sorted(int(each) + 1 for each in steepest if rise[each] > _STEP))
