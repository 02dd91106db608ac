"""Edge control: batch after batch, each at a prefill clock, decode clock, batch size and exit layer; what came of it.

| word | meaning |
|---|---|
| setting | a prefill clock, a decode clock, a batch size, an exit layer |
| evaluation | one batch at a setting that a chooser wants to know the reward of |
| choice | the setting of a batch that is served for its own sake |
| violation | the board is above the temperature limit at the end of a batch |
"""

from pydantic import Field, JsonValue

from contract.serving import FileName
from contract.units import Identifier, Joules, Seconds, Sha256, WireModel


class ChooserSpec(WireModel):
    """Who chooses, and its settings."""

    name: Identifier
    """Registry name: `fixed`, `best_fixed`, `governor`, `random`, `tpe`, `grpo`, `learned`."""
    options: dict[str, JsonValue] = Field(default_factory=dict)
    """Chooser's own options; an unknown one is an error."""
    file: FileName | None = None
    """Checkpoint of a learned chooser, in the testbed's folder `policies`."""
    file_sha256: Sha256 | None = None
    """Refused where the file has another hash; None: whichever it has, and the result says which."""


class EdgeSpace(WireModel):
    """What may be chosen: every combination. Bins are places in `clocks_mhz`, from 0."""

    clocks_mhz: list[float] = Field(min_length=1)
    """The device's clocks, rising."""
    prefill_bins: list[int] = Field(min_length=1)
    decode_bins: list[int] = Field(min_length=1)
    batches: list[int] = Field(min_length=1)
    exit_layers: list[int] = Field(min_length=1)
    """Layers that are run of each token; the largest is the whole model."""


class RewardScaleSpec(WireModel):
    """Between which values throughput and EDP efficiency are worth 0 and 1."""

    throughput_per_s: tuple[float, float]
    """Prompt and output tokens per second, least and most."""
    edp_per_js: tuple[float, float]
    """1 / (joules x seconds), least and most."""


class EdgeSpec(WireModel):
    """Edge control in place of the closed loop: a chooser seeks a setting, then it serves batches.

    `WorkloadSpec.concurrency` is the largest batch. The workload's items are taken in turn, as often as needed.
    """

    chooser: ChooserSpec
    space: EdgeSpace
    n_evaluations: int = Field(default=0, ge=0)
    """Batches that the chooser may use to seek; those that seek nothing use none. The fan runs meanwhile."""
    n_batches: int = Field(default=100, ge=0)
    """Batches after that, each at the chooser's choice for the state of the board."""
    fan_off_at: int | None = Field(default=None, ge=0)
    """Of these, the first without the fan; None: it runs on."""
    clock_domain: str = "gpu:0"
    """Device whose clock is set for each phase: one of `TrialSpec.actuators`, whose setting is the start."""
    fan_domain: str | None = None
    """Fan that stops: one of `TrialSpec.actuators`. None: there is none to stop, and nothing is known of it."""
    power_domains: list[str] = Field(default_factory=list)
    """Domains of the meters whose watts add up to the board's, for the rewards of a real device; empty: the largest
    that is told, as a rail of the whole module holds the others."""
    seed: int | None = Field(default=None, ge=0)
    """Of the chooser, and of a simulated board's noise; None: the trial's. Give it where choosers are to meet the same
    noise."""
    limits: dict[Identifier, float] = Field(default_factory=dict)
    """Of the reward, by name: `temp_c`, `latency_s`, ...; those that are not there are the testbed's own."""
    weights: dict[Identifier, float] = Field(default_factory=dict)
    """The same of its weights."""
    scale: RewardScaleSpec | None = None
    """None: what a simulated board itself can reach; a real one cannot know that."""


class EdgeSetting(WireModel):
    """One setting."""

    prefill_bin: int
    decode_bin: int
    batch: int
    exit_layer: int


class EdgeStage(WireModel):
    """Some of the batches, summed up. None: not measured."""

    n_batches: int = Field(ge=0)
    n_tokens: int = Field(ge=0)
    """Prompt and output."""
    duration_s: Seconds
    """Gaps between batches included."""
    throughput_per_s: float
    """Tokens over that time."""
    energy_j: Joules | None = None
    """While batches were served."""
    energy_per_token_j: Joules | None = None
    reward_mean: float | None = None
    hottest_c: float | None = None
    """At the end of a batch."""
    violation_s: Seconds = 0.0
    """Time above the temperature limit; a batch that ends above it counts whole."""
    longest_violation_s: Seconds = 0.0
    """Without a break."""
    slowest_s: Seconds
    """Longest latency of a batch."""


class EdgeOverhead(WireModel):
    """What choosing cost, by the machine's own clock, against inference."""

    n_selections: int = Field(default=0, ge=0)
    """Choices of a setting to serve with."""
    selection_s: Seconds = 0.0
    selection_max_s: Seconds = 0.0
    """The slowest; the mean is `selection_s / n_selections`."""
    n_samplings: int = Field(default=0, ge=0)
    """Groups of settings that were drawn to be evaluated."""
    sampling_s: Seconds = 0.0
    n_updates: int = Field(default=0, ge=0)
    """Times that the chooser learned from evaluations."""
    update_s: Seconds = 0.0
    update_max_s: Seconds = 0.0
    inference_s: Seconds = 0.0
    """While batches were served; simulated seconds where the board is simulated."""
    time_share: float | None = Field(default=None, ge=0)
    """Selection, sampling and updates over the whole measured phase."""
    energy_j: Joules | None = None
    """Of selection, sampling and updates: an estimate, see `note`."""
    inference_energy_j: Joules | None = None
    energy_share: float | None = Field(default=None, ge=0)
    """`energy_j` / `inference_energy_j`."""
    note: str = ""
    """How the energy was estimated, in words."""


class EdgeReport(WireModel):
    """What came of edge control."""

    chooser: Identifier
    chooser_settings: dict[str, JsonValue] = Field(default_factory=dict)
    is_simulated: bool = False
    """Times, powers and temperatures come from a model and not from a device."""
    n_evaluations: int = Field(default=0, ge=0)
    """That the chooser used."""
    recommended: EdgeSetting | None = None
    """What seeking ended with; None: nothing was sought."""
    fan_off_at: int | None = None
    search: EdgeStage | None = None
    """Evaluations."""
    fan_on: EdgeStage | None = None
    """Batches served while the fan ran."""
    fan_off: EdgeStage | None = None
    """Batches served without it."""
    late: EdgeStage | None = None
    """The last third of these, when the board is as warm as it gets."""
    temp_limit_c: float
    expected_reward: float | None = None
    """Of `recommended`, held for good, by a simulated board's own model without noise; a real one cannot tell."""
    best_reward: float | None = None
    """The same of the best of all settings."""
    regret: float | None = None
    """1 - expected_reward / best_reward."""
    n_clock_switches: int = Field(default=0, ge=0)
    clock_switch_mean_s: Seconds | None = None
    """Setting a clock and reading it back."""
    overhead: EdgeOverhead = EdgeOverhead()
    energy_note: str = ""
    """Why there is no energy, or what it rests on, in words."""
