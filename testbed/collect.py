"""From an attempt's files to its result: integrate, attribute, doubt, list the evidence. Runs after the child's end,
so that EnergiBridge's log is complete, and a trial that died still yields what it left.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from pydantic import ValidationError

from contract.attempt_state import AttemptState
from contract.errors import ChildDiedError, DeadlineExceededError, JouleBedError, error_from_body
from contract.trial_result import (
    ArtifactRef,
    NodeIdentity,
    Phase,
    SuspectReason,
    TrialResult,
)
from contract.trial_spec import TrialSpec
from contract.units import PROTOCOL_VERSION
from energy.attribution import attribute, summarise
from energy.energibridge_log import read_energibridge_log
from energy.trace import Trace
from energy.trace_log import read_traces
from energy.validity import Evidence, find_reasons
from testbed import attempt_folder
from testbed.attempt_folder import ChildRecord, write_atomic
from testbed.meters.energibridge_meter import figure_terms

_NOT_EVIDENCE = frozenset(
    {
        attempt_folder.SPEC,  # the run table has it
        attempt_folder.STATUS,
        attempt_folder.PROCESS,
        attempt_folder.PROGRESS,  # the phases and the requests' times are in the record
        attempt_folder.RESULT,
        attempt_folder.ACKNOWLEDGED,
    }
)


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
    """Make the result of an attempt, and write result.json.

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
    record = _read_record(folder)
    if failure is None and record is not None and record.error is not None:
        failure = error_from_body(record.error)
    if failure is None and record is None and not cancelled:
        failure = ChildDiedError("The trial's process left no record. See child.log.")
    traces, reasons = ([], []) if record is None else _read_all_traces(folder, record)
    phases = record.phases if record else []
    readings = attribute(traces, phases, origin_s=record.origin_s) if record else []
    measure = next((window for window in phases if window.phase is Phase.MEASURE), None)
    workload = record.workload if record else None
    if record is not None and failure is None and not cancelled:
        evidence = Evidence(
            readings=readings,
            traces=traces,
            phases=phases,
            origin_s=record.origin_s,
            n_requests=workload.n_requests if workload else 0,
            n_output_tokens=workload.n_output_tokens if workload else 0,
            n_requests_kept=_count_requests(folder) if workload else None,
        )
        reasons = [*record.reasons, *reasons, *find_reasons(evidence)]
    has_speed = workload is not None and measure is not None and measure.duration_s > 0
    result = TrialResult(
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
        summary=summarise(readings, phases),
        duration_s=measure.duration_s if measure else None,
        tokens_per_s=workload.n_output_tokens / measure.duration_s if has_speed else None,  # type: ignore[union-attr]
        workload=workload,
        load=record.load if record else None,
        sampler_cpu_s=record.sampler_cpu_s if record else None,
        node=node,
        artifacts=list_artifacts(folder),
    )
    write_atomic(folder / attempt_folder.RESULT, result)
    return result


def list_artifacts(folder: Path) -> list[ArtifactRef]:
    """Every file of evidence in the folder that is not empty, with size and checksum."""
    artifacts = []
    for path in sorted(folder.iterdir()):
        if path.name in _NOT_EVIDENCE or path.name.startswith(".") or not path.is_file() or path.is_symlink():
            continue
        if not path.stat().st_size:
            continue
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        artifacts.append(ArtifactRef(name=path.name, size_bytes=path.stat().st_size, sha256=digest))
    return artifacts


def _count_requests(folder: Path) -> int:
    """Complete lines of requests.jsonl; 0 where there is none."""
    try:
        return (folder / attempt_folder.REQUESTS).read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


def _read_record(folder: Path) -> ChildRecord | None:
    path = folder / attempt_folder.RECORD
    try:
        return ChildRecord.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def _read_all_traces(folder: Path, record: ChildRecord) -> tuple[list[Trace], list[SuspectReason]]:
    """All traces on the monotonic clock, and what could not be read."""
    traces: list[Trace] = []
    reasons: list[SuspectReason] = []
    for path in sorted(folder.glob("trace_*.csv")):
        try:
            traces += read_traces(path)
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
            offset_s = record.unix_minus_monotonic_s
            traces += [replace(trace, time_s=trace.time_s - offset_s) for trace in log.traces]
    return traces, reasons


def _state(failure: JouleBedError | None, reasons: Sequence[SuspectReason], *, cancelled: bool) -> AttemptState:
    if cancelled:
        return AttemptState.CANCELLED
    if isinstance(failure, DeadlineExceededError):
        return AttemptState.TIMED_OUT
    if failure is not None:
        return AttemptState.FAILED
    return AttemptState.SUSPECT if reasons else AttemptState.SUCCEEDED
