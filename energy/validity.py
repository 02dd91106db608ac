"""Rules that mark a result suspect: each one looks at one thing, and says in words what it found."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from contract.trial_result import EnergyReading, Phase, PhaseWindow, SuspectReason
from energy.trace import Trace

_STALE_SAMPLES = 25
"""A power reading that stays equal to the milliwatt for this many samples (5 s at 200 ms) is not being refreshed."""


@dataclass(frozen=True)
class Evidence:
    """What the rules look at.

    Attributes:
        readings: of all phases.
        traces: on one clock.
        phases: relative to `origin_s`.
        origin_s: on the traces' clock.
        n_requests: that were answered.
        n_output_tokens: of all answers.
    """

    readings: Sequence[EnergyReading]
    traces: Sequence[Trace]
    phases: Sequence[PhaseWindow]
    origin_s: float
    n_requests: int
    n_output_tokens: int

    def measured(self) -> list[EnergyReading]:
        """Headline readings of the measured phase."""
        return [reading for reading in self.readings if reading.phase is Phase.MEASURE and reading.is_headline]


Rule = Callable[[Evidence], list[SuspectReason]]


def energy_is_missing(evidence: Evidence) -> list[SuspectReason]:
    """The measured phase has no energy at all, or a domain of it has none."""
    measured = evidence.measured()
    if not measured:
        return [SuspectReason(code="no_energy", message="No meter delivered energy for the measured phase.")]
    return [
        SuspectReason(code="no_energy", message=f"{reading.domain}: {reading.note or 'no energy'}.")
        for reading in measured
        if reading.energy_j is None
    ]


def energy_is_not_positive(evidence: Evidence) -> list[SuspectReason]:
    """A machine that works draws power."""
    return [
        SuspectReason(
            code="energy_not_positive", message=f"{reading.domain}: {reading.energy_j} J in the measured phase."
        )
        for reading in evidence.measured()
        if reading.energy_j is not None and reading.energy_j <= 0
    ]


def samples_have_gaps(evidence: Evidence) -> list[SuspectReason]:
    """Intervals longer than three periods: the figure rests on interpolation there."""
    return [
        SuspectReason(
            code="gap",
            message=f"{reading.domain}: {reading.n_gaps} gaps longer than 3 periods of {reading.period_s:.3f} s.",
        )
        for reading in evidence.measured()
        if reading.n_gaps and reading.period_s is not None
    ]


def sensor_is_stale(evidence: Evidence) -> list[SuspectReason]:
    """A power reading that does not move over many samples of the measured phase is repeated, not read."""
    window = next((window for window in evidence.phases if window.phase is Phase.MEASURE), None)
    reasons: list[SuspectReason] = []
    if window is None:
        return reasons
    start_s = evidence.origin_s + window.start_s
    for trace in evidence.traces:
        if trace.kind != "power" or trace.component != "gpu":
            continue
        inside = (trace.time_s >= start_s) & (trace.time_s <= start_s + window.duration_s)
        changes = np.flatnonzero(np.diff(trace.values[inside]) != 0)
        runs = np.diff(np.concatenate([[-1], changes, [int(inside.sum()) - 1]]))
        longest = int(runs.max()) if inside.sum() > 1 else 0
        if longest >= _STALE_SAMPLES:
            reasons.append(
                SuspectReason(
                    code="stale_sensor", message=f"{trace.domain}: the same power in {longest} samples on end."
                )
            )
    return reasons


def tokens_are_missing(evidence: Evidence) -> list[SuspectReason]:
    """Energy per token means nothing without tokens."""
    if evidence.n_requests and not evidence.n_output_tokens:
        return [SuspectReason(code="no_tokens", message=f"{evidence.n_requests} requests gave no output token.")]
    if not evidence.n_requests:
        return [SuspectReason(code="no_requests", message="No request was answered.")]
    return []


RULES: tuple[Rule, ...] = (
    energy_is_missing,
    energy_is_not_positive,
    samples_have_gaps,
    sensor_is_stale,
    tokens_are_missing,
)


def find_reasons(evidence: Evidence) -> list[SuspectReason]:
    """All that the rules find, in their order."""
    return [reason for rule in RULES for reason in rule(evidence)]
