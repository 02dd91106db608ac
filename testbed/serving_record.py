"""What an open loop leaves for the result: boundaries, switches, decisions. All times are monotonic seconds."""

from pydantic import Field, JsonValue

from contract.units import WireModel


class BatchRecord(WireModel):
    """One batch, served to its end."""

    start_s: float
    end_s: float
    n_requests: int
    n_queued: int
    """Queued when it was chosen, itself included."""
    clock_mhz: float | None
    """That the policy chose; None where no clock was set."""


class SwitchRecord(WireModel):
    """One change of the clock, read-back included."""

    start_s: float
    end_s: float
    from_mhz: float
    to_mhz: float


class ServingRecord(WireModel):
    """What the drive kept; `testbed.serving_result` makes a `ServingReport` of it."""

    policy: str
    policy_settings: dict[str, JsonValue] = Field(default_factory=dict)
    is_simulated: bool = False
    start_s: float
    """From here the arrivals count."""
    end_s: float
    n_arrived: int
    lost_s: list[float] = Field(default_factory=list)
    """True arrival of each request that came to a full queue; monotonic seconds."""
    unfinished_s: list[float] = Field(default_factory=list)
    """The same of those still queued at the end."""
    floor_s: float | None = None
    """Fastest service that the table knows; None without a table."""
    is_given_up: bool = False
    """The policy went on waiting although nothing could arrive any more and the head's deadline had passed."""
    batches: list[BatchRecord] = Field(default_factory=list)
    """Empty where batching was continuous."""
    switches: list[SwitchRecord] = Field(default_factory=list)
    n_decisions: int = 0
    n_waits: int = 0
    decision_s: float = 0.0
    """All decisions together, by the machine's own clock."""
    decision_max_s: float = 0.0
    arrivals: dict[str, JsonValue] = Field(default_factory=dict)
    """How they were drawn: `PreparedWorkload.settings`."""
