"""What a testbed answers: states, measurements, and what is needed to repeat them."""

from datetime import datetime
from enum import StrEnum
from typing import Literal

from pydantic import ConfigDict, Field, JsonValue

from contract.attempt_state import AttemptState
from contract.edge import EdgeReport
from contract.errors import ErrorBody
from contract.node_info import NodeIdentity
from contract.serving import ServingReport
from contract.trial_spec import DeviceName
from contract.units import Identifier, Joules, Seconds, Sha256, WireModel


class Phase(StrEnum):
    """A part of a trial, cut by marks of the monotonic clock."""

    LOAD = "load"
    BASELINE = "baseline"
    WARMUP = "warmup"
    MEASURE = "measure"


class EnergyMethod(StrEnum):
    """How a figure in joules came about."""

    COUNTER = "counter"
    """Difference of a cumulative hardware counter."""
    SAMPLED = "sampled"
    """Power readings, integrated over time."""
    ESTIMATE = "estimate"
    """Computed from a model, not measured. Never shown without the word."""


class PhaseWindow(WireModel):
    """When a phase began and how long it took."""

    phase: Phase
    start_s: Seconds
    """Since the attempt's monotonic origin."""
    duration_s: Seconds


class EnergyReading(WireModel):
    """Joules of one domain in one phase by one estimator, with its quality."""

    domain: str
    """What was measured: `cpu_package`, `cpu_package:1`, `dram`, `gpu:0`, `cpu_core` (part of the package), `psys`."""
    component: Literal["cpu", "gpu", "dram", "system", "part"]
    """How it adds up: `cpu`, `gpu` and `dram` add to the total, once each; `system` holds them already, `part`
    is held by another domain; the last two are never added."""
    phase: Phase
    energy_j: Joules | None
    """None: not measured, with the reason in `note`."""
    method: EnergyMethod
    source: str
    """Meter that delivered the samples: `energibridge`, `rapl`, `nvml`, `estimate`, ..."""
    period_s: Seconds | None = None
    """Median sampling period inside the phase."""
    n_samples: int = Field(default=0, ge=0)
    n_gaps: int = Field(default=0, ge=0)
    """Intervals longer than three periods."""
    n_wraps: int = Field(default=0, ge=0)
    """Counter wraps that were unwound."""
    uncertainty_j: Joules | None = None
    """Bound from the sampling alone; the sensor's own error is not in it."""
    is_headline: bool = True
    """False for a second estimator of a domain: kept for cross-checks, not added."""
    note: str = ""


class EnergySummary(WireModel):
    """The measured phase in a few numbers."""

    energy_j: Joules | None
    """Gross energy of the measured phase: headline domains, added once each."""
    energy_net_j: Joules | None
    """The same, less mean baseline power x duration; None without a baseline."""
    cpu_energy_j: Joules | None
    gpu_energy_j: Joules | None
    dram_energy_j: Joules | None
    baseline_power_w: float | None
    method: EnergyMethod
    """The weakest among the added domains: one estimate makes the sum an estimate."""
    source: str
    """The meter: several are joined with `+`."""
    domains: list[str]
    """Domains in the sum."""
    prefill_energy_j: Joules | None = None
    """Part of `energy_j` that went into reading prompts, up to each request's first token. None: not known, with the
    reason in `split_note`. Prefill, decode and unassigned add up to `energy_j`."""
    decode_energy_j: Joules | None = None
    """Part that went into the tokens after each request's first one; None as above."""
    unassigned_energy_j: Joules | None = None
    """Part that flowed while no request had a token in flight; None where nothing could be shared out."""
    split_note: str = ""
    """Why there is no split, or how far it is interpolated, in words."""


class TaskScore(WireModel):
    """Accuracy against gold labels."""

    n_items: int = Field(ge=0)
    n_correct: int = Field(ge=0)
    n_abstained: int = Field(ge=0)
    """Answers from which no label could be read; counted as wrong in `accuracy`."""
    accuracy: float | None = Field(default=None, ge=0, le=1)
    """n_correct / n_items; None without items."""
    chance_accuracy: float | None = Field(default=None, ge=0, le=1)
    """Expected accuracy of a guess at random among the task's labels."""
    chance_p_value: float | None = Field(default=None, ge=0, le=1)
    """One-sided exact binomial test of n_correct against chance."""


