"""Attempts on disk: one folder each, under one data folder that one testbed holds at a time."""

import fcntl
import os
import shutil
from collections import OrderedDict
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from contract.errors import AttemptNotFoundError, InvalidRequestError, UsageError
from contract.trial_result import AttemptStatus, TrialResult
from contract.trial_spec import TrialSpec
from contract.units import Identifier
from testbed import attempt_folder
from testbed.attempt_folder import write_atomic

_NEW = ".new-"
_TRASH = ".trash-"
_PRUNED = "pruned"
_IDENTIFIER: TypeAdapter[str] = TypeAdapter(Identifier)


class AttemptStore:
    """The folders of all attempts, and the lock that keeps a second testbed away from them.

    Not thread-safe but for reads: the node serialises writes.

    Args:
        data_dir: made if it is not there; its `attempts` folder holds one folder per attempt.
        keep_acknowledged: how many acknowledged attempts stay; older ones are deleted. Others always stay.

    Raises:
        UsageError: another testbed holds the folder, or it cannot be written.
    """

    def __init__(self, data_dir: Path, *, keep_acknowledged: int = 50) -> None:
        self.data_dir = data_dir.resolve()
        self._attempts = self.data_dir / "attempts"
        self._keep = keep_acknowledged
        try:
            self._attempts.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock_fd: int | None = os.open(self.data_dir / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise UsageError(
                f"The data folder {self.data_dir} cannot be written ({error.strerror}). "
                "Choose another with --data-dir, or mend its permissions.",
                path=str(self.data_dir),
            ) from error
        try:
            # Released by the kernel whatever becomes of this process; never inherited by a child.
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.close()
            raise UsageError(
                f"Another testbed uses the data folder {self.data_dir}. Stop it, or give this one "
                "its own with --data-dir.",
                path=str(self.data_dir),
            ) from error
        # Results never change, and each is asked for once per artifact.
        self._last_result: TrialResult | None = None
        self._remove_halves()
        acknowledged = [path.parent for path in self._attempts.glob(f"*/{attempt_folder.ACKNOWLEDGED}")]
        acknowledged.sort(key=lambda folder: (folder / attempt_folder.ACKNOWLEDGED).stat().st_mtime_ns)
        self._acknowledged: OrderedDict[str, None] = OrderedDict.fromkeys(folder.name for folder in acknowledged)
        self._pruned_file = self.data_dir / _PRUNED
        # A last line that a power cut left half written names no attempt, and does no harm.
        self._pruned = set(self._pruned_file.read_text().splitlines()) if self._pruned_file.exists() else set()

    def close(self) -> None:
        """Let another testbed have the folder. Idempotent."""
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None

    def attempt_ids(self) -> list[str]:
        """All attempts, in no particular order."""
        return [path.name for path in self._attempts.iterdir() if path.is_dir()]

    def folder(self, attempt_id: str) -> Path:
        """Where an attempt's files are. The id must have passed `check_id`."""
        return self._attempts / attempt_id

    def create(self, status: AttemptStatus, spec: TrialSpec) -> Path:
        """Store a new attempt; when this returns, it survives a power cut.

        The folder appears under its name complete or not at all.
        """
        new = self._attempts / f"{_NEW}{status.attempt_id}"
        new.mkdir(mode=0o700, exist_ok=True)  # there after a failed try, on a full disk for instance
        write_atomic(new / attempt_folder.SPEC, spec)
        write_atomic(new / attempt_folder.STATUS, status)
        folder = new.replace(self.folder(status.attempt_id))
        _fsync_folder(self._attempts)
        return folder

    def save_status(self, status: AttemptStatus, *, durable: bool) -> None:
        """Replace status.json.

        Args:
            status: the new one.
            durable: whether it must survive a power cut. Steps on the way need not: a trial does not survive one.
        """
        path = self.folder(status.attempt_id) / attempt_folder.STATUS
        if durable:
            write_atomic(path, status)
            return
        temporary = path.with_name(f".{path.name}.tmp")
        temporary.write_text(status.model_dump_json(indent=1), encoding="utf-8")
        temporary.replace(path)

    def spec(self, attempt_id: str) -> TrialSpec:
        """What was submitted."""
        return TrialSpec.model_validate_json((self.folder(attempt_id) / attempt_folder.SPEC).read_bytes())

    def status(self, attempt_id: str) -> AttemptStatus | None:
        """The stored status; None where the file is missing or damaged."""
        try:
            return AttemptStatus.model_validate_json((self.folder(attempt_id) / attempt_folder.STATUS).read_bytes())
        except (FileNotFoundError, ValidationError):
            return None

    def result(self, attempt_id: str) -> TrialResult | None:
        """The result; None where there is none yet, or the file is damaged."""
        known = self._last_result
        if known is not None and known.attempt_id == attempt_id:
            return known
        try:
            data = (self.folder(attempt_id) / attempt_folder.RESULT).read_bytes()
            self._last_result = TrialResult.model_validate_json(data)
        except (FileNotFoundError, ValidationError):
            return None
        return self._last_result

    def artifact_path(self, result: TrialResult, name: str) -> Path:
        """Where an artifact is. Only names that the result lists are looked up, so no request chooses a path.

        Raises:
            AttemptNotFoundError: the result has no such artifact, or its file is gone.
        """
        if all(artifact.name != name for artifact in result.artifacts):
            listed = ", ".join(artifact.name for artifact in result.artifacts) or "none"
            raise AttemptNotFoundError(
                f"Attempt {result.attempt_id} has no artifact of that name. Its result lists: {listed}."
            )
        path = self.folder(result.attempt_id) / name
        if not path.is_file():
            raise AttemptNotFoundError(f"The file of artifact {name} of attempt {result.attempt_id} is gone.")
        return path

    def acknowledge(self, attempt_id: str) -> list[str]:
        """Mark an attempt as safe elsewhere, and prune.

        Returns:
            The attempts that were deleted, the oldest acknowledgement first.
        """
        if attempt_id not in self._acknowledged:
            (self.folder(attempt_id) / attempt_folder.ACKNOWLEDGED).touch(mode=0o600)
            self._acknowledged[attempt_id] = None
        pruned: list[str] = []
        while len(self._acknowledged) > self._keep:
            oldest, _ = self._acknowledged.popitem(last=False)
            self._delete(oldest)
            pruned.append(oldest)
        return pruned

    def is_pruned(self, attempt_id: str) -> bool:
        """Whether an attempt was here, acknowledged and deleted: its id must never run again."""
        return attempt_id in self._pruned

    def _delete(self, attempt_id: str) -> None:
        # Remembered before it is gone: a submission that the network delivers again must not run it again.
        with self._pruned_file.open("a") as file:
            file.write(attempt_id + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._pruned.add(attempt_id)
        # Out of the way first: a crash in the middle must not leave half an attempt under its name.
        trash = self.folder(attempt_id).replace(self._attempts / f"{_TRASH}{attempt_id}")
        shutil.rmtree(trash, ignore_errors=True)

    def _remove_halves(self) -> None:
        """Delete what a crash left: submissions that were never answered, and attempts on their way out."""
        for prefix in (_NEW, _TRASH):
            for path in self._attempts.glob(f"{prefix}*"):
                shutil.rmtree(path, ignore_errors=True)


def check_id(attempt_id: str) -> None:
    """See that an id may name a folder.

    Raises:
        InvalidRequestError: it may not.
    """
    try:
        _IDENTIFIER.validate_python(attempt_id)
    except ValidationError as error:
        raise InvalidRequestError(
            "An attempt id has 1 to 128 characters of A-Z a-z 0-9 . _ - and starts with a letter or digit."
        ) from error


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
