"""What the validity rules look at."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from contract.trial_result import EnergyReading, Phase, PhaseWindow, SuspectReason
from energy.attribution import added, added_traces
from energy.integrate import CumulativeEnergy, WindowEnergy
from energy.trace import FloatArray, Gauge, Quantity, Trace


@dataclass(frozen=True)
class Evidence:
    """All that is known of a trial.

    Attributes:
        readings: of all phases.
        traces: on one clock.
        phases: relative to `origin_s`.
        origin_s: on the traces' clock.
        n_requests: that were answered.
        n_output_tokens: of all answers.
        n_requests_kept: of which a record was kept; None where nobody counted.
        n_planned: that the workload prepared; None where nobody counted.
        gauges: on the traces' clock.
        expected_clock_mhz: domain -> clock that was set before the trial.
    """

    readings: Sequence[EnergyReading]
    traces: Sequence[Trace]
    phases: Sequence[PhaseWindow]
    origin_s: float
    n_requests: int
    n_output_tokens: int
    n_requests_kept: int | None = None
    n_planned: int | None = None
    gauges: Sequence[Gauge] = ()
    expected_clock_mhz: Mapping[str, float] = field(default_factory=dict)

    @property
    def measure(self) -> PhaseWindow | None:
        """The measured phase; None where the trial did not come so far."""
        return next((window for window in self.phases if window.phase is Phase.MEASURE), None)

    def measured(self) -> list[EnergyReading]:
        """Readings in the sum of the measured phase.

        A part (cores, an idle integrated GPU) is in its package already: what is wrong with it stands in its own
        reading, and puts no doubt on the sum.
        """
        return added(self.readings, Phase.MEASURE)

    @cached_property
    def windows(self) -> list[tuple[Trace, WindowEnergy]]:
        """Traces in that sum, each with its window of the measured phase; empty without that phase."""
        phase = self.measure
        if phase is None:
            return []
        start_s = self.origin_s + phase.start_s
        return [
            (trace, CumulativeEnergy(trace).window(start_s, start_s + phase.duration_s))
            for trace in added_traces(self.traces, self.readings, Phase.MEASURE)
        ]

    def during_measure(self, samples: Trace | Gauge) -> tuple[FloatArray, FloatArray]:
        """Times and values of the samples inside the measured phase; empty without that phase."""
        phase = self.measure
        if phase is None:
            return samples.time_s[:0], samples.values[:0]
        start_s = self.origin_s + phase.start_s
        inside = (samples.time_s >= start_s) & (samples.time_s <= start_s + phase.duration_s)
        return samples.time_s[inside], samples.values[inside]

    def gauges_of(self, quantity: Quantity, domain: str | None = None) -> list[Gauge]:
        """Gauges of a quantity that have a sample in the measured phase.

        Args:
            quantity: which.
            domain: whose; None: anyone's.
        """
        return [
            gauge
            for gauge in self.gauges
            if gauge.quantity == quantity
            and domain in (None, gauge.domain)
            and bool(np.size(self.during_measure(gauge)[0]))
        ]


Rule = Callable[[Evidence], list[SuspectReason]]
