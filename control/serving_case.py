"""A serving problem: which device, which requests, which objective. The simulations and the planner start from it."""

import math
from dataclasses import asdict, dataclass, fields
from typing import Any

from contract.errors import ConfigError
from testbed.simulation.arrivals import ArrivalSpec
from testbed.simulation.service_table import ServiceTable


class ServingCaseError(ConfigError):
    """A serving case is wrong; the message names the argument."""

    code = "serving_case"


@dataclass(frozen=True, eq=False)
class ServingCase:
    """Everything that an outcome depends on, but for the policy and the seed.

    Attributes:
        table: latency and power of the device.
        slo_s: a request is met where it is finished at most this long after its arrival.
        arrivals: how requests come.
        duration_s: no arrival at or after this.
        switch_s: a change of the clock comes first, for so long nothing is served.
        switch_energy_j: of one change; None: idle power times `switch_s`.
        idle_power_w: drawn while nothing is served: queue empty, or waiting. The reference figures have 0.
        queue_limit: requests that may be queued, those in service apart. One that arrives at a full queue is lost.
        wait_s: what the environment's waiting action lets pass; None: waiting is not allowed, to no policy.
        max_batch: largest batch; None: the table's.
        drain: serve what is queued after the last arrival. Otherwise all ends at the first boundary at or after
            `duration_s`, and what is queued then is unfinished.

    Raises:
        ServingCaseError: an argument is out of range.
    """

    table: ServiceTable
    slo_s: float
    arrivals: ArrivalSpec
    duration_s: float = 3600.0
    switch_s: float = 0.05
    switch_energy_j: float | None = None
    idle_power_w: float = 0.0
    queue_limit: int = 100
    wait_s: float | None = 1.0
    max_batch: int | None = None
    drain: bool = True

    def __post_init__(self) -> None:
        for name, unit in (("slo_s", "seconds"), ("duration_s", "seconds"), ("wait_s", "seconds")):
            value = getattr(self, name)
            if not (name == "wait_s" and value is None) and not (math.isfinite(value) and value > 0):
                raise ServingCaseError(f"{name} is {value}; give {unit} above 0.")
        for name, unit in (("switch_s", "seconds"), ("switch_energy_j", "joules"), ("idle_power_w", "watts")):
            value = getattr(self, name)
            if not (name == "switch_energy_j" and value is None) and not (math.isfinite(value) and value >= 0):
                raise ServingCaseError(f"{name} is {value}; give {unit}, 0 or above.")
        if self.wait_s is not None and self.wait_s < MIN_WAIT_S:
            raise ServingCaseError(f"wait_s is {self.wait_s}; give {MIN_WAIT_S} s or above, or None: no waiting.")
        if self.queue_limit < 1:
            raise ServingCaseError(f"queue_limit is {self.queue_limit}; give 1 or above.")
        if self.max_batch is not None and not 1 <= self.max_batch <= self.table.max_batch:
            raise ServingCaseError(
                f"max_batch is {self.max_batch}; {self.table.source} has batches of 1 to {self.table.max_batch}."
            )

    @property
    def batch_limit(self) -> int:
        """The largest batch that may be served."""
        return self.table.max_batch if self.max_batch is None else self.max_batch

    @property
    def joules_per_switch(self) -> float:
        """Energy of one change of the clock."""
        return self.idle_power_w * self.switch_s if self.switch_energy_j is None else self.switch_energy_j

    @property
    def floor_latency_s(self) -> float:
        """The fastest batch of the table: no request is finished sooner after its arrival."""
        return float(self.table.latency_s[:, : self.batch_limit].min())

    def settings(self) -> dict[str, Any]:
        """Everything that makes it up, as JSON holds it; the table by its hash."""
        told = {each.name: getattr(self, each.name) for each in fields(self) if each.name not in ("table", "arrivals")}
        return {
            "table": self.table.source,
            "table_sha256": self.table.sha256,
            "arrivals": asdict(self.arrivals),
            **told,
        }


MIN_WAIT_S = 1e-3
"""A policy that waits less than this at a time would never come to an end."""
