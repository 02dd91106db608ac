"""Policies that come in a file, built as the registry builds all others."""

from pathlib import Path
from typing import Any

from contract.errors import InvalidOptionError
from testbed.options import PartOptions, parse_options
from testbed.policies.learned_policy import LearnedPolicy, PolicyNetwork
from testbed.policies.planned_policy import PlannedPolicy
from testbed.policies.table_policy import as_table
from testbed.simulation.service_table import ServiceTable


class NoOptions(PartOptions):
    """There is nothing to set: it is all in the file."""


def build_planned(table: ServiceTable | Path | str, slo_s: float, path: Path | str, **options: Any) -> PlannedPolicy:
    """The policy of a planner's file.

    Args:
        table: of the device, or the path of its file.
        slo_s: objective, seconds; the plan's own.
        path: of the planner's file.
        **options: none are known.

    Raises:
        InvalidOptionError: an option, a file that is no plan, another table, or another objective.
    """
    parse_options("policy", PlannedPolicy.name, NoOptions, options)
    policy = PlannedPolicy.load(Path(path), as_table(table))
    if policy.plan.slo_s != slo_s:
        raise InvalidOptionError(
            f"Policy 'planned': {Path(path).name} was planned for an SLO of {policy.plan.slo_s:g} s, not {slo_s:g} s. "
            "Plan again."
        )
    return policy


def build_learned(table: ServiceTable | Path | str, slo_s: float, path: Path | str, **options: Any) -> LearnedPolicy:
    """The policy of a learner's file.

    Args:
        table: of the device, or the path of its file.
        slo_s: objective, seconds; that of the run: the policy keeps to the one that it was trained for.
        path: of the learner's file.
        **options: none are known.

    Raises:
        InvalidOptionError: an option, a file that is no learned policy, or a table that lacks its clocks.
    """
    parse_options("policy", LearnedPolicy.name, NoOptions, options)
    return LearnedPolicy(PolicyNetwork.load(Path(path)), as_table(table))
