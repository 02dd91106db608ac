"""An attempt on disk: who writes which file. Everything is here before anything is answered.

| file | writer | what |
|---|---|---|
| spec.json | node | the TrialSpec |
| process.json | node | pid, start time and process group of the child, to find it again after a restart |
| progress.jsonl | child | one `Progress` line per change of state or finished request |
| record.json | child | the `ChildRecord`, replaced atomically, last of all |
| requests.jsonl | child | one `RequestRecord` per measured request, in workload order |
| trace_METER.csv | child | samples of an in-process meter (`energy.trace_log`) |
| gauges_METER.csv | child | the clocks, temperatures and the like that it sampled beside (`energy.trace_log`) |
| energibridge.csv, energibridge-summary.txt | EnergiBridge | its log, and what it printed |
| child.log | child | its standard output and error |
| request_energy.csv | node (`collect`) | joules of each measured request (`testbed.request_sheet`) |
| edge_batches.csv, edge_updates.csv | node (`collect`) | each batch and update of edge control |
| result.json | node | the TrialResult, replaced atomically |
| acknowledged | node | empty: the orchestrator has everything |

All times in these files are seconds of the machine's monotonic clock, except in EnergiBridge's log, which
`ChildRecord.unix_minus_monotonic_s` maps.
"""

import os
from pathlib import Path

from pydantic import BaseModel, Field, JsonValue

from contract.attempt_state import AttemptState
from contract.errors import ErrorBody
from contract.node_info import TemperatureReading
from contract.trial_result import (
    LoadReport,
    MeterCost,
    PhaseWindow,
    SettingTaken,
    SteadyReport,
    SuspectReason,
    TaskScore,
    WorkloadReport,
)
from contract.trial_spec import DeviceName
from contract.units import Sha256, WireModel
from testbed.edge_control.record import EdgeRecord
from testbed.serving_record import ServingRecord

SPEC = "spec.json"
PROCESS = "process.json"
PROGRESS = "progress.jsonl"
RECORD = "record.json"
REQUESTS = "requests.jsonl"
REQUEST_ENERGY = "request_energy.csv"
CHILD_LOG = "child.log"
ENERGIBRIDGE_LOG = "energibridge.csv"
ENERGIBRIDGE_SUMMARY = "energibridge-summary.txt"
RESULT = "result.json"
ACKNOWLEDGED = "acknowledged"


class Progress(WireModel):
    """One line of progress.jsonl."""

    state: AttemptState
    at_s: float
    n_requests_done: int = 0
    n_requests: int = 0
    power_w: dict[str, float] = Field(default_factory=dict)
    waits_for: list[str] = Field(default_factory=list)
    """Devices that are not done with this state, where the trial names several and some are."""


class RequestRecord(WireModel):
    """One measured request: what was asked, what came back, when."""

    item_id: str
    prompt_sha256: Sha256
    n_prompt_tokens: int
    n_output_tokens: int
    finish_reason: str
    submitted_s: float
    """Monotonic seconds, as all times here."""
    first_token_s: float | None
    finished_s: float
    token_s: list[float]
    """When each token (or group of tokens) became known."""
    engine_prefill_s: float | None = None
    """How long the engine says that it read the prompt; None where it does not say."""
    engine_decode_s: float | None = None
    """How long the engine says that it generated."""
    messages: list[dict[str, str]]
    answer: str
    gold_label: str | None
    predicted_label: str | None
    is_correct: bool | None
    device: str | None = None
    """Which of the trial's devices answered; None where it names none."""
    arrival_s: float | None = None
    """When it truly arrived, which may be long before `submitted_s`; None in a closed loop."""
    batch: int | None = None
    """Which batch of an open loop served it, from 0; None where there are no batches."""
    token_exit_layer: list[int] | None = None
    """After how many layers each token left the model; None without early exit."""
    token_entropy_nats: list[float] | None = None
    """Entropy of the distribution that each token was chosen from, before temperature; None without early exit."""


class DeviceRecord(WireModel):
    """What one of several devices did; `testbed.collect` makes a `DeviceResult` of it."""

    device: DeviceName
    load: LoadReport | None = None
    start_s: float | None = None
    """Of its own measured phase; monotonic seconds."""
    end_s: float | None = None
    late_s: float | None = None
    """After the common start instant."""
    score: TaskScore | None = None
    n_requests: int = 0
    n_output_tokens: int = 0
    cpu_s: float | None = None
    """CPU seconds of its process between the two."""
    memory_peak_bytes: int | None = None
    error: ErrorBody | None = None


class ChildRecord(WireModel):
    """What the child knows at its end; the node adds what only it can know and computes the energy."""

    origin_s: float
    """Monotonic time of the child's start: the zero of `PhaseWindow.start_s`."""
    unix_minus_monotonic_s: float
    """Maps wall time to monotonic time; taken once, at the start."""
    end_unix_minus_monotonic_s: float | None = None
    """The same at the end of the trial: other than at the start where the wall clock was set meanwhile."""
    phases: list[PhaseWindow] = Field(default_factory=list)
    load: LoadReport | None = None
    workload: WorkloadReport | None = None
    start_temp_c: float | None = None
    meter_settings: dict[str, JsonValue] = Field(default_factory=dict)
    meters: list[MeterCost] = Field(default_factory=list)
    settings: list[SettingTaken] = Field(default_factory=list)
    steady: SteadyReport | None = None
    temperatures: list[list[TemperatureReading]] = Field(default_factory=list)
    """Of the thermometer: at the start of the trial, and right before and after the measured phase."""
    memory_peak_bytes: int | None = None
    """Most that the process was resident with, since it was started."""
    devices: list[DeviceRecord] = Field(default_factory=list)
    """Each device on its own, where the trial names several."""
    serving: ServingRecord | None = None
    """What an open loop left; None in a closed one."""
    edge: EdgeRecord | None = None
    """What edge control left; None where there was none."""
    reasons: list[SuspectReason] = Field(default_factory=list)
    error: ErrorBody | None = None
    """Why it ended early; what was measured until then is kept."""


def write_whole(path: Path, content: str | bytes | BaseModel) -> None:
    """Replace a file so that a reader, or a kill, sees the old or the new content, never a part.

    Not synced: a power cut may take it, or leave it empty. For what no trial needs that outlives one.
    """
    _replace(path, content, sync=False)


def write_atomic(path: Path, content: str | bytes | BaseModel) -> None:
    """Replace a file so that a reader, a kill or a power cut sees the old or the new content, never a part.

    Temporary name, fsync, rename, fsync of the folder.
    """
    _replace(path, content, sync=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _replace(path: Path, content: str | bytes | BaseModel, *, sync: bool) -> None:
    if isinstance(content, BaseModel):
        content = content.model_dump_json(indent=1)
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        file.write(data)
        if sync:
            file.flush()
            os.fsync(file.fileno())
    temporary.replace(path)
