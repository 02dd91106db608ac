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


Quantity = Literal[
    "temp_c",
    "clock_mhz",
    "memory_clock_mhz",
    "utilisation",
    "memory_used_bytes",
    "power_limit_w",
    "throttle_reasons",
    "foreign_processes",
    "fan_rpm",
]


@dataclass(frozen=True)
class Gauge:
    """Samples of what is not energy: the conditions under which a domain drew it.

    Attributes:
        domain: as in `Trace.domain`; a thermal zone that belongs to none has its own name.
        quantity: names the unit; `utilisation` is 0 to 1, `throttle_reasons` NVML's bit mask, `foreign_processes` a
            count.
        source: meter that took the samples.
        time_s: shape (n,), seconds, non-decreasing, on the clock of the traces.
        values: shape (n,).
    """

    domain: str
    quantity: Quantity
    source: str
    time_s: FloatArray = field(repr=False)
    values: FloatArray = field(repr=False)

    def __post_init__(self) -> None:
        if self.time_s.shape != self.values.shape or self.time_s.ndim != 1:
            raise ValueError(f"time_s {self.time_s.shape} and values {self.values.shape} must be equal vectors")
