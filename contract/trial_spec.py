"""What the orchestrator asks for: everything that a trial depends on, and nothing else."""

import re
from datetime import date
from typing import Annotated, Literal, Self

from pydantic import Field, JsonValue, StringConstraints, model_validator

from contract.edge import EdgeSpec
from contract.serving import ServingSpec
from contract.units import Identifier, Scalar, Seconds, WireModel, sha256_of

ClockMhz = Annotated[float, Field(gt=0, allow_inf_nan=False)]

DomainName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:@-]{0,63}$")]
"""Names a device, and part of a file's name: no separators, no leading dot."""

Revision = Annotated[
    str, StringConstraints(max_length=128, pattern=r"^[A-Za-z0-9_][A-Za-z0-9_+=,#-]*([./][A-Za-z0-9_+=,#-]+)*$")
]
"""A commit, branch or tag. The hub's cache keeps a file of this name: no part of it is empty or begins with a dot."""

_HUB_SOURCE = re.compile(r"hf:([A-Za-z0-9_][A-Za-z0-9._-]{0,95}/)?[A-Za-z0-9_][A-Za-z0-9._-]{0,95}")


class ModelSpec(WireModel):
    """Which weights, and how they are addressed on the testbed."""

    name: Identifier
    """Label in tables and figures, such as `llama-3.2-1b-instruct`."""
    source: str
    """Where the testbed finds it: `hf:ORG/NAME`, `path:/FOLDER_OR_FILE` (GGUF or Hugging Face folder),
    `package:NAME` (a GGUF inside an installed Python package), or `fake:NAME`."""
    revision: Revision | None = None
    """Commit of the Hugging Face repository; None means its default branch, and the result says which."""
    max_model_len: int | None = Field(default=None, gt=0)
    """Context length in tokens; None leaves the model's own."""
    chat_template_date: date = date(2024, 7, 26)
    """Given to chat templates that print a date. Pinned, because Llama 3.2's inserts today's: outputs would
    change at midnight."""

    @model_validator(mode="after")
    def _names_a_repository(self) -> Self:
        if self.source.startswith("hf:") and (not _HUB_SOURCE.fullmatch(self.source) or ".." in self.source):
            raise ValueError(f"{self.source[:300]!r} names no repository of the hub: write hf:ORG/NAME")
        return self


class EngineSpec(WireModel):
    """Which inference engine, and its settings."""

    name: Identifier
    """Registry name: `vllm`, `llama_cpp`, `fake`."""
    lifetime: Literal["trial", "block"] = "trial"
    """`trial`: a new process per trial, as in the study. `block`: kept warm over consecutive trials with the
    same model, engine and options."""
    max_concurrency: int | None = Field(default=None, gt=0)
    """Requests in flight that the engine is loaded for; None: the workload's concurrency. Set it to let warm
    trials of different concurrency share one engine under equal conditions."""
    memory_limit_gib: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Memory of a smaller device that is simulated: what the engine may take of the GPU, or of the machine where it
    runs on processors. What does not fit fails with `out_of_memory`, and is not tried again."""
    options: dict[str, JsonValue] = Field(default_factory=dict)
    """Engine's own options; an unknown one is an error."""


