"""The attempts whose files are under `runs/`, and whether these are what their results say."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from contract.trial_result import TrialResult
from orchestrator.artifacts import RESULT, RUNS
from orchestrator.clients.artifact_file import holds


@dataclass(frozen=True)
class StoredAttempt:
    """One attempt's folder.

    Attributes:
        run_id: of the folder above.
        attempt_id: its name.
        result: what its result.json says; None where there is none, or it is damaged.
        fault: why its files are no evidence; empty: they verify.
    """

    run_id: str
    attempt_id: str
    result: TrialResult | None
    fault: str


def stored_attempts(experiment: Path) -> Iterator[StoredAttempt]:
    """All attempts with a folder; reads every byte of their files.

    Args:
        experiment: the experiment's folder.
    """
    for folder in sorted((experiment / RUNS).glob("*/*/")):
        run_id, attempt_id = folder.parent.name, folder.name
        try:
            result = TrialResult.model_validate_json((folder / RESULT).read_bytes())
        except FileNotFoundError:
            yield StoredAttempt(run_id, attempt_id, None, f"{RESULT} is missing: its files were not all fetched")
            continue
        except (OSError, ValidationError):
            yield StoredAttempt(run_id, attempt_id, None, f"{RESULT} cannot be read")
            continue
        if (result.run_id, result.attempt_id) != (run_id, attempt_id):
            yield StoredAttempt(run_id, attempt_id, None, f"{RESULT} is that of attempt {result.attempt_id}")
            continue
        yield StoredAttempt(run_id, attempt_id, result, _fault(folder, result))


def _fault(folder: Path, result: TrialResult) -> str:
    for artifact in result.artifacts:
        try:
            if holds(folder / artifact.name, artifact):
                continue
        except OSError as error:
            return f"{artifact.name} cannot be read ({error.strerror})"
        is_there = (folder / artifact.name).exists()
        return f"{artifact.name} {'is not what its result says: size or SHA-256 differ' if is_there else 'is missing'}"
    return ""
