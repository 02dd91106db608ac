"""Joules between two times, from a counter or from power readings; energy at a mark is interpolated.

Both kinds become one thing, a cumulative energy E(t) that is linear between samples (counter) or piecewise quadratic
(power, linear between samples): the energy of a window is E(end) - E(start), so windows that meet sum to the whole.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from energy.counter import ENERGIBRIDGE_WRAPS_J, UnwoundCounter, unwrap_counter
from energy.trace import FloatArray, Trace

_WRAPS_INFERRED = {"energibridge": ENERGIBRIDGE_WRAPS_J}
"""Sources whose counters wrap at an unknown modulus. Any other step down without `wrap_j` is a reset, not a wrap."""

GAP_PERIODS = 3.0
"""An interval longer than this many median periods is a gap."""


@dataclass(frozen=True)
class WindowEnergy:
    """The energy of one window of a trace.

    Attributes:
        energy_j: None where the trace does not cover the window, or a step of it is unexplained.
        uncertainty_j: bound of the sampling error; see `CumulativeEnergy.window`. None as `energy_j`.
        n_samples: samples inside the window.
        n_gaps: intervals longer than `GAP_PERIODS` median periods that touch it.
        n_cut_gaps: those of them that hold an end of the window.
        n_wraps: wraps inside it.
        period_s: median sampling period of the trace; None with fewer than two samples.
        uncovered_s: length of the window's part outside the trace.
        n_unexplained: steps inside that no wrap explains.
    """

    energy_j: float | None
    uncertainty_j: float | None
    n_samples: int
    n_gaps: int
    n_cut_gaps: int
    n_wraps: int
    period_s: float | None
    uncovered_s: float
    n_unexplained: int


class CumulativeEnergy:
    """E(t) of a trace.

    Args:
        trace: samples in order of time; equal times are allowed, and the later sample counts.
    """

    def __init__(self, trace: Trace) -> None:
        self._time_s, values = trace.time_s, trace.values
        self._spans_s = np.diff(self._time_s)
        # Most traces have no equal times: nothing to copy.
        if self._spans_s.size and not self._spans_s.min() > 0:
            keep = np.append(self._spans_s > 0, True)
            self._time_s, values = self._time_s[keep], values[keep]
            self._spans_s = np.diff(self._time_s)
        self._power_w: FloatArray | None = None
        self._counter: UnwoundCounter | None = None
        self._wrap_at = np.zeros(0, dtype=np.intp)
        if trace.kind == "counter":
            candidates_j = _WRAPS_INFERRED.get(trace.source, ())
            self._counter = unwrap_counter(self._time_s, values, wrap_j=trace.wrap_j, candidates_j=candidates_j)
            self._energy_j = self._counter.energy_j
            if self._counter.n_wraps:
                down = np.flatnonzero(values[1:] < values[:-1]) + 1
                self._wrap_at = np.setdiff1d(down, np.array(self._counter.unexplained, dtype=np.intp))
        else:
            self._power_w = values
            steps_j = (values[1:] + values[:-1]) / 2 * self._spans_s
            self._energy_j = np.concatenate([np.zeros(min(1, values.size)), np.cumsum(steps_j)])

    @cached_property
    def period_s(self) -> float | None:
        """Median interval, s; None with fewer than two samples."""
        if not self._spans_s.size:
            return None
        # np.median takes longer over its checks than over a trace.
        lower, upper = (self._spans_s.size - 1) // 2, self._spans_s.size // 2
        ordered_s = np.partition(self._spans_s, (lower, upper))
        return float((ordered_s[lower] + ordered_s[upper]) / 2)

    def at(self, time_s: float) -> float:
        """Cumulative joules at a time inside the trace; outside, those of its nearest end."""
        return float(self.at_times(np.array([time_s]))[0])

    def at_times(self, time_s: FloatArray) -> FloatArray:
        """The same for many times, shape (n,) -> (n,)."""
        if self._power_w is None or self._time_s.size < 2:
            return np.interp(time_s, self._time_s, self._energy_j)
        index = np.clip(np.searchsorted(self._time_s, time_s, side="right") - 1, 0, self._time_s.size - 2)
        span_s = self._spans_s[index]
        into_s = np.clip(time_s - self._time_s[index], 0.0, span_s)
        start_w, end_w = self._power_w[index], self._power_w[index + 1]
        # Power is linear between samples, so energy is quadratic.
        energy_j: FloatArray = self._energy_j[index] + into_s * (start_w + (end_w - start_w) * into_s / span_s / 2)
        return energy_j

    def window(self, start_s: float, end_s: float) -> WindowEnergy:
        """Energy between two times.

        The bound says how far the true energy may lie from the figure. Counter: the joules between two samples are
        exact, only the split of an interval at a mark is not: all of it may have flowed before or after the mark, so
        a cut at fraction x errs by at most max(x, 1 - x) of that interval's joules. Power: within an interval it may
        have been anywhere in the range of the four readings around it (its own two and one on either side), so the
        part of an interval that lies in the window errs by at most its length times the distance from its mean to the
        farther end of that range. What the trace leaves uncovered, a period at most, counts as 0 J, and may have been
        at the mean (counter) or the highest (power) of what was seen. The sensor's own error, and a peak that no
        reading saw, are not in it.

        Args:
            start_s: on the trace's clock.
            end_s: not before `start_s`.
        """
        period_s = self.period_s
        if self._time_s.size < 2 or period_s is None:
            return WindowEnergy(None, None, int(self._time_s.size), 0, 0, 0, None, end_s - start_s, 0)
        first_s, last_s = float(self._time_s[0]), float(self._time_s[-1])
        # Of a window that lies wholly outside, nothing is covered, however far away it is.
        uncovered_s = min(max(first_s - start_s, 0.0) + max(end_s - last_s, 0.0), end_s - start_s)
        inside = (self._time_s >= start_s) & (self._time_s <= end_s)
        touches = (self._time_s[1:] > start_s) & (self._time_s[:-1] < end_s)
        gaps = np.flatnonzero(touches & (self._spans_s > GAP_PERIODS * period_s))
        cut_gaps = (self._time_s[gaps] < start_s) | (self._time_s[gaps + 1] > end_s)
        n_wraps = int(touches[self._wrap_at - 1].sum()) if self._wrap_at.size else 0
        unexplained = self._counter.unexplained if self._counter else ()
        n_unexplained = sum(bool(touches[index - 1]) for index in unexplained)
        is_sound = uncovered_s <= period_s and not n_unexplained and bool(touches.any())
        energy_j = float(np.diff(self.at_times(np.array([start_s, end_s])))[0]) if is_sound else None
        uncertainty_j = self._uncertainty_j(start_s, end_s, touches, uncovered_s) if is_sound else None
        return WindowEnergy(
            energy_j=energy_j,
            uncertainty_j=uncertainty_j,
            n_samples=int(np.count_nonzero(inside)),
            n_gaps=int(gaps.size),
            n_cut_gaps=int(np.count_nonzero(cut_gaps)),
            n_wraps=n_wraps,
            period_s=period_s,
            uncovered_s=uncovered_s,
            n_unexplained=n_unexplained,
        )

    def _uncertainty_j(
        self, start_s: float, end_s: float, touches: np.ndarray[tuple[int], np.dtype[np.bool_]], uncovered_s: float
    ) -> float:
        indices = np.flatnonzero(touches)
        if self._power_w is None:
            cut_j = 0.0
            for mark_s in (start_s, end_s):
                index = int(np.searchsorted(self._time_s, mark_s, side="right")) - 1
                index = min(max(index, 0), self._spans_s.size - 1)
                x = float((mark_s - self._time_s[index]) / self._spans_s[index])
                if 0 < x < 1:
                    cut_j += max(x, 1 - x) * float(self._energy_j[index + 1] - self._energy_j[index])
            mean_w = float(self._energy_j[indices[-1] + 1] - self._energy_j[indices[0]]) / float(
                self._spans_s[indices].sum()
            )
            return cut_j + uncovered_s * mean_w
        # Range of the four readings around each interval, its own two and one on either side.
        padded_w = np.concatenate([self._power_w[:1], self._power_w, self._power_w[-1:]])
        around_w = [padded_w[indices + shift] for shift in range(4)]
        highest_w, lowest_w = np.maximum.reduce(around_w), np.minimum.reduce(around_w)
        from_s = np.maximum(self._time_s[indices], start_s)
        to_s = np.minimum(self._time_s[indices + 1], end_s)
        # Power is linear there, so the mean over a part of the interval is the power in the middle of that part.
        means_w = np.interp((from_s + to_s) / 2, self._time_s, self._power_w)
        spread_w = np.maximum(highest_w - means_w, means_w - lowest_w)
        overlaps_s = to_s - from_s
        return float((spread_w * overlaps_s).sum()) + uncovered_s * float(highest_w.max())
