"""A policy that was planned: semi-Markov value iteration over queue and waits, from its file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Self

from contract.errors import InvalidOptionError
from testbed.policies.base import Decision, Observation, Setting, Wait
from testbed.policies.plan import Plan
from testbed.simulation.service_table import ServiceTable


class PlannedPolicy:
    """The plan's action. It is the reference for what can be had where arrivals are Poisson and the table is true.

    Scheduling a batch server by a semi-Markov decision process is classical (Deb and Serfozo, 1973), and has been done
    for GPU inference (Xu et al., SMDP-based dynamic batching, 2023). Simplified: see `control.plan_model`.

    Args:
        plan: from its file.
        table: of the device that it is to steer.

    Raises:
        InvalidOptionError: another table than the plan's.
    """

    name = "planned"

    def __init__(self, plan: Plan, table: ServiceTable) -> None:
        plan.check_table(table)
        plan.make_ready()
        self.plan = plan

    @classmethod
    def load(cls, path: Path, table: ServiceTable) -> Self:
        """From the planner's file.

        Raises:
            InvalidOptionError: it cannot be read, is no plan, or is for another table.
        """
        return cls(Plan.load(path), table)

    def decide(self, observation: Observation) -> Decision | Wait:
        """See `Policy`."""
        if not observation.waits_s:
            raise InvalidOptionError("Policy 'planned' was asked with an empty queue; there is nothing to serve.")
        return self.plan.action_set.choice(self.plan.action(observation))

    def reset(self) -> None:
        """See `Policy`. Nothing is kept between decisions."""

    def settings(self) -> Mapping[str, Setting]:
        """See `Policy`."""
        plan = self.plan
        return {
            "table_sha256": plan.table_sha256,
            "slo_s": plan.slo_s,
            "rate_per_s": plan.rate_per_s,
            "price_j": plan.price_j,
            "looks_ahead": plan.looks_ahead,
            "slo_share": plan.about.get("slo_share"),
            "seed": plan.about.get("seed"),
        }
