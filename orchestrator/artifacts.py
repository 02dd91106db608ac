"""Where an attempt's files go: `results/EXPERIMENT/runs/RUN_ID/ATTEMPT_ID/`, verified before the attempt counts."""

import os
from pathlib import Path

from contract.errors import ArtifactCorruptError, JouleBedError
from contract.trial_result import TrialResult
from orchestrator.clients.base import TestbedClient

RUNS = "runs"
RESULT = "result.json"


class ArtifactFolder:
    """The files of an experiment's attempts.

    Args:
        experiment: the experiment's folder, which exists.
    """

    def __init__(self, experiment: Path) -> None:
        self._runs = experiment / RUNS

    def folder(self, run_id: str, attempt_id: str) -> Path:
        """Of one attempt; it may not exist yet."""
        return self._runs / run_id / attempt_id

    def collect(self, client: TestbedClient, result: TrialResult) -> Path:
        """Fetch all of a result's artifacts and write the result beside them, last. Idempotent.

        Args:
            client: the testbed that holds them.
            result: lists them with size and SHA-256.

        Returns:
            The attempt's folder: when it holds `result.json`, it holds everything.

        Raises:
            ArtifactCorruptError: a file does not verify.
            JouleBedError: this machine cannot write them.
        """
        folder = self.folder(result.run_id, result.attempt_id)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if any(artifact.name == RESULT for artifact in result.artifacts):
                raise ArtifactCorruptError(
                    f"The testbed lists an artifact named {RESULT}, which is the orchestrator's own. "
                    "Upgrade joulebed on the testbed."
                )
            for artifact in result.artifacts:
                client.fetch_artifact(result.attempt_id, artifact, folder / artifact.name)
            _write(folder / RESULT, result.model_dump_json(indent=1) + "\n")
            _sync_names(folder)
        except OSError as error:
            raise JouleBedError(
                f"The files of attempt {result.attempt_id} cannot be written to {folder} ({error.strerror or error}). "
                "Make room or permissions there, then run the same command again: it continues with this attempt.",
                path=str(folder),
            ) from error
        return folder


def _write(path: Path, text: str) -> None:
    part = path.with_name(path.name + ".part")
    with part.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def _sync_names(folder: Path) -> None:
    """Make new names durable too, those of the folder and of the one above it."""
    for each in (folder, folder.parent):
        descriptor = os.open(each, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
