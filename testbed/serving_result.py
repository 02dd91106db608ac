"""From what an open loop left to its report: shares with their denominators, latencies, joules in all definitions."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from contract.serving import ServingReport, ServingSpec, Spread
from energy.integrate import CumulativeEnergy
from energy.trace import FloatArray, Trace
from testbed.attempt_folder import RequestRecord
from testbed.serving_record import ServingRecord


def serving_report(
    spec: ServingSpec,
    record: ServingRecord,
    requests: Sequence[RequestRecord],
    traces: Sequence[Trace],
    note: str = "",
) -> ServingReport:
    """What came of an open loop.

    Args:
        spec: of it.
        record: what the drive kept.
        requests: that were served.
        traces: that make up the trial's energy, each domain once; empty where there is none.
        note: why there is none.
    """
    known = [each for each in requests if each.arrival_s is not None]
    arrival_s = np.array([each.arrival_s for each in known], dtype=np.float64)
    finished_s = np.array([each.finished_s for each in known], dtype=np.float64)
    first_s = np.array([np.nan if each.first_token_s is None else each.first_token_s for each in known])
    n_tokens = np.array([each.n_output_tokens for each in known], dtype=np.float64)
    latency_s = finished_s - arrival_s
    ttft_s = first_s - arrival_s
    has_tpot = (n_tokens > 1) & np.isfinite(first_s)
    tpot_s = (finished_s - first_s)[has_tpot] / (n_tokens[has_tpot] - 1)
    fastest_s = record.floor_s or min((each.end_s - each.start_s for each in record.batches), default=0.0)
    n_unfinished_missed = _unfinished_missed(spec, record, fastest_s)
    n_judged = len(known) + len(record.lost_s) + n_unfinished_missed
    n_met = int((latency_s <= spec.slo_s).sum())
    ttft_known = np.isfinite(ttft_s)
    duration_s = record.end_s - record.start_s
    report = ServingReport(
        policy=record.policy,
        policy_settings=record.policy_settings,
        is_simulated=record.is_simulated,
        continuous=spec.continuous,
        slo_s=spec.slo_s,
        ttft_slo_s=spec.ttft_slo_s,
        tpot_slo_s=spec.tpot_slo_s,
        n_arrived=record.n_arrived,
        n_served=len(known),
        n_lost=len(record.lost_s),
        n_unfinished=len(record.unfinished_s),
        n_judged=n_judged,
        n_met=n_met,
        slo_share=n_met / n_judged if n_judged else None,
        ttft_share=_share_within(ttft_s[ttft_known], spec.ttft_slo_s, n_judged if ttft_known.all() else 0),
        tpot_share=_share_within(tpot_s, spec.tpot_slo_s, tpot_s.size),
        latency=_spread(latency_s),
        ttft=_spread(ttft_s[ttft_known]),
        tpot=_spread(tpot_s),
        throughput_per_s=len(known) / duration_s if duration_s > 0 else None,
        n_batches=None if spec.continuous else len(record.batches),
        batch_sizes={str(size): n for size, n in sorted(Counter(each.n_requests for each in record.batches).items())},
        n_decisions=record.n_decisions,
        n_waits=record.n_waits,
        decision_mean_s=record.decision_s / record.n_decisions if record.n_decisions else None,
        decision_max_s=record.decision_max_s if record.n_decisions else None,
        clock_domain=spec.clock_domain,
        n_switches=len(record.switches),
        switch_mean_s=float(np.mean([each.end_s - each.start_s for each in record.switches]))
        if record.switches
        else None,
        energy_note=note,
        settings={name: value for name, value in record.arrivals.items() if isinstance(value, str | int | float)},
    )
    return report.model_copy(update=_energies(record, known, traces)) if traces and known else report


def _unfinished_missed(spec: ServingSpec, record: ServingRecord, fastest_s: float) -> int:
    """Of those queued at the end: given up, or too late even for the fastest batch (of the table, or seen), at once."""
    if record.is_given_up:
        return len(record.unfinished_s)
    return sum(record.end_s + fastest_s - arrival_s > spec.slo_s for arrival_s in record.unfinished_s)


def _energies(
    record: ServingRecord, requests: Sequence[RequestRecord], traces: Sequence[Trace]
) -> dict[str, float | str | None]:
    cumulative = [CumulativeEnergy(trace) for trace in traces]
    if any(each.window(record.start_s, record.end_s).energy_j is None for each in cumulative):
        return {"energy_note": "a domain has no energy for the measured phase"}
    spans = [(each.start_s, each.end_s) for each in record.batches]
    # Without batches a request's own time stands in their place, and times in flight together count once.
    own = [(each.submitted_s, each.finished_s) for each in requests]
    service_j = _energy_j(cumulative, _merged(spans or own)).sum()
    switch_j = _energy_j(cumulative, [(each.start_s, each.end_s) for each in record.switches])
    whole_j = float(_energy_j(cumulative, [(record.start_s, record.end_s)]).sum())
    if spans:
        undivided_j = float(_energy_j(cumulative, spans) @ np.array([each.n_requests for each in record.batches]))
    else:
        undivided_j = float(_energy_j(cumulative, own).sum())
    n_served = len(requests)
    # A clock that is changed while requests are in flight is changed inside their time.
    switch_outside_j = float(switch_j.sum()) if spans else 0.0
    return {
        "service_energy_j": float(service_j),
        "switch_energy_j": float(switch_j.sum()) if record.switches else 0.0,
        "switch_mean_j": float(switch_j.mean()) if record.switches else None,
        "idle_energy_j": whole_j - float(service_j) - switch_outside_j,
        "service_energy_per_request_j": float(service_j) / n_served,
        "study_energy_per_request_j": undivided_j / n_served,
        "energy_per_request_j": whole_j / n_served,
        "energy_note": _resolution(cumulative, spans or own, record),
    }


def _energy_j(cumulative: Sequence[CumulativeEnergy], spans: Sequence[tuple[float, float]]) -> FloatArray:
    """Joules of all domains in each span, shape (n,)."""
    if not spans:
        return np.zeros(0)
    times_s = np.array(spans, dtype=np.float64)
    total_j = np.zeros(len(spans))
    for each in cumulative:
        total_j += each.at_times(times_s[:, 1]) - each.at_times(times_s[:, 0])
    return total_j


def _merged(spans: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Spans without what they share."""
    merged: list[tuple[float, float]] = []
    for start_s, end_s in sorted(spans):
        if merged and start_s <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end_s))
        else:
            merged.append((start_s, end_s))
    return merged


def _resolution(
    cumulative: Sequence[CumulativeEnergy], spans: Sequence[tuple[float, float]], record: ServingRecord
) -> str:
    """What the sampling cannot resolve."""
    if record.is_simulated:
        return "simulated: powers of a table, not measured"
    period_s = max(each.period_s or 0.0 for each in cumulative)
    median_s = float(np.median([end_s - start_s for start_s, end_s in spans]))
    notes = []
    if median_s < 2 * period_s:
        notes.append(f"the median batch or request of {median_s:.3g} s is near the sampling period of {period_s:.3g} s")
    if record.switches and max(each.end_s - each.start_s for each in record.switches) < period_s:
        notes.append("switches are shorter than a sampling period: their energy is interpolated")
    return "; ".join(notes)


def _spread(values_s: FloatArray) -> Spread:
    if not values_s.size:
        return Spread(n=0)
    p50_s, p99_s = np.percentile(values_s, [50, 99])
    return Spread(n=int(values_s.size), mean_s=float(values_s.mean()), p50_s=float(p50_s), p99_s=float(p99_s))


def _share_within(values_s: FloatArray, objective_s: float | None, n_judged: int) -> float | None:
    return float((values_s <= objective_s).sum()) / n_judged if objective_s is not None and n_judged else None
