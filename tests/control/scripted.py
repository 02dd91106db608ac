"""Small cases, and policies that a test writes down itself."""

from collections.abc import Callable, Mapping

import numpy as np

from control.serving_case import ServingCase
from testbed.policies.base import Decision, Observation, Setting, Wait
from testbed.simulation.arrivals import ArrivalSpec
from testbed.simulation.service_table import ServiceTable


def small_table(n_clocks: int = 3, max_batch: int = 4, *, latency_s: float = 2.0) -> ServiceTable:
    """Faster and hungrier with the clock, slower with the batch."""
    clocks, batches = np.linspace(600.0, 1200.0, n_clocks), np.arange(1, max_batch + 1)
    return ServiceTable(
        clock_mhz=clocks,
        batch_sizes=batches,
        latency_s=latency_s * (1200 / clocks)[:, None] * (1 + 0.1 * (batches - 1))[None, :],
        power_w=(clocks / 6)[:, None] + 3.0 * batches[None, :],
        source="small",
    )


def small_case(rate_per_s: float = 0.8, **changes: object) -> ServingCase:
    given: dict[str, object] = {
        "table": small_table(),
        "slo_s": 6.0,
        "arrivals": ArrivalSpec(rate_per_s=rate_per_s),
        "duration_s": 200.0,
    }
    return ServingCase(**(given | changes))  # type: ignore[arg-type]


class Scripted:
    """A policy that is a function; keeps what it was shown."""

    name = "scripted"

    def __init__(self, choose: Callable[[Observation], Decision | Wait]) -> None:
        self._choose = choose
        self.seen: list[Observation] = []

    def decide(self, observation: Observation) -> Decision | Wait:
        self.seen.append(observation)
        return self._choose(observation)

    def reset(self) -> None:
        self.seen.clear()

    def settings(self) -> Mapping[str, Setting]:
        return {}


def always(clock_mhz: float, max_batch: int) -> Scripted:
    return Scripted(lambda _: Decision(clock_mhz, max_batch))


def deadline_rule(case: ServingCase) -> Scripted:
    """The slowest clock that meets the head's deadline, serving all; else the fastest."""
    table = case.table
    clocks = table.clock_mhz.tolist()

    def choose(observation: Observation) -> Decision:
        n_served = min(observation.n_queued, case.batch_limit)
        for row, clock in enumerate(clocks):
            switch_s = case.switch_s if clock != observation.clock_mhz else 0.0
            if observation.head_wait_s + switch_s + table.latency_s[row, n_served - 1] <= case.slo_s:
                return Decision(clock, n_served)
        return Decision(clocks[-1], n_served)

    return Scripted(choose)
