"""The plan as a file beside the run table: what `orchestrator repair` rebuilds a lost table from."""

import hashlib
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contract.errors import ConfigError, JouleBedError
from contract.trial_spec import TrialSpec
from contract.units import canonical_json, sha256_of
from orchestrator.durable_file import write_durably
from orchestrator.store.base import Plan, PlannedRun

PLAN = "plan.json"
"""File name in the experiment's folder."""

_FORMAT = 1
_HEAD_BYTES = len('{"checksum": "", ') + 64


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
    if _is_kept(path, plan):
        return  # the text of the configuration may have new comments: the first one stays
    checksum = hashlib.sha256()
    for part in _parts(plan):
        checksum.update(part)
    head = f'{{"checksum": "{checksum.hexdigest()}", '.encode()
    try:
        write_durably(path, itertools.chain([head], itertools.islice(_parts(plan), 1, None), [b"\n"]))
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


def _is_kept(path: Path, plan: Plan) -> bool:
    """Whether a file is whole and of this plan."""
    try:
        content = path.read_bytes()
        rest = content[_HEAD_BYTES:].removesuffix(b"\n")
        checksum = hashlib.sha256(b"{" + rest).hexdigest()
        if f'"{checksum}"'.encode() in content[:_HEAD_BYTES]:
            return f'"plan_sha256":"{plan.sha256}"'.encode() in rest
        # As earlier versions wrote it, or damaged.
        return bool(_document(path)["plan_sha256"] == plan.sha256)
    except (OSError, *_DAMAGE):
        return False


def _parts(plan: Plan) -> Iterator[bytes]:
    """The document as canonical JSON, an opening brace first; part by part: of 100,000 runs it were a gigabyte."""
    document: dict[str, Any] = {
        "format": _FORMAT,
        "experiment": plan.experiment,
        "seed": plan.seed,
        "factors": list(plan.factors),
        "max_attempts": plan.max_attempts,
        "design": plan.design,
        "plan_sha256": plan.sha256,
        "config_text": plan.config_text,
    }
    yield b"{"
    for number, key in enumerate(sorted([*document, "runs"])):
        yield f'{"," if number else ""}"{key}":'.encode()
        if key != "runs":
            yield canonical_json(document[key]).encode()
            continue
        yield b"["
        for n_before, run in enumerate(plan.runs):
            row = {
                "position": run.position,
                "run_id": run.run_id,
                "treatment": run.treatment,
                "repetition": run.repetition,
                "spec": run.spec.model_dump(mode="json"),
                "spec_sha256": run.spec.sha256(),
            }
            yield ("," if n_before else "").encode() + canonical_json(row).encode()
        yield b"]"
    yield b"}"


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
