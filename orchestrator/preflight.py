"""Asks the testbed whether it could run the plan, before anything is written."""

from collections.abc import Iterable
from dataclasses import replace

from contract.errors import UsageError
from contract.node_info import Capability, NodeInfo
from contract.trial_spec import TrialSpec
from contract.units import canonical_json
from orchestrator.clients.base import TestbedClient
from orchestrator.store.base import Plan, PlannedRun

_SHOWN = 5


def preflight(client: TestbedClient, plan: Plan) -> NodeInfo:
    """Check version, token, names, and each treatment's trial once.

    Args:
        client: of the testbed.
        plan: what is to run there.

    Returns:
        The testbed's description.

    Raises:
        UsageError: it could not run some of it; names what and why.
        JouleBedError: see `TestbedClient`.
    """
    info = client.node()
    specs = one_per_treatment(plan)
    _check_names(info.capabilities, specs)
    problems = client.check(specs)
    if problems:
        by_run = {spec.run_id: spec for spec in specs}
        told: dict[str, str] = {}
        for problem in problems:
            spec = by_run.get(problem.run_id)
            where = ", ".join(f"{name}={level}" for name, level in spec.treatment.items()) if spec else problem.run_id
            told.setdefault(problem.error.message, where)
        lines = [f"  {where}: {message}" for message, where in list(told.items())[:_SHOWN]]
        if len(told) > _SHOWN:
            lines.append(f"  and {len(told) - _SHOWN} more")
        raise UsageError(
            f"The testbed {info.identity.hostname} cannot run {len(problems)} of {len(specs)} treatments; nothing was "
            "written.\n" + "\n".join(lines)
        )
    return info


def one_per_treatment(plan: Plan) -> list[TrialSpec]:
    """The spec of the first run of each treatment, in order."""
    return [run.spec for run in outline(plan).runs]


def outline(plan: Plan) -> Plan:
    """The plan with the first run of each treatment alone: all that a testbed is asked about.

    Of 100,000 runs it takes a second, which a thousand testbeds should not take each.
    """
    first: dict[str, PlannedRun] = {}
    for run in plan.runs:
        # As text, since 1 and True are equal as levels of a dictionary's key.
        first.setdefault(canonical_json(run.treatment), run)
    return replace(plan, runs=tuple(first.values()))


def _check_names(capabilities: Iterable[Capability], specs: Iterable[TrialSpec]) -> None:
    found: dict[tuple[str, str], Capability] = {(each.seam, each.name): each for each in capabilities}
    wanted: dict[tuple[str, str], None] = {}
    for spec in specs:
        for engine in [spec.engine, *(device.engine for device in spec.devices if device.engine is not None)]:
            wanted[("engine", engine.name)] = None
        wanted[("workload", spec.workload.name)] = None
        if spec.meter.name != "auto":
            wanted[("meter", spec.meter.name)] = None
    problems = []
    for seam, name in wanted:
        capability = found.get((seam, name))
        if capability is None:
            known = ", ".join(sorted(other for kind, other in found if kind == seam))
            problems.append(f"  There is no {seam} {name!r} there. Choose one of: {known or 'none'}.")
        elif not capability.available:
            problems.append(f"  The {seam} {name!r} cannot be used there: {capability.message}")
    if problems:
        raise UsageError("The testbed cannot run this plan; nothing was written.\n" + "\n".join(problems))
