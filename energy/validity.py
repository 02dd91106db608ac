"""Rules that mark a result suspect: each one looks at one thing, and says in words what it found."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from contract.trial_result import EnergyReading, Phase, PhaseWindow, SuspectReason
from energy.attribution import added
from energy.integrate import GAP_PERIODS, CumulativeEnergy, WindowEnergy
from energy.trace import Trace

_STALE_SAMPLES = 25
"""A power reading that stays equal to the milliwatt for this many samples (5 s at 200 ms) is not being refreshed."""

_SLACK_S = 0.02
"""EnergiBridge stamps whole milliseconds of the wall clock, which is mapped to the monotonic one: not a short log."""


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
        n_requests_kept: of which a record was kept; None where nobody counted.
    """

    readings: Sequence[EnergyReading]
    traces: Sequence[Trace]
    phases: Sequence[PhaseWindow]
    origin_s: float
    n_requests: int
    n_output_tokens: int
    n_requests_kept: int | None = None

    def measured(self) -> list[EnergyReading]:
        """Readings in the sum of the measured phase.

        A part (cores, an idle integrated GPU) is in its package already: what is wrong with it stands in its own
        reading, and puts no doubt on the sum.
        """
        return added(self.readings, Phase.MEASURE)

    def windows(self) -> list[tuple[Trace, WindowEnergy]]:
        """Traces in that sum, each with its window of the measured phase; empty without that phase."""
        phase = next((window for window in self.phases if window.phase is Phase.MEASURE), None)
        if phase is None:
            return []
        start_s = self.origin_s + phase.start_s
        in_sum = {(reading.domain, reading.source) for reading in self.measured()}
        return [
            (trace, CumulativeEnergy(trace).window(start_s, start_s + phase.duration_s))
            for trace in self.traces
            if trace.is_headline and (trace.domain, trace.source) in in_sum
        ]


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


def log_is_short(evidence: Evidence) -> list[SuspectReason]:
    """The samples begin after the measured phase, or end before it: what lies outside them is missing from the sum."""
    return [
        SuspectReason(
            code="log_short",
            message=f"{trace.domain}: the samples miss {window.uncovered_s:.3f} s of the measured phase.",
        )
        for trace, window in evidence.windows()
        if window.uncovered_s > _SLACK_S
    ]


def counter_is_broken(evidence: Evidence) -> list[SuspectReason]:
    """A counter went down by what no wrap explains, or up by what no machine draws."""
    return [
        SuspectReason(
            code="counter_step",
            message=f"{trace.domain}: {window.n_unexplained} steps of the counter that no wrap and no power explain.",
        )
        for trace, window in evidence.windows()
        if window.n_unexplained
    ]


def samples_have_gaps(evidence: Evidence) -> list[SuspectReason]:
    """Intervals longer than three periods, where they cost something.

    The integral of power readings is a guess across any gap. A counter goes on counting, so only a gap that holds a
    mark matters: its joules are split by guess between the phases.
    """
    reasons = []
    for trace, window in evidence.windows():
        n_gaps = window.n_gaps if trace.kind == "power" else window.n_cut_gaps
        if n_gaps and window.period_s is not None:
            text = f"{trace.domain}: {n_gaps} gaps longer than {GAP_PERIODS:g} periods of {window.period_s:.3f} s."
            reasons.append(SuspectReason(code="gap", message=text))
    return reasons


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


def requests_are_missing(evidence: Evidence) -> list[SuspectReason]:
    """Fewer requests are on record than were answered: their tokens count, but nobody can check them."""
    kept = evidence.n_requests_kept
    if kept is None or kept == evidence.n_requests:
        return []
    return [SuspectReason(code="requests_missing", message=f"{kept} of {evidence.n_requests} requests are on record.")]


RULES: tuple[Rule, ...] = (
    energy_is_missing,
    energy_is_not_positive,
    log_is_short,
    counter_is_broken,
    samples_have_gaps,
    sensor_is_stale,
    tokens_are_missing,
    requests_are_missing,
)


def find_reasons(evidence: Evidence) -> list[SuspectReason]:
    """All that the rules find, in their order."""
    return [reason for rule in RULES for reason in rule(evidence)]
