"""What each device did and drew: from its own marks, and from the samples of its own domain.

A GPU has a domain of its own (`gpu:0`), which is cut at its marks. A set of cores has none: a package counter is shared
by all cores, so its joules are nobody's in particular, and there is no energy for the set. Where the meter is the
estimate, the same model is applied to the set alone, by the CPU time of its process, and says that it is one.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import JsonValue

from contract.node_info import NodeIdentity
from contract.trial_result import DeviceResult, EnergyMethod, EnergyReading, Phase
from contract.trial_spec import DeviceSpec
from energy.device_rules import THROTTLE_REASONS
from energy.integrate import CumulativeEnergy
from energy.request_energy import EnergySplit, RequestShare, RequestTiming, share_energy
from energy.trace import FloatArray, Gauge, Quantity, Trace
from testbed.attempt_folder import ChildRecord, DeviceRecord

_ESTIMATE = "estimate"


def device_results(
    record: ChildRecord,
    traces: Sequence[Trace],
    gauges: Sequence[Gauge],
    readings: Sequence[EnergyReading],
    node: NodeIdentity,
) -> list[DeviceResult]:
    """One result for each device of a trial; none where it names none.

    Args:
        record: of the trial's process.
        traces: of all meters, on the record's clock.
        gauges: the same.
        readings: that were made of the traces.
        node: this machine.
    """
    ends_s = [each.end_s for each in record.devices if each.end_s is not None]
    last_s = max(ends_s, default=None)
    baseline_s = next((each.duration_s for each in record.phases if each.phase is Phase.BASELINE), 0.0)
    results = []
    for each in record.devices:
        device = DeviceSpec(name=each.device)
        fields: dict[str, Any] = {"kind": _kind(device, node)}
        if each.start_s is not None and each.end_s is not None and last_s is not None:
            duration_s = each.end_s - each.start_s
            fields |= {
                "start_s": max(each.start_s - record.origin_s, 0.0),
                "duration_s": duration_s,
                "tail_s": last_s - each.end_s,
                "tokens_per_s": each.n_output_tokens / duration_s if duration_s > 0 else None,
            }
            if device.gpu_index is None:
                fields |= _core_energy(device, each, last_s, traces, record.meter_settings)
            else:
                fields |= _gpu_energy(each, last_s, traces, readings, baseline_s) | _conditions(each, gauges)
        kept = each.model_dump(exclude={"start_s", "end_s", "load", "score", "error"})
        results.append(DeviceResult(load=each.load, score=each.score, error=each.error, **kept, **fields))
    return results


def share_by_device(
    traces: Sequence[Trace],
    timings: Sequence[RequestTiming],
    devices: Sequence[str | None],
    *,
    start_s: float,
    end_s: float,
) -> EnergySplit:
    """`energy.request_energy.share_energy`, where a device's own domain goes to that device's requests alone.

    What no named device has to itself (processors, memory, other GPUs) is shared among the requests of all.

    Args:
        traces: that make up the sum.
        timings: of all requests.
        devices: of each request.
        start_s: of the measured phase.
        end_s: of the measured phase.
    """
    own = {trace.domain for trace in traces} & {device for device in devices if device is not None}
    parts = [([trace for trace in traces if trace.domain not in own], list(range(len(timings))))]
    for domain in sorted(own):
        places = [place for place, device in enumerate(devices) if device == domain]
        parts.append(([trace for trace in traces if trace.domain == domain], places))
    shares: list[RequestShare | None] = [None] * len(timings)
    unassigned_j, resolution_s, notes = 0.0, 0.0, []
    for domain_traces, places in parts:
        if not domain_traces:
            continue
        split = share_energy(domain_traces, [timings[place] for place in places], start_s=start_s, end_s=end_s)
        if not split.requests or split.unassigned_energy_j is None:
            return EnergySplit(note=split.note)
        for place, share in zip(places, split.requests, strict=True):
            shares[place] = _added(shares[place], share)
        unassigned_j += split.unassigned_energy_j
        resolution_s = max(resolution_s, split.resolution_s or 0.0)
        notes.append(split.note)
    known = tuple(share for share in shares if share is not None)
    if not known or len(known) < len(shares):
        return EnergySplit(note="no domain was measured" if timings else "no request is on record")
    return EnergySplit(known, unassigned_j, resolution_s, "; ".join(dict.fromkeys(note for note in notes if note)))


def _added(one: RequestShare | None, other: RequestShare) -> RequestShare:
    if one is None:
        return other
    components = one.component_energy_j.keys() | other.component_energy_j.keys()
    return RequestShare(
        energy_j=one.energy_j + other.energy_j,
        component_energy_j={
            name: one.component_energy_j.get(name, 0.0) + other.component_energy_j.get(name, 0.0)
            for name in sorted(components)
        },
        prefill_s=other.prefill_s,
        decode_s=other.decode_s,
        prefill_energy_j=_sum(one.prefill_energy_j, other.prefill_energy_j),
        decode_energy_j=_sum(one.decode_energy_j, other.decode_energy_j),
    )


def _sum(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one + other


def _kind(device: DeviceSpec, node: NodeIdentity) -> str:
    index = device.gpu_index
    if index is None:
        n_cores = len(device.cores)
        return f"{node.cpu_model or 'processor'}, {n_cores} core{'s' * (n_cores > 1)}"
    return node.gpus[index].split(" (GPU-")[0].strip() if index < len(node.gpus) else "GPU"


def _gpu_energy(
    device: DeviceRecord,
    last_s: float,
    traces: Sequence[Trace],
    readings: Sequence[EnergyReading],
    baseline_s: float,
) -> dict[str, Any]:
    assert device.start_s is not None and device.end_s is not None
    trace = next((each for each in traces if each.domain == device.device and each.is_headline), None)
    if trace is None:
        there = ", ".join(dict.fromkeys(each.domain for each in traces)) or "none"
        return {"energy_note": f"no meter measures {device.device} alone; the domains are: {there}"}
    cumulative = CumulativeEnergy(trace)
    window = cumulative.window(device.start_s, device.end_s)
    fields: dict[str, Any] = {
        "energy_j": window.energy_j,
        "energy_method": trace.method,
        "energy_source": trace.source,
        "energy_note": trace.note if window.energy_j is not None else "the samples do not cover its window",
        "tail_energy_j": cumulative.window(device.end_s, last_s).energy_j if last_s > device.end_s else 0.0,
    }
    baseline = next(
        (
            each
            for each in readings
            if each.phase is Phase.BASELINE and _is_of(each, trace) and each.energy_j is not None
        ),
        None,
    )
    if baseline is None or baseline_s <= 0:
        return fields
    assert baseline.energy_j is not None
    power_w = baseline.energy_j / baseline_s
    fields["baseline_power_w"] = power_w
    if window.energy_j is not None:
        fields["energy_net_j"] = window.energy_j - power_w * (device.end_s - device.start_s)
    return fields


def _is_of(reading: EnergyReading, trace: Trace) -> bool:
    return reading.is_headline and reading.domain == trace.domain and reading.source == trace.source


def _core_energy(
    device: DeviceSpec,
    record: DeviceRecord,
    last_s: float,
    traces: Sequence[Trace],
    meter_settings: Mapping[str, JsonValue],
) -> dict[str, Any]:
    """Joules of a set of cores by the estimate's own model, E = idle_w x cores x t + active_w x CPU seconds."""
    assert record.start_s is not None and record.end_s is not None
    processors = [each for each in traces if each.component == "cpu" and each.is_headline]
    if any(each.source != _ESTIMATE for each in processors):
        return {"energy_note": "cores share one package counter: it cannot tell the joules of a set of them"}
    settings = meter_settings.get(_ESTIMATE)
    watts = settings if isinstance(settings, dict) else {}
    idle_w, active_w = watts.get("idle_w_per_core"), watts.get("active_w_per_core")
    if not processors or not isinstance(idle_w, int | float) or not isinstance(active_w, int | float):
        return {"energy_note": "no meter measures the processor"}
    if record.cpu_s is None:
        return {"energy_note": "the CPU time of its process is not known"}
    baseline_w = idle_w * len(device.cores)
    gross_j = baseline_w * (record.end_s - record.start_s) + active_w * record.cpu_s
    return {
        "energy_j": gross_j,
        "energy_net_j": active_w * record.cpu_s,
        "baseline_power_w": baseline_w,
        "tail_energy_j": baseline_w * (last_s - record.end_s),
        "energy_method": EnergyMethod.ESTIMATE,
        "energy_source": _ESTIMATE,
        "energy_note": f"estimate, not measured: {idle_w:g} W x {len(device.cores)} of its cores + {active_w:g} W x "
        "CPU seconds of its process",
    }


