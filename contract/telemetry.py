"""What a testbed tells of the trial that it runs, while it runs."""

from datetime import datetime

from pydantic import Field

from contract.attempt_state import AttemptState
from contract.node_info import TemperatureReading
from contract.units import Identifier, WireModel


class TelemetryMark(WireModel):
    """When an attempt came into a state: where a phase's band begins."""

    state: AttemptState
    at_s: float
    """Monotonic seconds of the testbed, as all times of the stream but `at`."""


class TelemetrySeries(WireModel):
    """Points of one quantity of one domain, as the running trial's own sampling took them."""

    domain: str
    """As in `EnergyReading.domain`; a thermal zone that belongs to none has its own name."""
    quantity: Identifier
    """Names the unit: `power_w`, `temp_c`, `clock_mhz`, `utilisation` (0 to 1), `memory_used_bytes`, ..."""
    source: str
    """The meter."""
    time_s: list[float]
    """Increasing. Of `power_w` from a counter: the end of the interval that the mean is of."""
    values: list[float]
    """As many."""


class TelemetrySample(WireModel):
    """One event of the telemetry stream."""

    event_id: str = ""
    """Where the stream stands after this event: sent back as `Last-Event-ID`, it continues there."""
    attempt_id: Identifier | None = None
    run_id: Identifier | None = None
    state: AttemptState | None = None
    n_requests_done: int = 0
    n_requests: int = 0
    power_w: dict[str, float] = Field(default_factory=dict)
    """Domain -> the newest power of the running trial; empty when idle, or not known."""
    temperatures: list[TemperatureReading] = Field(default_factory=list)
    """Now; of a running trial, what its own sampling read last."""
    marks: list[TelemetryMark] = Field(default_factory=list)
    """The states that the attempt has come through so far, in order; all of them in every event."""
    series: list[TelemetrySeries] = Field(default_factory=list)
    """Points since the last event; in the first one, and with `is_restart`, the recent past of the attempt."""
    is_restart: bool = False
    """Forget the points of this attempt that came before: those that are still known are here again."""
    at_s: float = 0.0
    """The testbed's monotonic clock at `at`: maps times to the clock on the wall."""
    at: datetime
