"""Cumulative counters: unwound where they wrapped, refused where no wrap explains a step."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from energy.trace import FloatArray

ENERGIBRIDGE_WRAPS_J = (65536.0, 262144.0)
"""2^32 x energy unit of Intel's package counter, for units of 2^-16 J and 2^-14 J."""

MAX_POWER_W = 2000.0
"""No package draws more: a step that needs more is no wrap."""

JUMP_POWER_W = 10_000.0
"""No machine of ours draws more: a step up that needs more is a fault of the counter, not energy."""

_TICK_S = 1.0
"""Counters tick at their own pace (NVML: 20 to 100 ms, 1 s while idle), so a step may hold this much more time."""


@dataclass(frozen=True)
class UnwoundCounter:
    """A counter without its wraps.

    Attributes:
        energy_j: shape (n,), cumulative joules from 0 at the first sample.
        n_wraps: wraps that were unwound.
        wrap_j: the modulus that was used; None where nothing wrapped.
        unexplained: indices i of samples whose step from i - 1 no wrap explains; their step counts as 0 J, and
            whoever integrates across one must say so.
    """

    energy_j: FloatArray
    n_wraps: int
    wrap_j: float | None
    unexplained: tuple[int, ...]


def unwrap_counter(
    time_s: FloatArray,
    values_j: FloatArray,
    *,
    wrap_j: float | None = None,
    candidates_j: Sequence[float] = ENERGIBRIDGE_WRAPS_J,
    max_power_w: float = MAX_POWER_W,
) -> UnwoundCounter:
    """Unwind a cumulative counter.

    A negative step is a wrap of modulus m if adding m gives a step that `max_power_w` allows in its time. Where the
    modulus is not known, it is the candidate above all readings that explains most of them, the smallest of equals.
    A step up by more than `JUMP_POWER_W` allows in its time and a tick is unexplained as well.
    More than one wrap in one interval cannot be told from the readings: sample faster than m / power.

    Args:
        time_s: shape (n,), seconds, non-decreasing.
        values_j: shape (n,), joules, raw.
        wrap_j: the modulus, if known.
        candidates_j: moduli to try, if not.
        max_power_w: bound on the mean power of a step, W.
    """
    steps_j = np.diff(values_j, prepend=values_j[:1])
    spans_s = np.diff(time_s, prepend=time_s[:1])
    jumps = np.flatnonzero(steps_j > (spans_s + _TICK_S) * JUMP_POWER_W)
    steps_j[jumps] = 0.0
    negative = np.flatnonzero(steps_j < 0)
    if negative.size == 0:
        return UnwoundCounter(np.cumsum(steps_j), 0, None, tuple(int(index) for index in jumps))
    # A step may take a little longer than the stamps say: allow one typical interval more.
    allowed_j = (spans_s + float(np.median(spans_s))) * max_power_w
    moduli = [wrap_j] if wrap_j is not None else [m for m in sorted(candidates_j) if m > float(values_j.max())]

    def explained(modulus: float) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        unwound_j = steps_j[negative] + modulus
        fits: np.ndarray[tuple[int], np.dtype[np.bool_]] = (unwound_j >= 0) & (unwound_j <= allowed_j[negative])
        return fits

    best = max(moduli, key=lambda m: (int(explained(m).sum()), -m), default=None)
    fits = explained(best) if best is not None else np.zeros(negative.shape, dtype=np.bool_)
    steps_j[negative[fits]] += best or 0.0
    steps_j[negative[~fits]] = 0.0
    unexplained = np.sort(np.concatenate([jumps, negative[~fits]]))
    n_wraps = int(fits.sum())
    return UnwoundCounter(
        np.cumsum(steps_j), n_wraps, best if n_wraps else None, tuple(int(index) for index in unexplained)
    )
