"""Copies attempts to a store while the campaign goes on: a run never waits for it, and never depends on it."""

import logging
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from contract.errors import JouleBedError
from orchestrator.artifact_store import ArtifactStore

_log = logging.getLogger(__name__)


class ArtifactUploader:
    """A thread that copies what it is told of, and at the end all that is not there yet. A context manager.

    Args:
        store: where to.
        experiment: the experiment's folder.
        tell: shows a line to the person at the terminal.
        is_quiet: copy at the end only: a testbed measures on this machine.
    """

    def __init__(
        self, store: ArtifactStore, experiment: Path, tell: Callable[[str], None], *, is_quiet: bool = False
    ) -> None:
        self._store = store
        self._experiment = experiment
        self._tell = tell
        self._is_quiet = is_quiet
        self._waiting: queue.SimpleQueue[Path | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._copy, name="artifacts", daemon=True)

    def __enter__(self) -> "ArtifactUploader":
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._waiting.put(None)
        self._thread.join()
        self._copy_the_rest()

    def kept(self, attempt: Path) -> None:
        """An attempt's files are verified in this folder. Returns at once."""
        if not self._is_quiet:
            self._waiting.put(attempt)

    def _copy(self) -> None:
        is_told = False
        while (attempt := self._waiting.get()) is not None:
            try:
                self._store.upload_attempt(attempt)
            except JouleBedError as error:
                _log.warning("%s", error.message)
                if not is_told:
                    self._tell(f"{error.message} The campaign goes on.")
                is_told = True

    def _copy_the_rest(self) -> None:
        """Also what an earlier process left: whatever was copied already is left alone."""
        try:
            done = self._store.upload(self._experiment)
        except JouleBedError as error:
            _log.warning("%s", error.message)
            self._tell(f"{error.message} All files are safe in {self._experiment}; the same command copies them again.")
            return
        if done.failed:
            first = next(iter(done.failed.values()))
            self._tell(
                f"{len(done.failed)} attempts are not in {self._store.url}: {first} All files are safe in "
                f"{self._experiment}; the same command copies them again."
            )
        elif done.n_attempts:
            self._tell(f"The files of {done.n_attempts} attempts are in {self._store.url}.")


@contextmanager
def copied_to(
    url: str, experiment: Path, tell: Callable[[str], None], *, is_quiet: bool
) -> Iterator[Callable[[Path], None]]:
    """What is to be told of each attempt whose files are verified here.

    Args:
        url: of a store; empty: the folder is all there is.
        experiment: the experiment's folder.
        tell: see `ArtifactUploader`.
        is_quiet: likewise.

    Raises:
        JouleBedError: see `ArtifactStore`.
    """
    if not url:
        yield lambda attempt: None
        return
    with ArtifactUploader(ArtifactStore(url, experiment.name), experiment, tell, is_quiet=is_quiet) as uploader:
        yield uploader.kept