def _conditions(device: DeviceRecord, gauges: Sequence[Gauge]) -> dict[str, Any]:
    """Temperature and memory of a GPU in its window, from its own sensors."""
    temps_c = _during(device, gauges, "temp_c")
    used_bytes = _during(device, gauges, "memory_used_bytes")
    slowed = (_during(device, gauges, "throttle_reasons").astype(np.int64) & sum(THROTTLE_REASONS)) != 0
    return {
        "start_temp_c": float(temps_c[0]) if temps_c.size else None,
        "max_temp_c": float(temps_c.max()) if temps_c.size else None,
        "gpu_memory_peak_bytes": int(used_bytes.max()) if used_bytes.size else None,
        "throttled_share": float(slowed.mean()) if slowed.size else None,
    }


def _during(device: DeviceRecord, gauges: Sequence[Gauge], quantity: Quantity) -> FloatArray:
    """A GPU's readings in its window, the last one before it first."""
    assert device.start_s is not None and device.end_s is not None
    for gauge in gauges:
        if gauge.domain == device.device and gauge.quantity == quantity:
            first = max(int(np.searchsorted(gauge.time_s, device.start_s, side="right")) - 1, 0)
            after = int(np.searchsorted(gauge.time_s, device.end_s, side="right"))
            inside: FloatArray = gauge.values[first:after]
            return inside
    return np.empty(0)
