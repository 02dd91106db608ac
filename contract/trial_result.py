"""What a testbed answers: states, measurements, and what is needed to repeat them."""

from datetime import datetime
from enum import StrEnum
from typing import Literal

from pydantic import Field, JsonValue

from contract.attempt_state import AttemptState
from contract.errors import ErrorBody
from contract.trial_spec import TrialSpec
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


class NodeIdentity(WireModel):
    """The machine and the software: what is needed to repeat the trial."""

    hostname: str
    os: str
    cpu_model: str
    n_cpus: int
    memory_bytes: int
    gpus: list[str] = Field(default_factory=list)
    """Name and UUID of each."""
    driver_version: str | None = None
    python_version: str
    packages: dict[str, str] = Field(default_factory=dict)
    """Distribution -> version, of those that matter to a result."""
    hardware_sha256: Sha256
    """Hash over processor, memory and GPUs: machines of a class share it."""


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
    node: NodeIdentity
    artifacts: list[ArtifactRef] = Field(default_factory=list)


class AttemptStatus(WireModel):
    """Where an attempt is."""

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


class TemperatureReading(WireModel):
    """One thermal sensor."""

    sensor: str
    temp_c: float


class Capability(WireModel):
    """An implementation behind a seam, and whether it can be used here."""

    seam: Literal["engine", "meter", "workload", "actuator"]
    name: Identifier
    available: bool
    message: str = ""
    """Why not, and the command that mends it; or what it found."""


class NodeInfo(WireModel):
    """A testbed, as it describes itself."""

    protocol_version: int
    software_version: str
    identity: NodeIdentity
    capabilities: list[Capability]
    temperatures: list[TemperatureReading]
    """Now; empty where the machine has no readable sensor."""
    running_attempt_id: Identifier | None = None
    disk_free_bytes: int | None = Field(default=None, ge=0)
    """Where attempts are kept; None where no testbed runs."""
    disk_total_bytes: int | None = Field(default=None, ge=0)


class CheckRequest(WireModel):
    """Trials that an orchestrator is about to plan on this testbed, one per treatment."""

    specs: list[TrialSpec]


class CheckProblem(WireModel):
    """Why one of them could not run."""

    run_id: Identifier
    error: ErrorBody


class CheckReport(WireModel):
    """What stands in the way; empty when all could run."""

    problems: list[CheckProblem]


class TelemetrySample(WireModel):
    """One event of the telemetry stream."""

    attempt_id: Identifier | None = None
    state: AttemptState | None = None
    n_requests_done: int = 0
    n_requests: int = 0
    power_w: dict[str, float] = Field(default_factory=dict)
    """Domain -> mean power of the last sampling interval of the running trial; empty when idle."""
    temperatures: list[TemperatureReading] = Field(default_factory=list)
    at: datetime
