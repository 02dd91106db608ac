"""A wall clock that was set during a trial: EnergiBridge stamps its samples with it, and nothing else here is."""

from dataclasses import dataclass

import numpy as np

from contract.trial_result import SuspectReason
from energy.trace import FloatArray

_UNNOTICED_S = 0.05
"""Smaller than this, a step is in the noise of two clocks that are read one after the other on a busy machine."""

_STAMP_S = 0.005
"""Resolution of the stamps, and of where a step was measured."""

CLOCK_STEP = "clock_step"
"""Reason: the wall clock was set during the trial, and nothing tells which samples are before that."""


@dataclass(frozen=True)
class Mapped:
    """Wall times on the monotonic clock.

    Attributes:
        time_s: shape (n,), monotonic seconds; None where they cannot be known.
        note: what was put right, in words; empty for nothing.
        reason: why the times cannot be known.
    """

    time_s: FloatArray | None
    note: str = ""
    reason: SuspectReason | None = None


def to_monotonic(time_s: FloatArray, unix_minus_monotonic_s: float, end_unix_minus_monotonic_s: float | None) -> Mapped:
    """Map wall times to the monotonic clock, also over a step of the wall clock.

    The step's size is known: by it the two clocks came apart. It is in the one interval that is longer by it; where no
    interval, or more than one, is so long, nothing tells where it is. A correction of the clock's rate moves both
    clocks alike, and so is no step.

    Args:
        time_s: shape (n,), unix seconds, rising.
        unix_minus_monotonic_s: at the start of the trial.
        end_unix_minus_monotonic_s: at its end; None where it was not taken.
    """
    mapped_s = time_s - unix_minus_monotonic_s
    step_s = 0.0 if end_unix_minus_monotonic_s is None else end_unix_minus_monotonic_s - unix_minus_monotonic_s
    if abs(step_s) < _UNNOTICED_S:
        return Mapped(mapped_s)
    told = f"the machine's clock was set {'forward' if step_s > 0 else 'back'} by {abs(step_s):.3f} s during the trial"
    found = np.flatnonzero(np.diff(mapped_s) >= step_s - _STAMP_S) if step_s > 0 else np.array([], dtype=int)
    if found.size != 1:
        text = (
            f"{told[0].upper()}{told[1:]}, and the samples do not tell where, so they cannot be set against the "
            "phases. Let NTP slew, not step, and run the trial again."
        )
        return Mapped(None, reason=SuspectReason(code=CLOCK_STEP, message=text))
    corrected_s = mapped_s.copy()
    corrected_s[found[0] + 1 :] -= step_s
    return Mapped(corrected_s, note=f"{told}; the samples after it were moved back by as much")
