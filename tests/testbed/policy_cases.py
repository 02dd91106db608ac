"""One of every registered policy over a small table, for the suites."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from testbed.policies.actions import ActionSet
from testbed.policies.base import Policy
from testbed.policies.features import N_FEATURES, FeatureSpec
from testbed.policies.learned_policy import PolicyNetwork
from testbed.policies.plan import Plan
from testbed.policies.registry import POLICIES
from testbed.simulation.service_table import ServiceTable

SLO_S = 6.0
WAIT_S = 0.5


def small_table(max_batch: int = 6) -> ServiceTable:
    """Faster and hungrier with the clock, slower with the batch; 700 tokens a request."""
    clocks, batches = np.array([600.0, 900.0, 1200.0]), np.arange(1, max_batch + 1)
    return ServiceTable(
        clock_mhz=clocks,
        batch_sizes=batches,
        latency_s=2.0 * (1200 / clocks)[:, None] * (1 + 0.1 * (batches - 1))[None, :],
        power_w=(clocks**2 / 6000)[:, None] + 3.0 * batches[None, :],
        source="small",
        n_input_tokens=500,
        n_output_tokens=200,
    )


def small_plan(table: ServiceTable, **changes: Any) -> Plan:
    """A plan that no planner made: short waits wait, others are served at a clock that rises with the wait."""
    actions = ActionSet(tuple(table.clock_mhz.tolist()), (table.max_batch,), WAIT_S)
    n_rows, n_columns = 8, 16
    by_wait = np.minimum(np.arange(n_columns) // 5, 2)
    grid = np.broadcast_to(by_wait, (3, n_rows, n_columns)).astype(np.int16)
    grid[:, :2, :4] = len(actions) - 1
    latency = np.ascontiguousarray(table.latency_s.T)
    value = table.energy_j.T + 20 * latency
    plan = Plan(
        action_set=actions,
        table_sha256=table.sha256,
        slo_s=SLO_S,
        rate_per_s=0.7,
        switch_s=0.05,
        switch_energy_j=0.0,
        idle_power_w=0.0,
        price_j=300.0,
        gain_w=60.0,
        step_s=0.5,
        grid_actions=grid,
        serve_value_j=np.stack([value, value + 1.0]),
        latency_s=latency,
        longer_value_j=np.full((3, 2, n_columns), 900.0, np.float32),
        part_energy_j=np.zeros((0, 3)),
        about={"table": table.source, "slo_share": 0.9, "seed": 3},
    )
    return replace(plan, **changes)


def small_network(table: ServiceTable) -> PolicyNetwork:
    """Weights that mean nothing, the same each time."""
    actions = ActionSet(tuple(table.clock_mhz.tolist()), (1, 2, table.max_batch), WAIT_S)
    source = np.random.default_rng(4)
    weight = source.normal(size=(len(actions), N_FEATURES)).astype(np.float32)
    bias = np.zeros(len(actions), np.float32)
    return PolicyNetwork(((weight, bias),), actions, FeatureSpec.of(table, SLO_S, 20), table.sha256)


@dataclass(frozen=True)
class PolicyCase:
    """How to build one.

    Attributes:
        name: of the registry.
        options: that it needs.
        file: writes the file that it needs; None: none.
    """

    name: str
    options: dict[str, Any]
    file: Callable[[ServiceTable, Path], None] | None = None

    def build(self, table: ServiceTable, folder: Path, **options: Any) -> Policy:
        """Through the registry, as a trial does."""
        own: dict[str, Any] = {"table": table, "slo_s": SLO_S}
        if self.file is not None:
            own["path"] = folder / f"{self.name}.safetensors"
            self.file(table, own["path"])
        return POLICIES.create_from_spec(self.name, self.options | options, **own)


CASES = {
    "static_high": PolicyCase("static_high", {}),
    "fixed_clock": PolicyCase("fixed_clock", {"clock_mhz": 900.0}),
    "fixed_batch": PolicyCase("fixed_batch", {"batch": 3}),
    "dvfs_only": PolicyCase("dvfs_only", {}),
    "batch_only": PolicyCase("batch_only", {"clock_mhz": 900.0}),
    "reactive": PolicyCase("reactive", {}),
    "token_aware": PolicyCase("token_aware", {"token_budget": 2500}),
    "dynamo_like": PolicyCase("dynamo_like", {"input_edges": [100, 400]}),
    "deadline": PolicyCase("deadline", {}),
    "deadline_energy": PolicyCase("deadline_energy", {"max_batch": 4}),
    "capped_batch": PolicyCase("capped_batch", {"max_batch": 4}),
    "planned": PolicyCase("planned", {}, lambda table, path: small_plan(table).save(path)),
    "planned_by_grid": PolicyCase("planned", {}, lambda table, path: small_plan(table, looks_ahead=False).save(path)),
    "learned": PolicyCase("learned", {}, lambda table, path: small_network(table).save(path)),
}
