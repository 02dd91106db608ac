"""The plan as a file beside the run table: what `orchestrator repair` rebuilds a lost table from."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contract.errors import ConfigError, JouleBedError
from contract.trial_spec import TrialSpec
from contract.units import sha256_of
from orchestrator.durable_file import write_durably
from orchestrator.store.base import Plan, PlannedRun

PLAN = "plan.json"
"""File name in the experiment's folder."""

_FORMAT = 1


_DAMAGE = (ValueError, KeyError, TypeError, AttributeError)  # pydantic's errors are ValueErrors


@dataclass(frozen=True)
class KeptPlan:
    """What the file holds.

    Attributes:
        plan: the plan.
        spec_sha256: run id -> its spec's identity when the file was written: a later version may compute another.
    """

    plan: Plan
    spec_sha256: dict[str, str]


class PlanFileError(JouleBedError):
    """The plan's file is damaged."""

    code = "plan_file"


def keep_plan(folder: Path, plan: Plan) -> None:
    """Write the plan's file; nothing if it is there already, whole and of this plan.

    Raises:
        ConfigError: the folder cannot be written.
    """
    path = folder / PLAN
    try:
        if _document(path)["plan_sha256"] == plan.sha256:
            return  # the text of the configuration may have new comments: the first one stays
    except (OSError, *_DAMAGE):
        pass
    try:
        write_durably(path, _encode(plan))
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written ({error.strerror or error}). Free disk space or mend the permissions of "
            f"{folder}, then run the same command again."
        ) from error


def read_plan(folder: Path) -> KeptPlan | None:
    """The plan that was kept, or None where there is no such file.

    Raises:
        PlanFileError: it is damaged.
    """
    path = folder / PLAN
    try:
        return _decode(_document(path))
    except FileNotFoundError:
        return None
    except (OSError, *_DAMAGE) as error:
        raise PlanFileError(
            f"{path} is damaged ({type(error).__name__}: {str(error).splitlines()[0]}). Give the configuration in "
            "place of the folder: orchestrator repair CONFIG.py"
        ) from error


def _encode(plan: Plan) -> bytes:
    document: dict[str, Any] = {
        "format": _FORMAT,
        "experiment": plan.experiment,
        "seed": plan.seed,
        "factors": list(plan.factors),
        "max_attempts": plan.max_attempts,
        "design": plan.design,
        "plan_sha256": plan.sha256,
        "config_text": plan.config_text,
        "runs": [
            {
                "position": run.position,
                "run_id": run.run_id,
                "treatment": run.treatment,
                "repetition": run.repetition,
                "spec": run.spec.model_dump(mode="json"),
                "spec_sha256": run.spec.sha256(),
            }
            for run in plan.runs
        ],
    }
    text = json.dumps({"checksum": sha256_of(document), **document}, ensure_ascii=False)
    return text.encode() + b"\n"


def _document(path: Path) -> dict[str, Any]:
    document = json.loads(path.read_bytes())
    checksum = document.pop("checksum")
    if document["format"] != _FORMAT or sha256_of(document) != checksum:
        raise ValueError("its checksum differs")
    return dict(document)


def _decode(document: dict[str, Any]) -> KeptPlan:
    plan = Plan(
        experiment=document["experiment"],
        seed=document["seed"],
        factors=tuple(document["factors"]),
        runs=tuple(
            PlannedRun(
                run["position"],
                run["run_id"],
                run["treatment"],
                run["repetition"],
                TrialSpec.model_validate(run["spec"]),
            )
            for run in document["runs"]
        ),
        max_attempts=document["max_attempts"],
        config_text=document["config_text"],
        design=document["design"],
        sha256=document["plan_sha256"],
    )
    return KeptPlan(plan, {run["run_id"]: run["spec_sha256"] for run in document["runs"]})
