"""What edge control leaves for the result: every batch, every update, what choosing took. Times: monotonic seconds."""

from pydantic import Field, JsonValue

from contract.edge import EdgeSetting
from contract.units import WireModel


class EdgeBatch(WireModel):
    """One batch, evaluated or served."""

    is_evaluation: bool
    setting: EdgeSetting
    start_s: float
    decode_s: float
    """When the decode began."""
    end_s: float
    n_tokens: int
    """Prompt and output."""
    energy_j: float | None
    """As the reward had it: what the engine knows, or watts told meanwhile x seconds. The result's is of the traces."""
    temp_c: float | None
    """At its end; None without a thermometer."""
    is_fan_on: bool
    """As read back before it."""
    reward: float | None
    """None where energy or temperature is not known."""


class EdgeUpdate(WireModel):
    """One update of a learner, with the evaluations that it was of."""

    n_evaluations: int
    """So far."""
    reward_mean: float
    """Of the group."""
    reward_best: float
    """Of all so far."""
    sampling_s: float
    update_s: float


class EdgeRecord(WireModel):
    """What the drive kept; `testbed.edge_control.result` makes an `EdgeReport` of it."""

    chooser: str
    chooser_settings: dict[str, JsonValue] = Field(default_factory=dict)
    is_simulated: bool = False
    fan_off_at: int | None = None
    """Index into `batches`."""
    temp_limit_c: float
    start_s: float
    end_s: float
    batches: list[EdgeBatch] = Field(default_factory=list)
    updates: list[EdgeUpdate] = Field(default_factory=list)
    recommended: EdgeSetting | None = None
    expected_reward: float | None = None
    best_reward: float | None = None
    n_selections: int = 0
    selection_s: float = 0.0
    """All selections together, by the machine's own clock, as all times of choosing."""
    selection_max_s: float = 0.0
    n_clock_switches: int = 0
    clock_switch_s: float = 0.0
    """All together."""
