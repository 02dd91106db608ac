"""Where a rebuilt run table's plan comes from."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from contract.errors import ConfigError
from contract.trial_spec import TrialSpec
from orchestrator.plan_file import PLAN, PlanFileError, read_plan
from orchestrator.store.base import Plan, PlannedRun
from orchestrator.store.salvage import Row, Salvaged, from_json


@dataclass(frozen=True)
class PlanSource:
    """A plan that was found.

    Attributes:
        plan: the plan.
        specs: run id -> how its spec was identified when the plan was made.
        created_at: when the experiment was begun; None where nothing tells.
        notes: what there is to say about it.
    """

    plan: Plan
    specs: dict[str, str]
    created_at: datetime | None = None
    notes: tuple[str, ...] = ()


def find_plan(folder: Path, planned: Plan | None, salvaged: Salvaged) -> PlanSource:
    """The plan: of the plan's file, of the configuration, or of the broken table itself.

    Args:
        folder: the experiment's.
        planned: by the configuration, if one was given.
        salvaged: from the broken table.

    Raises:
        ConfigError: it is in none of them, or the configuration has another one.
    """
    try:
        kept = read_plan(folder)
    except PlanFileError:
        kept, is_damaged = None, True
    else:
        is_damaged = False
    created_at = _created_at(salvaged)
    if kept is not None:
        if planned is not None and planned.sha256 != kept.plan.sha256:
            raise ConfigError(
                f"The configuration has another plan than the experiment in {folder}. Give the folder in its place: "
                f"orchestrator repair {folder}"
            )
        return PlanSource(kept.plan, kept.spec_sha256, created_at)
    if planned is not None:
        stored = salvaged.rows("experiment")
        if stored and stored[0].get("plan_sha256") != planned.sha256:
            raise ConfigError(f"The configuration has another plan than the broken run table in {folder}.")
        return PlanSource(planned, {run.run_id: run.spec.sha256() for run in planned.runs}, created_at)
    plan = _salvaged_plan(salvaged)
    what = "is damaged" if is_damaged else "is not there"
    if plan is None:
        raise ConfigError(
            f"The plan of the experiment in {folder} is lost: {PLAN} {what}, and the run table does not give it. "
            "Give the configuration in place of the folder: orchestrator repair CONFIG.py"
        )
    note = f"the plan was read from the broken run table: {PLAN} {what}"
    return PlanSource(plan, {run.run_id: run.spec.sha256() for run in plan.runs}, created_at, (note,))


def _created_at(salvaged: Salvaged) -> datetime | None:
    try:
        return datetime.fromisoformat(salvaged.rows("experiment")[0]["created_at"])
    except (IndexError, KeyError, TypeError, ValueError):
        return None


def _salvaged_plan(salvaged: Salvaged) -> Plan | None:
    """The plan, if all of it can be read."""
    try:
        (head,) = salvaged.rows("experiment")
        rows: list[Row] = sorted(salvaged.rows("run"), key=lambda row: int(row["position"]))
        if not rows or [row["position"] for row in rows] != list(range(len(rows))):
            return None
        runs = tuple(
            PlannedRun(
                row["position"],
                row["run_id"],
                from_json(row["treatment"]),
                row["repetition"],
                TrialSpec.model_validate(from_json(row["spec"])),
            )
            for row in rows
        )
        return Plan(
            experiment=head["name"],
            seed=head["seed"],
            factors=tuple(from_json(head["factors"])),
            runs=runs,
            max_attempts=head["max_attempts"],
            config_text=head["config_text"],
            design=from_json(head["design"]),
            sha256=head["plan_sha256"],
        )
    except (ValueError, KeyError, TypeError):  # pydantic's errors are ValueErrors
        return None