class WorkloadReport(WireModel):
    """What was asked, and what came back."""

    name: str
    source: str
    """Where the items came from, in words; a sample says that it is one."""
    prompt_sha256: Sha256
    """Hash of all rendered prompts in order: equal hashes mean equal input to the model."""
    n_requests: int = Field(ge=0)
    """Requests that were answered."""
    n_planned: int | None = Field(default=None, ge=0)
    """Requests that the workload prepared; more than `n_requests` where some were not answered."""
    n_prompt_tokens: int = Field(ge=0)
    n_output_tokens: int = Field(ge=0)
    score: TaskScore | None = None
    exit_layer: float | None = None
    """After how many layers a token left the model, mean over all output tokens; None without early exit."""
    entropy_nats: float | None = None
    """Entropy of the distribution that a token was chosen from, mean over all output tokens; None: not computed."""


class LoadReport(WireModel):
    """What the engine loaded."""

    engine: str
    engine_version: str
    model_name: str
    model_source: str
    model_revision: str
    """Commit, or the SHA-256 of the weights file: never empty."""
    max_model_len: int | None = None
    load_s: Seconds
    """0 when the engine was already warm."""
    reused: bool = False
    """Whether a warm engine served this trial (`lifetime: block`)."""
    settings: dict[str, JsonValue] = Field(default_factory=dict)
    """Read back from the engine: threads, dtype, backend, what it really took."""


class SuspectReason(WireModel):
    """Why a result is doubted."""

    code: Identifier
    message: str


class MeterCost(WireModel):
    """What measuring cost: a sampler works on the machine that it measures."""

    name: Identifier
    """Of the meter."""
    cpu_s: Seconds | None
    """CPU seconds of its sampling; None where it cannot be told."""
    window_s: Seconds | None
    """Seconds that it sampled for."""
    cpu_share: float | None = Field(default=None, ge=0)
    """CPU seconds per measured second, `cpu_s / window_s`: 0.01 is 1 % of one core."""


class SettingTaken(WireModel):
    """What a device was set to for the trial: wanted, taken, still so at the end, and put back."""

    actuator: Identifier
    domain: str
    """The device, as the meters name it."""
    wanted: dict[str, float]
    """Quantity -> value of the spec."""
    taken: dict[str, float | None] = Field(default_factory=dict)
    """Read back from the device right after it was set. None: the device does not tell; see `note`."""
    at_end: dict[str, float | None] = Field(default_factory=dict)
    """Read back when the measured phase had ended, before anything was put back; empty where it was not read."""
    original: dict[str, JsonValue] = Field(default_factory=dict)
    """What was found before, and is put back."""
    switch_s: Seconds | None = None
    """How long setting and reading back took; before the baseline, so not in any measured phase."""
    is_restored: bool = False
    """Whether the trial's own process put it back. False where it died: then the testbed, or the watchdog, does."""
    note: str = ""


class SteadyReport(WireModel):
    """How the warm-up until a steady state ended: see `SteadySpec`."""

    is_steady: bool
    """False: the stated time was over first."""
    rule: Literal["temperature", "power", "time"]
    """What was looked at; `time`: there was neither a thermometer nor a meter that tells power meanwhile."""
    waited_s: Seconds
    n_requests: int = Field(ge=0)
    slope_c_per_min: float | None = None
    """Of the last window."""
    power_share: float | None = None
    """Difference of the last window's halves over their mean."""


class DeviceResult(WireModel):
    """What one of several devices did in the measured phase, cut at its own marks. None: not measured."""

    device: DeviceName
    kind: str = ""
    """What it is: the GPU's name, or the processor's with the number of cores."""
    load: LoadReport | None = None
    """What its engine loaded, with the settings that were read back."""
    start_s: Seconds | None = None
    """Of its own window, since the attempt's monotonic origin."""
    duration_s: Seconds | None = None
    late_s: Seconds | None = None
    """How long after the common start instant it began."""
    tail_s: Seconds | None = None
    """How long it idled after its own end, until the last device had ended."""
    n_requests: int = Field(default=0, ge=0)
    """Requests that it answered."""
    n_output_tokens: int = Field(default=0, ge=0)
    tokens_per_s: float | None = None
    """Its output tokens over its own window."""
    score: TaskScore | None = None
    """Of its own answers. `WorkloadReport.score` is that of all, once, where all read the same labels; else None: the
    same items asked twice are not twice the evidence."""
    energy_j: Joules | None = None
    """Gross energy of its own domain in its own window. None: see `energy_note`."""
    energy_net_j: Joules | None = None
    """The same, less its domain's mean baseline power x duration."""
    baseline_power_w: float | None = None
    """Of its domain."""
    tail_energy_j: Joules | None = None
    """Of its domain in its tail; not in `energy_j`, but in the trial's."""
    energy_method: EnergyMethod | None = None
    energy_source: str = ""
    """The meter."""
    energy_note: str = ""
    """Why there is no energy, or what the figure rests on, in words."""
    start_temp_c: float | None = None
    """Of its own sensor when its window began."""
    max_temp_c: float | None = None
    """Highest reading of it in its window."""
    cpu_s: Seconds | None = None
    """CPU seconds of its process in its window."""
    memory_peak_bytes: int | None = Field(default=None, ge=0)
    """Most that its process was resident with, since it was started."""
    gpu_memory_peak_bytes: int | None = Field(default=None, ge=0)
    """Most that was in use of this GPU in its window, by anyone."""
    throttled_share: float | None = Field(default=None, ge=0, le=1)
    """Share of its window's samples in which the driver slowed this GPU down."""
    error: ErrorBody | None = None
    """Why this device failed; None where it did not, or was ended because another one did."""