class SamplingSpec(WireModel):
    """How tokens are drawn."""

    temperature: float = Field(default=0.0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_tokens: int = Field(default=256, gt=0)
    ignore_eos: bool = False
    """Generate exactly `max_tokens` tokens."""
    exit_layers: tuple[Annotated[int, Field(gt=0)], ...] = ()
    """After how many layers a request's tokens leave the model: request i takes number i, modulo their count. Empty:
    what the engine's own options say. Not part of what is loaded: trials that differ in it may share a warm engine."""

    def exit_layer_of(self, index: int) -> int | None:
        """Layers of one request; None: as the engine's options say.

        Args:
            index: of the request in its workload, from 0.
        """
        return self.exit_layers[index % len(self.exit_layers)] if self.exit_layers else None


class WorkloadSpec(WireModel):
    """Which requests are sent, and how many are in flight."""

    name: Identifier
    """Registry name: `superglue`, `fake`."""
    concurrency: int = Field(default=1, gt=0)
    """Requests in flight at once; 1 is one after the other, as in the study. A closed loop: the next request
    starts when one ends."""
    options: dict[str, JsonValue] = Field(default_factory=dict)
    """Workload's own options, such as `{"task": "BoolQ", "n_items": 80, "item_seed": 0, "template": "short"}`."""


class MeterSpec(WireModel):
    """How energy is measured."""

    name: Identifier = "auto"
    """Registry name (`energibridge`, `rapl`, `nvml`, `jetson`, `estimate`, ...), or `auto`: EnergiBridge where it
    runs, else the native meters found on the machine, else the labelled estimate."""
    period_s: float = Field(default=0.2, gt=0, le=60)
    """Wanted sampling period."""
    options: dict[str, JsonValue] = Field(default_factory=dict)
    """Meter's own options."""
    expected_clock_mhz: dict[str, ClockMhz] = Field(default_factory=dict)
    """Domain -> clock that was set before the trial, by hand or by an actuator, such as `{"gpu:0": 1005}`. Verified
    from the samples of the measured phase, never set."""


class ActuatorSpec(WireModel):
    """A setting of a device that holds for the trial: a clock, a power limit, a fan. Put back afterwards."""

    name: Identifier
    """Registry name: `nvml_clock`, `nvml_power_limit`, `devfreq`, `fan`, `simulated`."""
    domain: DomainName
    """Which device, named as the meters name it: `gpu:0`, `fan:0`."""
    setting: dict[Identifier, float] = Field(min_length=1)
    """Quantity -> wanted value, such as `{"clock_mhz": 1005}`. One that the device does not have is refused, never
    rounded."""


class DeadlineSpec(WireModel):
    """How long things may take before the attempt is TIMED_OUT. None sets no limit of its own: `total_s` holds.

    The baseline needs no limit here: it may take `TrialSpec.baseline_s` and a minute.
    """

    load_s: Seconds = 900.0
    """From the start of the child to the end of LOADING."""
    warmup_s: Seconds | None = 900.0
    """The warm-up."""
    measure_s: Seconds | None = None
    """The measured phase."""
    stall_s: Seconds | None = 900.0
    """In the measured phase, from one finished request to the next: what a hung engine costs. Raise it where one
    request may take longer."""
    collect_s: Seconds = 300.0
    """To write the requests and score the answers, in the child; again for the testbed to compute the energy."""
    total_s: Seconds = 7200.0
    """The whole attempt, up to the end of its process."""


class SteadySpec(WireModel):
    """Work before the measured phase until the device is in a steady state, or for a stated time.

    With a thermometer: the hottest sensor's least-squares slope over the window. Without: the mean power of the
    window's two halves. Without either: `max_s`.
    """

    max_s: Seconds = 300.0
    """The measured phase begins after this long, steady or not; the result says which."""
    window_s: float = Field(default=60.0, gt=0)
    """What is looked at; at least four requests, whatever they take."""
    slope_c_per_min: float = Field(default=0.5, gt=0)
    """Steady when the temperature changes no faster."""
    power_share: float = Field(default=0.03, gt=0, lt=1)
    """Steady when the halves differ by at most this share of their mean."""


MAX_CORE = 4095
"""Highest number of a logical core."""
MAX_NAME = 2048
"""Characters of a device's name."""
MAX_DEVICES = 256

_RANGE = "[0-9]{1,4}(-[0-9]{1,4})?"

DeviceName = Annotated[
    str,
    StringConstraints(
        # A socket of a server whose cores are numbered by turns has a hundred of them.
        max_length=MAX_NAME,
        pattern=rf"^(gpu:(0|[1-9][0-9]{{0,2}})|cores:{_RANGE}(,{_RANGE})*)$",
    ),
]
"""One GPU by its index, as NVML counts and the meters name it (`gpu:0`), or a set of logical cores (`cores:0-1`,
`cores:0,2`)."""


class DeviceSpec(WireModel):
    """One of several devices that a trial runs on at the same time, each with a process and an engine of its own."""

    name: DeviceName
    engine: EngineSpec | None = None
    """Engine of this device, where it is of another kind than the others; None: the trial's. Its `lifetime` counts for
    nothing: the trial's holds for all."""
    model: ModelSpec | None = None
    """Model of this device, such as another file of the same weights; None: the trial's."""

    @model_validator(mode="after")
    def _ranges_rise(self) -> Self:
        for first, last in self.core_ranges:
            if first > last:
                raise ValueError(f"{self.name} holds a range that falls: write cores:FIRST-LAST")
            if last > MAX_CORE:
                raise ValueError(f"{self.name} names core {last}: the last that can be named is {MAX_CORE}")
        return self

    @property
    def gpu_index(self) -> int | None:
        """Index of the GPU; None for a set of cores."""
        kind, _, index = self.name.partition(":")
        return int(index) if kind == "gpu" else None

    @property
    def core_ranges(self) -> tuple[tuple[int, int], ...]:
        """First and last of each range of its logical cores, as its name has them; empty for a GPU."""
        kind, _, text = self.name.partition(":")
        parts = (part.partition("-") for part in text.split(",")) if kind == "cores" else ()
        return tuple((int(first), int(last or first)) for first, _, last in parts)

    @property
    def cores(self) -> tuple[int, ...]:
        """Its logical cores, rising; empty for a GPU."""
        return tuple(sorted({core for first, last in self.core_ranges for core in range(first, last + 1)}))


def _refuse_shared(kind: str, devices: list[DeviceSpec], ranges: list[tuple[int, int, int]]) -> None:
    """See that ranges of different devices are apart: first, last, and the device's place among them.

    By their ends: to look at each core would let a small request keep the testbed busy.
    """
    reach, owner = -1, -1
    for first, last, place in sorted(ranges):
        if first <= reach and place != owner:
            raise ValueError(
                f"devices names {kind} {first} twice ({devices[owner].name}, {devices[place].name}): each may be in "
                "one only"
            )
        if last > reach:
            reach, owner = last, place


class TrialSpec(WireModel):
    """One trial: a treatment, made concrete, with its seed."""

    experiment: Identifier
    """Name of the experiment it belongs to."""
    run_id: Identifier
    """Planned row, `run_{i}_repetition_{j}`, 0-based, as in Experiment Runner."""
    repetition: int = Field(ge=0)
    treatment: dict[str, Scalar]
    """Factor -> level, as in the run table. Informative: the fields below are what is executed."""
    seed: int = Field(ge=0, lt=2**31)
    """Seed of everything random in the trial; differs between repetitions."""
    model: ModelSpec
    engine: EngineSpec
    sampling: SamplingSpec = SamplingSpec()
    workload: WorkloadSpec
    meter: MeterSpec = MeterSpec()
    actuators: list[ActuatorSpec] = Field(default_factory=list)
    """Settings that hold from before the baseline to the end of the measured phase; each device and kind once."""
    devices: list[DeviceSpec] = Field(default_factory=list, max_length=MAX_DEVICES)
    """Devices that run the same requests at the same time, started on a barrier. Empty: one engine, in the trial's own
    process, wherever it runs."""
    baseline_s: Seconds = 0.0
    """Idle time with the model loaded, measured before the warm-up; 0 leaves net energy unmeasured."""
    warmup_requests: int = Field(default=1, ge=0)
    """Requests sent before the measured phase, not counted in anything."""
    steady: SteadySpec | None = None
    """More such requests, of the measured ones' length, until the device is in a steady state; part of the warm-up."""
    deadline: DeadlineSpec = DeadlineSpec()
    serving: ServingSpec | None = None
    """Requests arrive by the clock and a policy decides; the workload has to be one with arrivals. None: a closed
    loop."""
    edge: EdgeSpec | None = None
    """A chooser sets clocks, batch and exit layer of one batch after the other. None: a closed or an open loop."""

    @model_validator(mode="after")
    def _edge_is_possible(self) -> Self:
        edge = self.edge
        if edge is None:
            return self
        if self.devices or self.serving is not None:
            raise ValueError("edge runs on one engine, and is no open loop: leave out devices and serving")
        wanted = [(edge.clock_domain, "clock_mhz")] + ([(edge.fan_domain, "fan_duty")] if edge.fan_domain else [])
        for domain, quantity in wanted:
            n_held = sum(each.domain == domain and quantity in each.setting for each in self.actuators)
            if n_held != 1:
                raise ValueError(
                    f"edge sets {quantity} of {domain!r}, and actuators has {n_held} entries of it: give one, with "
                    "what to start at"
                )
        if edge.fan_off_at is not None and edge.fan_domain is None:
            raise ValueError("edge.fan_off_at stops a fan, and edge.fan_domain names none")
        if edge.fan_off_at is not None and edge.fan_off_at >= edge.n_batches:
            raise ValueError(f"edge.fan_off_at is {edge.fan_off_at}, and there are only {edge.n_batches} batches")
        if not edge.n_batches and not edge.n_evaluations:
            raise ValueError("edge has neither evaluations nor batches: give n_batches")
        if max(edge.space.batches) > self.workload.concurrency:
            raise ValueError(f"edge.space has batches of {max(edge.space.batches)}: raise workload.concurrency to it")
        return self

    @model_validator(mode="after")
    def _serving_is_possible(self) -> Self:
        serving = self.serving
        if serving is None:
            return self
        if self.devices:
            raise ValueError("serving runs on one engine: leave out devices")
        domain = serving.clock_domain
        clocks = [each for each in self.actuators if each.domain == domain and "clock_mhz" in each.setting]
        if domain is not None and len(clocks) != 1:
            raise ValueError(
                f"serving.clock_domain is {domain!r}, and actuators has {len(clocks)} entries of it with clock_mhz: "
                "give one, with the clock to start at"
            )
        return self

    @model_validator(mode="after")
    def _concurrency_fits(self) -> Self:
        wanted = self.workload.concurrency
        for engine in [self.engine, *(each.engine for each in self.devices if each.engine is not None)]:
            if engine.max_concurrency is not None and wanted > engine.max_concurrency:
                raise ValueError(
                    f"workload.concurrency {wanted} exceeds engine.max_concurrency {engine.max_concurrency}"
                )
        return self

    @model_validator(mode="after")
    def _each_is_set_once(self) -> Self:
        pairs = [(each.name, each.domain) for each in self.actuators]
        if len(set(pairs)) < len(pairs):
            raise ValueError("actuators sets one device twice: give each name and domain once")
        return self

    @model_validator(mode="after")
    def _devices_are_apart(self) -> Self:
        placed = list(enumerate(self.devices))
        gpus = [(each.gpu_index, each.gpu_index, place) for place, each in placed if each.gpu_index is not None]
        _refuse_shared("GPU", self.devices, gpus)
        cores = [(*each, place) for place, device in placed for each in device.core_ranges]
        _refuse_shared("core", self.devices, cores)
        return self

    @model_validator(mode="after")
    def _warmup_has_time(self) -> Self:
        limit_s = self.deadline.warmup_s
        if self.steady is not None and limit_s is not None and limit_s <= self.steady.max_s:
            raise ValueError(f"steady.max_s {self.steady.max_s:g} is no less than deadline.warmup_s {limit_s:g}")
        return self

    @property
    def load_concurrency(self) -> int:
        """Requests in flight that the engine is loaded for."""
        return self.engine.max_concurrency or self.workload.concurrency

    def engine_key(self) -> str:
        """Identity of a loaded engine: trials of equal key may share a warm one."""
        key = [self.model.model_dump(mode="json"), self.engine.model_dump(mode="json"), self.load_concurrency]
        return sha256_of([*key, [each.model_dump(mode="json") for each in self.devices]] if self.devices else key)

    def for_device(self, device: DeviceSpec) -> "TrialSpec":
        """The same trial on one of its devices, as that device's own process runs it."""
        changed = {
            **self.model_dump(mode="json", exclude={"devices", "model", "engine"}),
            "model": device.model or self.model,
            "engine": device.engine or self.engine,
        }
        return TrialSpec.model_validate(changed)

    def sha256(self) -> str:
        """Identity of the spec: two attempts with equal hashes asked for the same thing."""
        # Without devices, serving, edge control or exit layers, it is what it was before there were any: campaigns that
        # were begun then can be continued.
        absent: dict[str, bool | set[str]] = {
            name: True for name in ("devices", "serving", "edge") if not getattr(self, name)
        }
        if not self.sampling.exit_layers:
            absent["sampling"] = {"exit_layers"}
        return sha256_of(self.model_dump(mode="json", exclude=absent))
