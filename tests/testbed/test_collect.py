"""From an attempt's files to its result."""

import csv
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from contract.attempt_state import AttemptState
from contract.errors import ChildDiedError, DeadlineExceededError, ModelNotFoundError
from contract.node_info import NodeIdentity
from contract.trial_result import (
    EnergyMethod,
    LoadReport,
    MeterCost,
    Phase,
    PhaseWindow,
    SuspectReason,
    TrialResult,
    WorkloadReport,
)
from contract.trial_spec import EngineSpec, MeterSpec, ModelSpec, TrialSpec, WorkloadSpec
from energy.trace import Gauge, Trace
from energy.trace_log import write_gauges, write_traces
from testbed.attempt_folder import ChildRecord, RequestRecord
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
        name="fake",
        source="fake",
        prompt_sha256="0" * 64,
        n_requests=4,
        n_planned=4,
        n_prompt_tokens=40,
        n_output_tokens=100,
    ),
    meters=[MeterCost(name="rapl", cpu_s=0.01, window_s=10.0, cpu_share=0.001)],
)


def request(index: int) -> RequestRecord:
    """One of four, one after the other: 0.2 s of prefill, 0.8 s of decode."""
    start_s = 1004.5 + index
    return RequestRecord(
        item_id=f"item-{index}",
        prompt_sha256="0" * 64,
        n_prompt_tokens=10,
        n_output_tokens=25,
        finish_reason="stop",
        submitted_s=start_s,
        first_token_s=start_s + 0.2,
        finished_s=start_s + 1.0,
        token_s=np.linspace(start_s + 0.2, start_s + 1.0, 25).tolist(),
        messages=[],
        answer="",
        gold_label=None,
        predicted_label=None,
        is_correct=None,
    )


REQUESTS = [request(index).model_dump_json() + "\n" for index in range(4)]


def write(folder: Path, record: ChildRecord | None = RECORD, *, watts: float | None = 100.0) -> Path:
    if record is not None:
        (folder / "record.json").write_text(record.model_dump_json())
        (folder / "requests.jsonl").write_text("".join(REQUESTS))
    if watts is not None:
        time_s = np.arange(1000.0, 1012.0, 0.2)
        trace = Trace(
            "cpu_package", "cpu", "counter", EnergyMethod.COUNTER, "rapl", time_s, watts * (time_s - 900), wrap_j=1e6
        )
        write_traces(folder / "trace_rapl.csv", [trace])
    return folder


def run(folder: Path, **changes: object) -> TrialResult:
    terms: dict[str, object] = {"attempt_id": "a", "spec": SPEC, "node": NODE, "started_at": AT, "finished_at": AT}
    result = collect(folder, **terms | changes)  # type: ignore[arg-type]
    assert TrialResult.model_validate_json(result.model_dump_json()) == result
    return result


def test_a_sound_trial_succeeds(tmp_path: Path) -> None:
    result = run(write(tmp_path))
    assert (result.state, result.reasons, result.error) == (AttemptState.SUCCEEDED, [], None)
    assert result.summary is not None
    assert result.summary.energy_j == pytest.approx(500.0)
    assert result.summary.energy_net_j == pytest.approx(0.0, abs=1e-6)
    assert (result.duration_s, result.tokens_per_s) == (5.0, 20.0)
    assert result.meters == RECORD.meters
    assert [artifact.name for artifact in result.artifacts] == [
        "record.json",
        "request_energy.csv",
        "requests.jsonl",
        "trace_rapl.csv",
    ]


