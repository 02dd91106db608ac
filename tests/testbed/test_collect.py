"""From an attempt's files to its result."""

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from contract.attempt_state import AttemptState
from contract.errors import ChildDiedError, DeadlineExceededError, ModelNotFoundError
from contract.trial_result import (
    EnergyMethod,
    NodeIdentity,
    Phase,
    PhaseWindow,
    SuspectReason,
    TrialResult,
    WorkloadReport,
)
from contract.trial_spec import EngineSpec, ModelSpec, TrialSpec, WorkloadSpec
from energy.trace import Trace
from energy.trace_log import write_traces
from testbed.attempt_folder import ChildRecord
from testbed.collect import collect

AT = datetime(2026, 11, 21, tzinfo=UTC)
NODE = NodeIdentity(
    hostname="h", os="o", cpu_model="c", n_cpus=1, memory_bytes=1, python_version="3", hardware_sha256="0" * 64
)
SPEC = TrialSpec(
    experiment="e",
    run_id="run_0_repetition_0",
    repetition=0,
    treatment={},
    seed=0,
    model=ModelSpec(name="m", source="fake:m"),
    engine=EngineSpec(name="fake"),
    workload=WorkloadSpec(name="fake"),
)
RECORD = ChildRecord(
    origin_s=1000.0,
    unix_minus_monotonic_s=1.7e9,
    phases=[
        PhaseWindow(phase=Phase.BASELINE, start_s=1.0, duration_s=2.0),
        PhaseWindow(phase=Phase.MEASURE, start_s=4.0, duration_s=5.0),
    ],
    workload=WorkloadReport(
        name="fake", source="fake", prompt_sha256="0" * 64, n_requests=4, n_prompt_tokens=40, n_output_tokens=100
    ),
    sampler_cpu_s=0.01,
)


def write(folder: Path, record: ChildRecord | None = RECORD, *, watts: float | None = 100.0) -> Path:
    if record is not None:
        (folder / "record.json").write_text(record.model_dump_json())
        (folder / "requests.jsonl").write_text("{}\n" * 4)
    if watts is not None:
        time_s = np.arange(1000.0, 1012.0, 0.2)
        trace = Trace(
            "cpu_package", "cpu", "counter", EnergyMethod.COUNTER, "rapl", time_s, watts * (time_s - 900), wrap_j=1e6
        )
        write_traces(folder / "trace_rapl.csv", [trace])
    return folder


def run(folder: Path, **changes: object) -> TrialResult:
    result = collect(
        folder,
        attempt_id="a",
        spec=SPEC,
        node=NODE,
        started_at=AT,
        finished_at=AT,
        **changes,  # type: ignore[arg-type]
    )
    assert TrialResult.model_validate_json((folder / "result.json").read_text()) == result
    return result


def test_a_sound_trial_succeeds(tmp_path: Path) -> None:
    result = run(write(tmp_path))
    assert (result.state, result.reasons, result.error) == (AttemptState.SUCCEEDED, [], None)
    assert result.summary is not None
    assert result.summary.energy_j == pytest.approx(500.0)
    assert result.summary.energy_net_j == pytest.approx(0.0, abs=1e-6)
    assert (result.duration_s, result.tokens_per_s) == (5.0, 20.0)
    assert result.sampler_cpu_s == 0.01
    assert [artifact.name for artifact in result.artifacts] == ["record.json", "requests.jsonl", "trace_rapl.csv"]


def energibridge_log(folder: Path, *, rows: int = 60) -> None:
    lines = ["Delta,Time,GPU0_POWER (mWatts),PACKAGE_ENERGY (J)"]
    for row in range(rows):
        # 50 W from just below the wrap of 2^18 J; wall time = monotonic + 1.7e9.
        lines.append(f"200,{int((1.7e9 + 1000 + row * 0.2) * 1e3)},{200_000 + row},{(262_000 + row * 10.0) % 262_144}")
    (folder / "energibridge.csv").write_text("\n".join(lines) + "\n")


def test_energibridges_log_is_mapped_unwound_and_added_once(tmp_path: Path) -> None:
    energibridge_log(write(tmp_path, watts=None))
    result = run(tmp_path)
    assert result.state is AttemptState.SUCCEEDED, result.reasons
    assert result.summary is not None
    assert result.summary.cpu_energy_j == pytest.approx(250.0)
    assert result.summary.gpu_energy_j == pytest.approx(1000.0, rel=1e-3)
    assert result.summary.energy_j == pytest.approx(1250.0, rel=1e-3)
    assert result.summary.method is EnergyMethod.SAMPLED
    wraps = {reading.phase: reading.n_wraps for reading in result.energy if reading.domain == "cpu_package"}
    assert wraps == {Phase.BASELINE: 1, Phase.MEASURE: 0}


