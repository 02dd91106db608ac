"""From an attempt's files to its result: integrate, attribute, doubt, list the evidence. Runs after the child's end,
so that EnergiBridge's log is complete, and a trial that died still yields what it left.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from pydantic import ValidationError

from contract.attempt_state import AttemptState
from contract.errors import ChildDiedError, DeadlineExceededError, JouleBedError, error_from_body
from contract.node_info import NodeIdentity
from contract.trial_result import ArtifactRef, EnergyReading, LoadReport, Phase, SuspectReason, TrialResult
from contract.trial_spec import TrialSpec
from contract.units import PROTOCOL_VERSION
from energy.attribution import added_traces, attribute, settle_headlines, summarise
from energy.clock_step import Mapped, to_monotonic
from energy.energibridge_log import read_energibridge_log
from energy.evidence import Evidence
from energy.request_energy import EnergySplit
from energy.trace import Gauge, Trace
from energy.trace_log import read_gauges, read_traces
from energy.validity import find_reasons
from testbed import attempt_folder
from testbed.actuators.registry import ALL_SIMULATED
from testbed.attempt_folder import ChildRecord, RequestRecord
from testbed.child_log import hide_in_log
from testbed.conditions import conditions_of
from testbed.device_group.outcome import device_results, share_by_device
from testbed.edge_control.result import edge_report, edge_sheets
from testbed.engines.base import NOT_TAKEN
from testbed.meters.energibridge_meter import figure_terms
from testbed.request_sheet import request_sheet, timing
from testbed.serving_result import serving_report

_NOT_EVIDENCE = frozenset(
    {
        attempt_folder.SPEC,  # the run table has it
        attempt_folder.PROCESS,
        attempt_folder.PROGRESS,  # the phases and the requests' times are in the record
        attempt_folder.RESULT,
        attempt_folder.ACKNOWLEDGED,
    }
)


_SMALL_BYTES = 64 * 1024
_CHUNK_BYTES = 1024 * 1024


@dataclass(frozen=True)
class _Samples:
    """What the meters left, and why some of it cannot be read."""

    traces: tuple[Trace, ...] = ()
    gauges: tuple[Gauge, ...] = ()
    reasons: tuple[SuspectReason, ...] = ()


def collect(
    folder: Path,
    *,
    attempt_id: str,
    spec: TrialSpec,
    node: NodeIdentity,
    started_at: datetime,
    finished_at: datetime,
    failure: JouleBedError | None = None,
    cancelled: bool = False,
) -> TrialResult:
    """Make the result of an attempt; the supervisor writes it to result.json.

    Args:
        folder: the attempt's.
        attempt_id: its id.
        spec: what was asked for.
        node: this machine.
        started_at: aware UTC.
        finished_at: aware UTC.
        failure: why it ended early, if the node knows; the child's own error stands in record.json.
        cancelled: a person stopped it.
    """
    hide_in_log(folder / attempt_folder.CHILD_LOG)
    record = _read_record(folder)
    if failure is None and record is not None and record.error is not None:
        failure = error_from_body(record.error)
    if failure is None and record is None and not cancelled:
        failure = ChildDiedError("The trial's process left no record. See child.log.")
    samples = _read_samples(folder, record) if record else _Samples()
    requests = _read_requests(folder)
    phases = record.phases if record else []
    readings = attribute(samples.traces, phases, origin_s=record.origin_s) if record else []
    measure = next((window for window in phases if window.phase is Phase.MEASURE), None)
    workload = record.workload if record else None
    reasons: list[SuspectReason] = []
    if record is not None and failure is None and not cancelled:
        evidence = Evidence(
            readings=readings,
            traces=samples.traces,
            phases=phases,
            origin_s=record.origin_s,
            n_requests=workload.n_requests if workload else 0,
            n_output_tokens=workload.n_output_tokens if workload else 0,
            n_requests_kept=len(requests) if workload else None,
            n_planned=_to_be_answered(record),
            gauges=samples.gauges,
            expected_clock_mhz=_expected_clocks(spec, record),
        )
        reasons = [*record.reasons, *_not_taken(record.load), *samples.reasons, *find_reasons(evidence)]
    split = _split(record, samples.traces, readings, requests) if record else None
    summary = summarise(readings, phases, split)
    serving = None
    if record is not None and record.serving is not None and spec.serving is not None:
        added = added_traces(samples.traces, readings, Phase.MEASURE)
        serving = serving_report(spec.serving, record.serving, requests, added, "" if added else "nothing was measured")
    edge = None
    if record is not None and record.edge is not None:
        added = added_traces(samples.traces, readings, Phase.MEASURE)
        edge = edge_report(record.edge, added)
        for name, sheet in edge_sheets(record.edge).items():
            (folder / name).write_bytes(sheet.encode())
    if split is not None and split.requests and summary is not None:
        sheet = request_sheet(requests, split, summary.method)
        # Not synced, like the traces that it is made of: what a power cut takes does not verify when it is fetched.
        (folder / attempt_folder.REQUEST_ENERGY).write_bytes(sheet.encode())
    has_speed = workload is not None and measure is not None and measure.duration_s > 0
    return TrialResult(
        protocol_version=PROTOCOL_VERSION,
        attempt_id=attempt_id,
        run_id=spec.run_id,
        spec_sha256=spec.sha256(),
        state=_state(failure, reasons, cancelled=cancelled),
        reasons=reasons,
        error=failure.body() if failure else None,
        started_at=started_at,
        finished_at=finished_at,
        start_temp_c=record.start_temp_c if record else None,
        phases=phases,
        energy=readings,
        summary=summary,
        duration_s=measure.duration_s if measure else None,
        tokens_per_s=workload.n_output_tokens / measure.duration_s if has_speed else None,  # type: ignore[union-attr]
        workload=workload,
        load=record.load if record else None,
        meters=record.meters if record else [],
        settings=record.settings if record else [],
        steady=record.steady if record else None,
        conditions=conditions_of(record, samples.gauges) if record else None,
        devices=device_results(record, samples.traces, samples.gauges, readings, node) if record else [],
        serving=serving,
        edge=edge,
        node=node,
        artifacts=list_artifacts(folder),
    )


def list_artifacts(folder: Path) -> list[ArtifactRef]:
    """Every file of evidence in the folder that is not empty, with size and checksum."""
    artifacts = []
    for path in sorted(folder.iterdir()):
        if path.name in _NOT_EVIDENCE or path.name.startswith(".") or not path.is_file() or path.is_symlink():
            continue
        if not path.stat().st_size:
            continue
        artifacts.append(ArtifactRef(name=path.name, size_bytes=path.stat().st_size, sha256=_sha256(path)))
    return artifacts


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        # Most are small, and file_digest clears a buffer of 256 KiB for each.
        digest = hashlib.sha256(file.read(_SMALL_BYTES))
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _expected_clocks(spec: TrialSpec, record: ChildRecord) -> dict[str, float]:
    """Domain -> MHz that it had to hold: what an actuator set, and what the spec says was set by hand."""
    loop = spec.serving or spec.edge
    moved = loop.clock_domain if loop is not None else None
    return {
        setting.domain: setting.wanted["clock_mhz"]
        for setting in record.settings
        # A simulated device has no meter: its read-backs are all there is. And a policy's clock is not one clock.
        if setting.actuator not in ALL_SIMULATED and setting.domain != moved and "clock_mhz" in setting.wanted
    } | spec.meter.expected_clock_mhz


def _to_be_answered(record: ChildRecord) -> int | None:
    """Requests that a sound trial answers: not those that an open loop lost or left, which its report counts."""
    planned = record.workload.n_planned if record.workload else None
    if planned is None or record.serving is None:
        return planned
    return record.serving.n_arrived - len(record.serving.lost_s) - len(record.serving.unfinished_s)


def _not_taken(load: LoadReport | None) -> list[SuspectReason]:
    """Options that the engine was given and did not take: another treatment was measured."""
    told = load.settings.get(NOT_TAKEN) if load else None
    return [
        SuspectReason(code="engine_setting", message=f"Engine option {name}: {text}.")
        for name, text in (told.items() if isinstance(told, dict) else ())
    ]


def _read_requests(folder: Path) -> list[RequestRecord]:
    """What can be read of requests.jsonl, which may be absent, or end in half a line."""
    try:
        lines = (folder / attempt_folder.REQUESTS).read_bytes().splitlines()
    except FileNotFoundError:
        return []
    records = []
    for line in lines:
        try:
            records.append(RequestRecord.model_validate_json(line))
        except ValidationError:
            continue  # the rules count what is left
    return records


def _split(
    record: ChildRecord, traces: Sequence[Trace], readings: Sequence[EnergyReading], requests: Sequence[RequestRecord]
) -> EnergySplit | None:
    """The measured phase shared out among the requests; None where the trial did not come so far."""
    measure = next((window for window in record.phases if window.phase is Phase.MEASURE), None)
    if measure is None:
        return None
    if record.workload is None or len(requests) != record.workload.n_requests:
        return EnergySplit(note="not every request is on record")
    start_s = record.origin_s + measure.start_s
    return share_by_device(
        added_traces(traces, readings, Phase.MEASURE),
        [timing(request) for request in requests],
        [request.device for request in requests],
        start_s=start_s,
        end_s=start_s + measure.duration_s,
    )


def _read_record(folder: Path) -> ChildRecord | None:
    path = folder / attempt_folder.RECORD
    try:
        return ChildRecord.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def _read_samples(folder: Path, record: ChildRecord) -> _Samples:
    """All samples on the monotonic clock, one headline per domain, and what could not be read."""
    traces: list[Trace] = []
    gauges: list[Gauge] = []
    reasons: list[SuspectReason] = []
    for path in sorted(folder.glob("trace_*.csv")):
        try:
            traces += read_traces(path)
        except JouleBedError as error:
            reasons.append(SuspectReason(code=error.code, message=error.message))
    for path in sorted(folder.glob("gauges_*.csv")):
        try:
            gauges += read_gauges(path)
        except JouleBedError as error:
            reasons.append(SuspectReason(code=error.code, message=error.message))
    log_path = folder / attempt_folder.ENERGIBRIDGE_LOG
    if log_path.exists():
        settings = record.meter_settings.get("energibridge")
        version = str(settings.get("version", "")) if isinstance(settings, dict) else ""
        method, note = figure_terms(version)
        try:
            log = read_energibridge_log(log_path, method=method, note=note)
        except JouleBedError as error:
            reasons.append(SuspectReason(code=error.code, message=error.message))
        else:
            # All columns of a log share one time.
            mapped = to_monotonic(
                log.traces[0].time_s, record.unix_minus_monotonic_s, record.end_unix_minus_monotonic_s
            )
            if mapped.time_s is None:
                reasons += [mapped.reason] if mapped.reason else []
            else:
                traces += [_retimed(trace, mapped) for trace in log.traces]
                gauges += [replace(gauge, time_s=mapped.time_s) for gauge in log.gauges]
    return _Samples(tuple(settle_headlines(traces)), tuple(gauges), tuple(reasons))


def _retimed(trace: Trace, mapped: Mapped) -> Trace:
    assert mapped.time_s is not None
    return replace(trace, time_s=mapped.time_s, note="; ".join(text for text in (trace.note, mapped.note) if text))


def _state(failure: JouleBedError | None, reasons: Sequence[SuspectReason], *, cancelled: bool) -> AttemptState:
    if cancelled:
        return AttemptState.CANCELLED
    if isinstance(failure, DeadlineExceededError):
        return AttemptState.TIMED_OUT
    if failure is not None:
        return AttemptState.FAILED
    return AttemptState.SUSPECT if reasons else AttemptState.SUCCEEDED
