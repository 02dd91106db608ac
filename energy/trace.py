"""A series of samples of one sensor: the input of everything in this package."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from contract.trial_result import EnergyMethod

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Trace:
    """Samples of one domain by one estimator.

    Attributes:
        domain: as in `EnergyReading.domain`.
        component: as in `EnergyReading.component`.
        kind: `counter`: `values` are cumulative joules, raw, possibly wrapped; `power`: watts.
        method: as in `EnergyReading.method`.
        source: meter that took the samples.
        time_s: shape (n,), seconds, non-decreasing; which clock is the caller's business, one for all traces of
            a trial.
        values: shape (n,), joules or watts, by `kind`.
        wrap_j: modulus of a counter; None where it does not wrap or is to be inferred.
        is_headline: False for a second estimator of a domain.
        note: assumptions and warnings, in words.
    """

    domain: str
    component: Literal["cpu", "gpu", "dram", "system", "part"]
    kind: Literal["counter", "power"]
    method: EnergyMethod
    source: str
    time_s: FloatArray = field(repr=False)
    values: FloatArray = field(repr=False)
    wrap_j: float | None = None
    is_headline: bool = True
    note: str = ""

    def __post_init__(self) -> None:
        if self.time_s.shape != self.values.shape or self.time_s.ndim != 1:
            raise ValueError(f"time_s {self.time_s.shape} and values {self.values.shape} must be equal vectors")