def test_a_replayed_log_is_an_estimate(tmp_path: Path) -> None:
    settings = {"energibridge": {"version": "energibridge 0.0.7 (stand-in: replayed power)"}}
    energibridge_log(write(tmp_path, RECORD.model_copy(update={"meter_settings": settings}), watts=None))
    result = run(tmp_path)
    assert result.summary is not None and result.summary.method is EnergyMethod.ESTIMATE
    assert all("not measured" in reading.note for reading in result.energy)


def spoil(folder: Path, field: int, text: str) -> None:
    path = folder / "trace_rapl.csv"
    rows = [line.split(",") for line in path.read_text().splitlines()]
    for row in rows[1:]:
        row[field] = text
    path.write_text("".join(",".join(row) + "\n" for row in rows))


def test_a_package_that_reads_0_is_a_broken_sensor_beside_a_gpu(tmp_path: Path) -> None:
    energibridge_log(write(tmp_path, watts=None))
    lines = (tmp_path / "energibridge.csv").read_text().splitlines()
    rows = [line.rpartition(",")[0] + ",0" for line in lines[1:]]
    (tmp_path / "energibridge.csv").write_text("\n".join([lines[0], *rows]) + "\n")
    result = run(tmp_path)
    assert result.state is AttemptState.SUSPECT
    assert [reason.code for reason in result.reasons] == ["energy_not_positive"]
    assert "cpu_package" in result.reasons[0].message


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (lambda folder: (folder / "trace_rapl.csv").unlink(), "no_energy"),
        (lambda folder: (folder / "trace_rapl.csv").write_text("broken"), "log_format"),
        (lambda folder: spoil(folder, 9, "nan"), "log_format"),
        (lambda folder: spoil(folder, 3, "guess"), "log_format"),
        (lambda folder: spoil(folder, 5, "big"), "log_format"),
        (lambda folder: (folder / "requests.jsonl").unlink(), "requests_missing"),
        (lambda folder: (folder / "requests.jsonl").write_text("{}\n{}\n{}\n{"), "requests_missing"),
        (lambda folder: energibridge_log(folder, rows=0), "log_format"),
    ],
)
def test_missing_energy_is_suspect_never_silent(tmp_path: Path, damage: object, code: str) -> None:
    damage(write(tmp_path))  # type: ignore[operator]
    result = run(tmp_path)
    assert result.state is AttemptState.SUSPECT
    assert code in {reason.code for reason in result.reasons}


def test_the_childs_own_reasons_are_kept(tmp_path: Path) -> None:
    reason = SuspectReason(code="meter", message="rapl: 3 readings failed")
    result = run(write(tmp_path, RECORD.model_copy(update={"reasons": [reason]})))
    assert (result.state, result.reasons) == (AttemptState.SUSPECT, [reason])


def test_the_childs_error_ends_the_attempt_and_keeps_the_evidence(tmp_path: Path) -> None:
    error = ModelNotFoundError("No model there. Download it.", source="path:/x").body()
    result = run(write(tmp_path, RECORD.model_copy(update={"error": error, "workload": None, "phases": []})))
    assert (result.state, result.error) == (AttemptState.FAILED, error)
    assert result.summary is None
    assert [artifact.name for artifact in result.artifacts] == ["record.json", "requests.jsonl", "trace_rapl.csv"]


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({"failure": ChildDiedError("Killed.")}, AttemptState.FAILED),
        ({"failure": DeadlineExceededError("Late.")}, AttemptState.TIMED_OUT),
        ({"cancelled": True}, AttemptState.CANCELLED),
        ({}, AttemptState.FAILED),
    ],
)
@pytest.mark.parametrize("record", ["absent", "half written"])
def test_a_trial_without_a_record_has_a_reason(
    tmp_path: Path, changes: dict[str, object], state: AttemptState, record: str
) -> None:
    write(tmp_path, None)
    if record == "half written":
        (tmp_path / "record.json").write_text(RECORD.model_dump_json()[:100])
    result = run(tmp_path, **changes)
    assert result.state is state
    assert (result.error is None) == (state is AttemptState.CANCELLED)


def test_only_evidence_is_listed(tmp_path: Path) -> None:
    write(tmp_path)
    for name in ("status.json", "process.json", "acknowledged", "result.json", ".result.json.1.tmp"):
        (tmp_path / name).write_text("x")
    (tmp_path / "link").symlink_to("/etc/passwd")
    (tmp_path / "folder").mkdir()
    names = {artifact.name for artifact in run(tmp_path).artifacts}
    assert names == {"record.json", "requests.jsonl", "trace_rapl.csv"}
    assert json.loads((tmp_path / "result.json").read_text())["attempt_id"] == "a"
