"""Rules that mark a result suspect: each one looks at one thing, and says in words what it found.

The rules on energy and tokens are here, those on the state of the devices in `energy.device_rules`.
docs/validity.md lists all of them by code.
"""

import itertools

from contract.trial_result import EnergyMethod, EnergyReading, Phase, SuspectReason
from energy.device_rules import DEVICE_RULES
from energy.evidence import Evidence, Rule
from energy.integrate import GAP_PERIODS

DISAGREEMENT = 0.05
"""Two estimators of a domain that differ by more than this share of the headline are not both right."""

_SLACK_S = 0.02
"""EnergiBridge stamps whole milliseconds of the wall clock, which is mapped to the monotonic one: not a short log."""


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
        for trace, window in evidence.windows
        if window.uncovered_s > _SLACK_S
    ]


def counter_is_broken(evidence: Evidence) -> list[SuspectReason]:
    """A counter went down by what no wrap explains, or up by what no machine draws."""
    return [
        SuspectReason(
            code="counter_step",
            message=f"{trace.domain}: {window.n_unexplained} steps of the counter that no wrap and no power explain.",
        )
        for trace, window in evidence.windows
        if window.n_unexplained
    ]


def samples_have_gaps(evidence: Evidence) -> list[SuspectReason]:
    """Intervals longer than three periods, where they cost something.

    The integral of power readings is a guess across any gap. A counter goes on counting, so only a gap that holds a
    mark matters: its joules are split by guess between the phases.
    """
    reasons = []
    for trace, window in evidence.windows:
        n_gaps = window.n_gaps if trace.kind == "power" else window.n_cut_gaps
        if n_gaps and window.period_s is not None:
            text = f"{trace.domain}: {n_gaps} gaps longer than {GAP_PERIODS:g} periods of {window.period_s:.3f} s."
            reasons.append(SuspectReason(code="gap", message=text))
    return reasons


def estimators_disagree(evidence: Evidence) -> list[SuspectReason]:
    """Two sensors of one domain differ by more than `DISAGREEMENT`, and by more than the marks can explain.

    At each end of the phase either one may be a sampling period off, so they are allowed the joules of both their
    periods on top; in a phase of a minute sampled at 200 ms that is 0.7 %. The sampling bound of power readings is
    not allowed for: it grows with every swing of the load and would excuse any sensor. An estimate from a model is no
    sensor, and takes no part.
    """
    duration_s = evidence.measure.duration_s if evidence.measure else 0.0
    sensors = [
        reading
        for reading in evidence.readings
        if reading.phase is Phase.MEASURE and reading.method is not EnergyMethod.ESTIMATE
    ]
    reasons = []
    for headline, other in itertools.permutations(sensors, 2):
        if not headline.is_headline or other.is_headline or headline.domain != other.domain or duration_s <= 0:
            continue
        if headline.energy_j is None or other.energy_j is None:
            continue  # the headline's own rules tell of it; a second estimator may be absent
        apart_j = abs(headline.energy_j - other.energy_j)
        marks_s = (headline.period_s or 0.0) + (other.period_s or 0.0)
        marks_j = max(abs(headline.energy_j), abs(other.energy_j)) * marks_s / duration_s
        if apart_j > DISAGREEMENT * abs(headline.energy_j) + marks_j:
            text = f"{headline.domain}: {_figure(headline)}, but {_figure(other)}."
            reasons.append(SuspectReason(code="estimators_disagree", message=text))
    return reasons


def _figure(reading: EnergyReading) -> str:
    return f"{reading.energy_j:.1f} J by {reading.source} ({reading.method.value})"


def tokens_are_missing(evidence: Evidence) -> list[SuspectReason]:
    """Energy per token means nothing without tokens."""
    if evidence.n_requests and not evidence.n_output_tokens:
        return [SuspectReason(code="no_tokens", message=f"{evidence.n_requests} requests gave no output token.")]
    if not evidence.n_requests:
        return [SuspectReason(code="no_requests", message="No request was answered.")]
    return []


def prompts_are_missing(evidence: Evidence) -> list[SuspectReason]:
    """Fewer requests were answered than the workload prepared: another, smaller workload was measured."""
    planned = evidence.n_planned
    if planned is None or planned == evidence.n_requests:
        return []
    return [SuspectReason(code="prompts_missing", message=f"{evidence.n_requests} of {planned} prompts were answered.")]


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
    estimators_disagree,
    *DEVICE_RULES,
    tokens_are_missing,
    prompts_are_missing,
    requests_are_missing,
)


def find_reasons(evidence: Evidence) -> list[SuspectReason]:
    """All that the rules find, in their order."""
    return [reason for rule in RULES for reason in rule(evidence)]
