"""Serve a part of the queue: a full step of the table now, and the rest with those that arrive meanwhile.

Where a batch of 7 takes a tenth longer than one of 6, cutting a queue of 7 after the sixth can save the deadline of its
head, and costs the rest a batch that would have come anyhow.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from testbed.policies.look_ahead import poisson_chances, worth_it

Floats = npt.NDArray[np.float64]

_IN_TIME_S = 1e-9


class Part(NamedTuple):
    """The best part of a queue to serve.

    Attributes:
        value_j: relative, comparable with a planner's of serving all.
        row: of the clock.
        column: of the batch among the batch choices.
    """

    value_j: float
    row: int
    column: int


class _Own(NamedTuple):
    """What depends on the clock that is set: clocks (R,) to go to; by each of them, the batch that follows."""

    rows: list[int]
    is_set: npt.NDArray[np.bool_]
    next_value_j: Floats
    next_finish_s: Floats


class PartBatch:
    """Weighs each batch choice below the queue's length, two batches deep.

    Of the rest the true waits are known, so its misses are counted, not guessed: after the first batch, all that is
    queued then is served at the clock that is best for it, and what follows is worth what the planner says. That is
    a policy that could be followed, so no value is too low for want of a better belief about waits.

    Args:
        batches: choices below the largest, rising.
        energy_j: (len(batches), C) of such a batch.
        serve_value_j: (2, M, C); see `Plan`.
        latency_s: (M, C); see `Plan`.
        slo_s: objective.
        switch_s: of a change of the clock.
        switch_energy_j: of one.
        rate_per_s: of the arrivals.
        price_j: of a miss.
        gain_w: see `Plan`.
    """

    def __init__(
        self,
        batches: Sequence[int],
        *,
        energy_j: Floats,
        serve_value_j: Floats,
        latency_s: Floats,
        slo_s: float,
        switch_s: float,
        switch_energy_j: float,
        rate_per_s: float,
        price_j: float,
        gain_w: float,
    ) -> None:
        self._batches = [each for each in batches if each < latency_s.shape[0]]
        self._energy_j, self._value_j, self._latency_s = energy_j, serve_value_j, latency_s
        self._slo_s, self._switch_s, self._switch_j = slo_s, switch_s, switch_energy_j
        self._rate_per_s, self._price_j, self._gain_w = rate_per_s, price_j, gain_w
        self._rows = worth_it(serve_value_j[1], latency_s)
        self._own: dict[int, _Own] = {}
        self._arrivals: dict[tuple[int, int], Floats] = {}

    def best(self, since_s: Floats, clock_index: int) -> Part | None:
        """The best part to serve; None: no choice is smaller than the queue.

        Args:
            since_s: (n,), arrivals, rising, now being 0.
            clock_index: of the clock that is set.
        """
        n, found = since_s.size, None
        own = self._of(clock_index)
        for column, batch in enumerate(self._batches):
            if batch >= n:
                break
            chances = self._chances(column, clock_index)
            left, n_new = n - batch, chances.shape[1]
            if left + n_new - 1 > self._latency_s.shape[0]:
                continue  # the rest might be too long for one batch
            duration_s = self._latency_s[batch - 1, own.rows] + np.where(own.is_set, 0.0, self._switch_s)
            value = self._energy_j[column, own.rows] - self._gain_w * duration_s
            value += np.where(own.is_set, 0.0, self._switch_j)
            value += self._price_j * since_s[:batch].searchsorted(duration_s - self._slo_s - _IN_TIME_S)
            ahead = slice(left - 1, left - 1 + n_new)
            late_from = own.next_finish_s[:, ahead] + duration_s[:, None, None] - self._slo_s - _IN_TIME_S
            late = since_s[batch:].searchsorted(late_from).astype(float)
            part = (late_from / duration_s[:, None, None]).clip(0.0, 1.0)
            late += part * np.arange(n_new)[:, None]
            after = (own.next_value_j[:, ahead] + self._price_j * late).min(axis=2)
            value += (chances * after).sum(axis=1)
            row = int(value.argmin())
            if found is None or value[row] < found.value_j:
                found = Part(float(value[row]), own.rows[row], column)
        return found

    def _of(self, clock_index: int) -> _Own:
        own = self._own.get(clock_index)
        if own is None:
            rows = np.union1d(self._rows, clock_index)
            stays = np.eye(rows.size, dtype=bool)[:, None, :]
            value = np.where(stays, self._value_j[0][:, rows], self._value_j[1][:, rows])
            finish = self._latency_s[:, rows] + np.where(stays, 0.0, self._switch_s)
            own = self._own[clock_index] = _Own(rows.tolist(), rows == clock_index, value, finish)
        return own

    def _chances(self, column: int, clock_index: int) -> Floats:
        """(R, K) of 0, 1, ... arrivals while the batch is served; the last has all above it too."""
        known = self._arrivals.get((column, clock_index))
        if known is None:
            own = self._of(clock_index)
            latency_s = self._latency_s[self._batches[column] - 1, own.rows]
            means = self._rate_per_s * (latency_s + np.where(own.is_set, 0.0, self._switch_s))
            most = float(means.max())
            n_new = math.ceil(most + 4 * math.sqrt(most)) + 2
            known = np.stack([poisson_chances(float(mean), n_new) for mean in means])
            known[:, -1] += 1 - known.sum(axis=1)
            self._arrivals[column, clock_index] = known
        return known