class Conditions(WireModel):
    """How hot the device became, what memory it took, and whether it was slowed down. None: not measured."""

    max_temp_c: float | None = None
    """Highest reading of the measured phase, of the thermometer and of the meters' gauges."""
    max_temp_sensor: str = ""
    temp_rise_c: float | None = None
    """The same sensor's highest reading less that at the start of the trial."""
    memory_peak_bytes: int | None = Field(default=None, ge=0)
    """Most that the trial's process held at once since it was started, in the machine's memory (resident)."""
    gpu_memory_peak_bytes: int | None = Field(default=None, ge=0)
    """Most that was in use of a GPU during the measured phase, by anyone; the fullest one."""
    system_memory_peak_bytes: int | None = Field(default=None, ge=0)
    """Most that was in use of the machine's memory during the measured phase; of a Jetson, the GPU's too."""
    throttled_share: float | None = Field(default=None, ge=0, le=1)
    """Share of the measured phase's samples in which the driver slowed a device down; the worst one."""


class ArtifactRef(WireModel):
    """A file that belongs to the attempt."""

    name: Identifier
    size_bytes: int = Field(ge=0)
    sha256: Sha256


class TrialResult(WireModel):
    """The outcome of an attempt that ended with measurements, or with an error."""

    protocol_version: int
    attempt_id: Identifier
    run_id: Identifier
    spec_sha256: Sha256
    state: AttemptState
    """SUCCEEDED, SUSPECT, FAILED, CANCELLED or TIMED_OUT."""
    reasons: list[SuspectReason] = Field(default_factory=list)
    error: ErrorBody | None = None
    started_at: datetime
    """UTC, for labels only."""
    finished_at: datetime
    start_temp_c: float | None = None
    """Hottest of the cooldown's sensors when the trial began; None without a sensor."""
    phases: list[PhaseWindow] = Field(default_factory=list)
    energy: list[EnergyReading] = Field(default_factory=list)
    summary: EnergySummary | None = None
    duration_s: Seconds | None = None
    """Length of the measured phase."""
    tokens_per_s: float | None = None
    """Output tokens over the measured phase."""
    workload: WorkloadReport | None = None
    load: LoadReport | None = None
    meters: list[MeterCost] = Field(default_factory=list)
    """What each meter cost."""
    settings: list[SettingTaken] = Field(default_factory=list)
    """What each actuator did; empty where none was asked for."""
    steady: SteadyReport | None = None
    """None where no steady state was asked for."""
    conditions: Conditions | None = None
    """None where the trial did not come to its measured phase."""
    devices: list[DeviceResult] = Field(default_factory=list)
    """Each device on its own, where the trial named several; `energy`, `summary` and the like are of the whole."""
    serving: ServingReport | None = None
    """What came of an open loop; None where the trial was a closed one."""
    edge: EdgeReport | None = None
    """What came of edge control; None where the trial was none."""
    node: NodeIdentity
    artifacts: list[ArtifactRef] = Field(default_factory=list)


class AttemptStatus(WireModel):
    """Where an attempt is."""

    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")

    attempt_id: Identifier
    run_id: Identifier
    spec_sha256: Sha256
    state: AttemptState
    version: int = Field(ge=0)
    """Rises with every change; a long poll returns when it exceeds the one that was given."""
    n_requests_done: int = Field(default=0, ge=0)
    """In the current phase."""
    n_requests: int = Field(default=0, ge=0)
    """In the current phase; 0 when not known."""
    error: ErrorBody | None = None
    updated_at: datetime
    result: TrialResult | None = None
    """Of an attempt that is over, where it was asked to be brought along; it saves a request."""
    contents: dict[Identifier, bytes] = Field(default_factory=dict)
    """Beside the result: name -> bytes of its small artifacts, `MAX_BROUGHT_BYTES` at most; it saves another. In
    base64."""
