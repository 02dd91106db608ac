"""`testbed.policies.features.features` for many queues at once."""

import numpy as np
import numpy.typing as npt

from testbed.policies.features import MOST_WAIT, N_FEATURES, POSITIONS, FeatureSpec

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

PADDING = max(POSITIONS) + 2
"""Infinite times needed after each row of arrivals: nobody reads into the next."""


class FeatureRows:
    """The vectors of N queues that are not empty, with what depends on their length alone looked up.

    Args:
        spec: what they are relative to.
        clock_mhz: (C,), of the table.
    """

    def __init__(self, spec: FeatureSpec, clock_mhz: Floats) -> None:
        self._slo_s = spec.slo_s
        self._log_limit = float(np.log1p(spec.queue_limit))
        self._clock = (clock_mhz - spec.lowest_mhz) / (spec.highest_mhz - spec.lowest_mhz)
        lengths = np.arange(spec.queue_limit + 1)
        batch = np.clip(lengths, 1, len(spec.fastest_s)) - 1
        latencies = (np.array(each)[batch] for each in (spec.slowest_s, spec.cheapest_s, spec.fastest_s))
        self._by_length = np.stack([np.log1p(lengths) / self._log_limit, lengths / spec.queue_limit, *latencies])
        self._positions = np.array(POSITIONS)[:, None]

    def vectors(
        self, now_s: Floats, arrivals_s: Floats, head: Ints, tail: Ints, clock: Ints, count: Floats, seconds: Floats
    ) -> npt.NDArray[np.float32]:
        """Observe all queues.

        Args:
            now_s: (N,).
            arrivals_s: of all queues; those queued are from `head` to before `tail`, later ones are above `now_s`.
            head: (N,).
            tail: (N,).
            clock: (N,), index of the clock that is set.
            count: (N,), fading arrivals of `ArrivalRate`.
            seconds: (N,), fading seconds of `ArrivalRate`.

        Returns:
            (N, N_FEATURES).
        """
        slo_s = self._slo_s
        rows = np.zeros((N_FEATURES, now_s.size))
        by_length = self._by_length[:, tail - head]
        head_wait_s = now_s - arrivals_s[head]
        rows[0:2] = by_length[0:2]
        rows[2] = self._clock[clock]
        rows[3] = np.minimum(head_wait_s / slo_s, MOST_WAIT)
        rows[4:7] = np.maximum(1 - (head_wait_s + by_length[2:]) / slo_s, -1.0)
        # Beyond the queue are arrivals to come, or none: their waits are below 0.
        rows[7:-2] = np.maximum(now_s - arrivals_s[head + self._positions], 0.0)
        rows[-2] = now_s - arrivals_s[tail - 1]
        rows[7:-1] = np.minimum(rows[7:-1] / slo_s, MOST_WAIT)
        np.divide(count, seconds, out=rows[-1], where=seconds > 0)
        rows[-1] = np.minimum(np.log1p(rows[-1] * slo_s) / self._log_limit, 1.0)
        vectors: npt.NDArray[np.float32] = rows.T.astype(np.float32, order="C")
        return vectors
