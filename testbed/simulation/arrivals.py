"""When requests arrive: all times drawn before the clock starts, from a seed, so that a run can be had again."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from contract.errors import InvalidOptionError

Floats = npt.NDArray[np.float64]

_SPARE = 1.2
_CHUNK = 64
_MOST = 20_000_000
"""Arrivals drawn at most; this many take 160 MB."""


@dataclass(frozen=True)
class ArrivalSpec:
    """An open loop: requests come when they come, however busy the server is.

    Attributes:
        kind: `poisson`; `gamma`: gaps with a coefficient of variation of `cv`, so above 1 in bursts and below 1
            regular; `trace`: recorded times.
        rate_per_s: mean arrivals per second. With a trace: None keeps its times, a rate stretches them to it.
        cv: standard deviation of the gaps over their mean, for gamma. 1 is Poisson.
        trace_s: times of a recorded trace, rising, seconds from its start.

    Raises:
        InvalidOptionError: a value is missing, not meant for the kind, or out of range.
    """

    kind: Literal["poisson", "gamma", "trace"] = "poisson"
    rate_per_s: float | None = None
    cv: float | None = None
    trace_s: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.kind not in ("poisson", "gamma", "trace"):
            raise InvalidOptionError(f"arrivals: no kind {self.kind!r}; there are poisson, gamma and trace.")
        if self.rate_per_s is not None and not (math.isfinite(self.rate_per_s) and self.rate_per_s > 0):
            raise InvalidOptionError(f"arrivals: {self.rate_per_s} requests per second; give a number above 0.")
        if self.kind != "trace" and self.rate_per_s is None:
            raise InvalidOptionError(f"arrivals: {self.kind} needs rate_per_s, requests per second.")
        if (self.kind == "gamma") != (self.cv is not None):
            raise InvalidOptionError("arrivals: gamma, and only gamma, takes cv (1 is Poisson, above 1 bursts).")
        # Above 30 a run of an hour is one burst or none; below 0.01 the gaps are all the same.
        if self.cv is not None and not 0.01 <= self.cv <= 30:
            raise InvalidOptionError(f"arrivals: cv {self.cv}; give 0.01 to 30.")
        if (self.kind == "trace") != (self.trace_s is not None):
            raise InvalidOptionError("arrivals: a trace, and only a trace, takes trace_s, the recorded times.")
        if self.trace_s is not None:
            object.__setattr__(self, "trace_s", tuple(float(each) for each in self.trace_s))
            self._check_trace(np.array(self.trace_s))

    def _check_trace(self, times_s: Floats) -> None:
        if times_s.size < 2 or not np.all(np.isfinite(times_s)) or times_s[0] < 0 or times_s[-1] <= 0:
            raise InvalidOptionError("arrivals: a trace needs two times at least, none of them below 0 or infinite.")
        if np.any(falls := np.diff(times_s) < 0):
            where = int(np.argmax(falls)) + 1
            raise InvalidOptionError(
                f"arrivals: time {where} of the trace is before the one before it; sort the trace."
            )

    @property
    def mean_rate_per_s(self) -> float:
        """Arrivals per second in the long run; of a trace as it was recorded, its own."""
        if self.rate_per_s is not None:
            return self.rate_per_s
        times = self.trace_s or ()
        return len(times) / times[-1]


def draw_arrivals(spec: ArrivalSpec, duration_s: float, seed: int) -> Floats:
    """Arrival times, seconds from the start.

    The stream of a seed does not depend on the duration: a longer run has the same arrivals, and then more. Poisson
    gaps are `numpy.random.default_rng(seed).exponential(1 / rate)`, summed. A trace is the same for every seed.

    Args:
        spec: how they come.
        duration_s: no arrival at or after this.
        seed: not negative.

    Returns:
        (n,), rising; may be empty.

    Raises:
        InvalidOptionError: the duration is not a number above 0, or the seed is negative.
    """
    if not (math.isfinite(duration_s) and duration_s > 0):
        raise InvalidOptionError(f"arrivals: a duration of {duration_s} s; give a number above 0.")
    if seed < 0:
        raise InvalidOptionError(f"arrivals: seed {seed}; give 0 or above.")
    if spec.trace_s is None and spec.mean_rate_per_s * duration_s > _MOST:
        raise InvalidOptionError(
            f"arrivals: {spec.mean_rate_per_s:g} requests per second for {duration_s:g} s are more than {_MOST:,}; "
            "give a lower rate or a shorter duration."
        )
    if spec.trace_s is not None:
        times = np.array(spec.trace_s)
        if spec.rate_per_s is not None:
            times *= (times.size / times[-1]) / spec.rate_per_s
    else:
        times = _renewals(spec, duration_s, np.random.default_rng(seed))
    return times[: int(np.searchsorted(times, duration_s))]


def _renewals(spec: ArrivalSpec, duration_s: float, source: np.random.Generator) -> Floats:
    """Sums of independent gaps, to past the duration."""
    gap_s = 1 / spec.mean_rate_per_s
    shape = None if spec.cv is None else 1 / spec.cv**2
    size = int(duration_s / gap_s * _SPARE) + _CHUNK
    gaps = np.empty(0)
    while True:
        more = source.exponential(gap_s, size) if shape is None else source.gamma(shape, gap_s / shape, size)
        gaps = np.concatenate([gaps, more])
        times = np.cumsum(gaps)  # over all gaps at once: a sum by parts would round differently
        if times[-1] >= duration_s:
            return times