def test_energy_is_shared_out_among_the_requests(tmp_path: Path) -> None:
    summary = run(write(tmp_path)).summary
    assert summary is not None
    # 100 W: four times 0.2 s and 0.8 s, and 1 s of the phase without a request.
    assert summary.prefill_energy_j == pytest.approx(80.0)
    assert summary.decode_energy_j == pytest.approx(320.0)
    assert summary.unassigned_energy_j == pytest.approx(100.0)
    with (tmp_path / "request_energy.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["item_id"] for row in rows] == [f"item-{index}" for index in range(4)]
    for row in rows:
        assert (row["n_prompt_tokens"], row["n_output_tokens"], row["method"]) == ("10", "25", "counter")
        assert float(row["energy_j"]) == pytest.approx(100.0)
        assert float(row["cpu_energy_j"]) == pytest.approx(100.0)
        assert (row["gpu_energy_j"], row["dram_energy_j"]) == ("", "")
        assert (float(row["prefill_s"]), float(row["decode_s"])) == (pytest.approx(0.2), pytest.approx(0.8))
        assert float(row["resolution_s"]) == pytest.approx(0.2)


def test_requests_that_cannot_be_read_are_not_shared_out(tmp_path: Path) -> None:
    (write(tmp_path) / "requests.jsonl").write_text(REQUESTS[0])
    result = run(tmp_path)
    assert result.summary is not None
    assert (result.summary.prefill_energy_j, result.summary.unassigned_energy_j) == (None, None)
    assert "not every request is on record" in result.summary.split_note
    assert "request_energy.csv" not in {artifact.name for artifact in result.artifacts}


def gauges(folder: Path, *, clock_mhz: float = 1005.0, throttle: float = 0.0, foreign: float = 0.0) -> Path:
    time_s = np.arange(1000.0, 1012.0, 0.2)
    values = {"clock_mhz": clock_mhz, "throttle_reasons": throttle, "foreign_processes": foreign}
    write_gauges(
        folder / "gauges_nvml.csv",
        [Gauge("gpu:0", name, "nvml", time_s, np.full_like(time_s, value)) for name, value in values.items()],  # type: ignore[arg-type]
    )
    return folder


GAUGE_LOG = "domain,quantity,source,time_s,value\n"
CLOCKED = SPEC.model_copy(update={"meter": MeterSpec(expected_clock_mhz={"gpu:0": 1005})})


def test_gauges_are_evidence_and_doubt_the_result(tmp_path: Path) -> None:
    sound = run(gauges(write(tmp_path)), spec=CLOCKED)
    assert (sound.state, sound.reasons) == (AttemptState.SUCCEEDED, [])
    assert "gauges_nvml.csv" in {artifact.name for artifact in sound.artifacts}
    doubted = run(gauges(tmp_path, clock_mhz=1980.0, throttle=0x4, foreign=1.0), spec=CLOCKED)
    assert doubted.state is AttemptState.SUSPECT
    assert [reason.code for reason in doubted.reasons] == ["clock_not_held", "throttled", "gpu_shared"]
    (tmp_path / "gauges_nvml.csv").unlink()
    assert [reason.code for reason in run(tmp_path, spec=CLOCKED).reasons] == ["clock_unverified"]


def test_a_prompt_without_an_answer_doubts_the_result(tmp_path: Path) -> None:
    assert RECORD.workload is not None
    workload = RECORD.workload.model_copy(update={"n_planned": 5})
    result = run(write(tmp_path, RECORD.model_copy(update={"workload": workload})))
    assert [reason.code for reason in result.reasons] == ["prompts_missing"]


def test_two_meters_of_one_domain_are_added_once_and_compared(tmp_path: Path) -> None:
    energibridge_log(write(tmp_path))  # 50 W of the package there, 100 W by RAPL
    result = run(tmp_path)
    assert result.summary is not None
    assert result.summary.energy_j == pytest.approx(1500.0, rel=1e-3)
    assert result.summary.cpu_energy_j == pytest.approx(500.0, rel=1e-3)
    assert [reason.code for reason in result.reasons] == ["estimators_disagree"]


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
    assert [reason.code for reason in result.reasons] == ["energy_not_positive", "stale_sensor"]
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
        (lambda folder: (folder / "requests.jsonl").write_text("".join(REQUESTS)[:-20]), "requests_missing"),
        (lambda folder: (folder / "requests.jsonl").write_text("".join(REQUESTS[:3]) + "{}\n"), "requests_missing"),
        (lambda folder: (folder / "gauges_nvml.csv").write_text("broken"), "log_format"),
        (lambda folder: (gauges(folder) / "gauges_nvml.csv").write_text(GAUGE_LOG + "gpu:0,magic,n,1,2"), "log_format"),
        (lambda folder: (gauges(folder) / "gauges_nvml.csv").write_text(GAUGE_LOG + "gpu:0,clock_mhz,1"), "log_format"),
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


def test_an_engine_option_that_did_not_take_doubts_the_result(tmp_path: Path) -> None:
    settings = {"not_taken": {"n_gpu_layers": "11 was asked for, llama.cpp took 0"}, "n_threads": 1}
    load = LoadReport(
        engine="llama_cpp",
        engine_version="1",
        model_name="m",
        model_source="fake:m",
        model_revision="r",
        load_s=1.0,
        settings=settings,  # type: ignore[arg-type]
    )
    result = run(write(tmp_path, RECORD.model_copy(update={"load": load})))
    assert result.state is AttemptState.SUSPECT
    assert [(reason.code, reason.message) for reason in result.reasons] == [
        ("engine_setting", "Engine option n_gpu_layers: 11 was asked for, llama.cpp took 0.")
    ]
    assert result.summary is not None and result.summary.energy_j == pytest.approx(500.0)
    taken = load.model_copy(update={"settings": {"not_taken": {}}})
    assert run(write(tmp_path, RECORD.model_copy(update={"load": taken}))).state is AttemptState.SUCCEEDED


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
    for name in ("process.json", "acknowledged", "result.json", ".result.json.1.tmp"):
        (tmp_path / name).write_text("x")
    (tmp_path / "link").symlink_to("/etc/passwd")
    (tmp_path / "folder").mkdir()
    names = {artifact.name for artifact in run(tmp_path).artifacts}
    assert names == {"record.json", "request_energy.csv", "requests.jsonl", "trace_rapl.csv"}
