"""From traces and phase marks to joules per domain and phase, and to the headline figure."""

from collections.abc import Sequence
from dataclasses import replace

from contract.trial_result import EnergyMethod, EnergyReading, EnergySummary, Phase, PhaseWindow
from energy.integrate import CumulativeEnergy, WindowEnergy
from energy.request_energy import EnergySplit
from energy.trace import Trace

_ADDED = ("cpu", "gpu", "dram")
_WEAKEST_FIRST = (EnergyMethod.ESTIMATE, EnergyMethod.SAMPLED, EnergyMethod.COUNTER)


def settle_headlines(traces: Sequence[Trace]) -> list[Trace]:
    """One headline per domain, so that no domain is added twice; the others stay, as second estimators.

    Where several meters measured a domain, a counter goes before power readings, those before an estimate, and the
    first meter before the next.

    Args:
        traces: of all meters of a trial.
    """
    first: dict[str, int] = {}
    for index, trace in enumerate(traces):
        best = first.get(trace.domain)
        if trace.is_headline and (best is None or _strength(trace) > _strength(traces[best])):
            first[trace.domain] = index
    return [
        replace(trace, is_headline=False) if trace.is_headline and first[trace.domain] != index else trace
        for index, trace in enumerate(traces)
    ]


def _strength(trace: Trace) -> int:
    return _WEAKEST_FIRST.index(trace.method)


def attribute(traces: Sequence[Trace], phases: Sequence[PhaseWindow], *, origin_s: float) -> list[EnergyReading]:
    """Joules of each trace in each phase.

    Args:
        traces: on one clock.
        phases: windows relative to `origin_s`.
        origin_s: on the traces' clock.
    """
    readings = []
    for trace in traces:
        cumulative = CumulativeEnergy(trace)
        for window in phases:
            start_s = origin_s + window.start_s
            energy = cumulative.window(start_s, start_s + window.duration_s)
            readings.append(
                EnergyReading(
                    domain=trace.domain,
                    component=trace.component,
                    phase=window.phase,
                    energy_j=energy.energy_j,
                    method=trace.method,
                    source=trace.source,
                    period_s=energy.period_s,
                    n_samples=energy.n_samples,
                    n_gaps=energy.n_gaps,
                    n_wraps=energy.n_wraps,
                    uncertainty_j=energy.uncertainty_j,
                    is_headline=trace.is_headline,
                    note=_note(trace, energy),
                )
            )
    return readings


def _note(trace: Trace, energy: WindowEnergy) -> str:
    words = [trace.note] if trace.note else []
    if energy.n_unexplained:
        words.append(f"{energy.n_unexplained} counter steps that no wrap and no power explain")
    if energy.energy_j is None and not energy.n_unexplained:
        words.append(f"the samples leave {energy.uncovered_s:.3f} s of the phase uncovered")
    return "; ".join(words)


def summarise(
    readings: Sequence[EnergyReading], phases: Sequence[PhaseWindow], split: EnergySplit | None = None
) -> EnergySummary | None:
    """The measured phase in a few numbers.

    Headline readings of processors, GPUs and DRAM are added, once each. What holds them (`system`) or is held by them
    (`part`) is never added; a `system` alone is the sum where nothing else was measured. Net is gross less mean
    baseline power x duration.

    Args:
        readings: of all phases.
        phases: of the trial.
        split: the same sum, shared out among the requests; None where nobody did.

    Returns:
        None where the measured phase has no reading. `energy_j` is None where a reading that belongs in the sum is
        missing: a part of a sum is not the sum.
    """
    measured = added(readings, Phase.MEASURE)
    duration_s = next((window.duration_s for window in phases if window.phase is Phase.MEASURE), None)
    if not measured or duration_s is None:
        return None
    energy_j = _sum(measured)
    baseline = added(readings, Phase.BASELINE)
    baseline_s = next((window.duration_s for window in phases if window.phase is Phase.BASELINE), 0.0)
    baseline_j = _sum(baseline)
    baseline_power_w = baseline_j / baseline_s if baseline_j is not None and baseline_s > 0 else None
    is_net = energy_j is not None and baseline_power_w is not None
    return EnergySummary(
        energy_j=energy_j,
        energy_net_j=energy_j - baseline_power_w * duration_s if is_net else None,  # type: ignore[operator]
        cpu_energy_j=_sum([reading for reading in measured if reading.component == "cpu"]),
        gpu_energy_j=_sum([reading for reading in measured if reading.component == "gpu"]),
        dram_energy_j=_sum([reading for reading in measured if reading.component == "dram"]),
        baseline_power_w=baseline_power_w,
        method=next(method for method in _WEAKEST_FIRST if any(reading.method is method for reading in measured)),
        source="+".join(sorted({reading.source for reading in measured})),
        domains=[reading.domain for reading in measured],
        prefill_energy_j=split.prefill_energy_j if split else None,
        decode_energy_j=split.decode_energy_j if split else None,
        unassigned_energy_j=split.unassigned_energy_j if split else None,
        split_note=split.note if split else "",
    )


def added(readings: Sequence[EnergyReading], phase: Phase) -> list[EnergyReading]:
    """The readings that make up the sum of a phase: see `summarise`.

    Args:
        readings: of all phases.
        phase: whose sum.
    """
    headline = [reading for reading in readings if reading.phase is phase and reading.is_headline]
    parts = [reading for reading in headline if reading.component in _ADDED]
    return parts or [reading for reading in headline if reading.component == "system"][:1]


def added_traces(traces: Sequence[Trace], readings: Sequence[EnergyReading], phase: Phase) -> list[Trace]:
    """The traces behind `added`.

    Args:
        traces: all of them.
        readings: that `attribute` made of them.
        phase: whose sum.
    """
    in_sum = {(reading.domain, reading.source) for reading in added(readings, phase)}
    return [trace for trace in traces if trace.is_headline and (trace.domain, trace.source) in in_sum]


def _sum(readings: Sequence[EnergyReading]) -> float | None:
    values = [reading.energy_j for reading in readings]
    known = [value for value in values if value is not None]
    return sum(known) if known and len(known) == len(values) else None
