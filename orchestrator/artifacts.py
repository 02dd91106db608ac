"""Where an attempt's files go: `results/EXPERIMENT/runs/RUN_ID/ATTEMPT_ID/`, verified before the attempt counts."""

from collections.abc import Callable
from pathlib import Path

from contract.errors import ArtifactCorruptError, StorageError
from contract.trial_result import TrialResult
from orchestrator.attempt_journal import AttemptJournal
from orchestrator.clients.base import TestbedClient
from orchestrator.durable_file import DurableFile, sync_names

RUNS = "runs"
RESULT = "result.json"


class ResultsStorageError(StorageError):
    """The folder of results on this machine cannot be written. A person has to look."""

    code = "results_storage"


class ArtifactFolder:
    """The files of an experiment's attempts.

    Args:
        experiment: the experiment's folder, which exists.
        kept: is told of each attempt's folder that holds everything, and returns at once.

    Attributes:
        journal: is told of every attempt's end.
    """

    def __init__(self, experiment: Path, kept: Callable[[Path], None] = lambda folder: None) -> None:
        self._kept = kept
        self._runs = experiment / RUNS
        self.journal = AttemptJournal(experiment)

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
            ResultsStorageError: this machine cannot write them.
        """
        folder = self.folder(result.run_id, result.attempt_id)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if any(artifact.name == RESULT for artifact in result.artifacts):
                raise ArtifactCorruptError(
                    f"The testbed lists an artifact named {RESULT}, which is the orchestrator's own. "
                    "Upgrade joulebed on the testbed."
                )
            with DurableFile(folder / RESULT, (result.model_dump_json(indent=1) + "\n").encode()) as last:
                client.fetch_artifacts(result.attempt_id, result.artifacts, folder)
                last.place()
            sync_names(folder)
            sync_names(folder.parent)
        except OSError as error:
            raise ResultsStorageError(
                f"The files of attempt {result.attempt_id} cannot be written to {folder} ({error.strerror or error}). "
                "Make room or permissions there, then run the same command again: it continues with this attempt.",
                path=str(folder),
            ) from error
        self._kept(folder)
        return folder
