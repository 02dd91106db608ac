"""Attempts on disk: one folder each, under one data folder that one testbed holds at a time."""

import bisect
import fcntl
import hashlib
import itertools
import logging
import os
import shutil
import threading
from array import array
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from contract.errors import AttemptNotFoundError, InvalidRequestError, JouleBedError, UsageError
from contract.routes import MAX_BROUGHT_BYTES
from contract.trial_result import TrialResult
from contract.trial_spec import TrialSpec
from contract.units import Identifier
from testbed import attempt_folder
from testbed.attempt_folder import write_whole
from testbed.disk_reserve import RESERVE_BYTES, DiskReserve, is_full, sharpen_by_disk, storage_error

_log = logging.getLogger(__name__)

_NEW = ".new-"
_TRASH = ".trash-"
_PRUNED = "pruned"
_RESERVE = "reserve"
_DAMAGED = "damaged"
_IDENTIFIER: TypeAdapter[str] = TypeAdapter(Identifier)


class AttemptStore:
    """The folders of all attempts, and the lock that keeps a second testbed away from them.

    Not thread-safe but for reads and `delete`: the node serialises writes.

    Args:
        data_dir: made if it is not there; its `attempts` folder holds one folder per attempt.
        keep_acknowledged: how many acknowledged attempts stay, or up to a third more; older ones are deleted. Others
            always stay.
        reserve_bytes: room that is kept for the end of a trial; see `testbed.disk_reserve`.

    Raises:
        UsageError: another testbed holds the folder, or it cannot be written.
    """

    def __init__(self, data_dir: Path, *, keep_acknowledged: int = 50, reserve_bytes: int = RESERVE_BYTES) -> None:
        self.data_dir = data_dir.resolve()
        self._attempts = self.data_dir / "attempts"
        self._keep = keep_acknowledged
        self._deleting = threading.Lock()
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
        self._reserve_bytes = reserve_bytes
        self._reserve = DiskReserve(self.data_dir / _RESERVE, reserve_bytes)
        # Results never change, and each is asked for once per artifact.
        self._last_result: TrialResult | None = None
        self._unwritten: dict[str, TrialResult] = {}
        self._remove_halves()
        acknowledged = [path.parent for path in self._attempts.glob(f"*/{attempt_folder.ACKNOWLEDGED}")]
        acknowledged.sort(key=lambda folder: (folder / attempt_folder.ACKNOWLEDGED).stat().st_ctime_ns)
        self._acknowledged: OrderedDict[str, None] = OrderedDict.fromkeys(folder.name for folder in acknowledged)
        self._pruned_file = self.data_dir / _PRUNED
        self._pruned = self._read_pruned()

    def close(self) -> None:
        """Let another testbed have the folder. Idempotent."""
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None

    def attempt_ids(self) -> list[str]:
        """All attempts, in no particular order. What else lies there, a file system's lost+found say, is none."""
        return [path.name for path in self._attempts.iterdir() if path.is_dir() and _is_id(path.name)]

    def folder(self, attempt_id: str) -> Path:
        """Where an attempt's files are. The id must have passed `check_id`."""
        return self._attempts / attempt_id

    def create(self, attempt_id: str, spec: TrialSpec) -> Path:
        """Store a new attempt; when this returns, it survives the end of this process.

        The folder appears under its name complete or not at all. It is not synced: no trial survives a power cut, and
        one that is then unknown is submitted anew like one that is known to have died.

        Raises:
            DiskFullError: there is no room, or too little for the end of a trial.
            StorageError: the folder cannot be written.
        """
        self._reserve.keep()
        new = self._attempts / f"{_NEW}{attempt_id}"
        try:
            new.mkdir(mode=0o700, exist_ok=True)  # there after a failed try, on a full disk for instance
            (new / attempt_folder.SPEC).write_text(spec.model_dump_json(indent=1), encoding="utf-8")
            folder = new.replace(self.folder(attempt_id))
        except OSError as error:
            shutil.rmtree(new, ignore_errors=True)
            raise storage_error(error, self.data_dir) from error
        return folder

    def spec(self, attempt_id: str) -> TrialSpec:
        """What was submitted."""
        return TrialSpec.model_validate_json((self.folder(attempt_id) / attempt_folder.SPEC).read_bytes())

    def result(self, attempt_id: str) -> TrialResult | None:
        """The result; None where there is none yet, or the file is damaged."""
        known = self._last_result
        if known is not None and known.attempt_id == attempt_id:
            return known
        result = self._unwritten.get(attempt_id)
        result = result or _read(self.folder(attempt_id) / attempt_folder.RESULT, attempt_id)
        self._last_result = result or known
        return result

    def save_result(self, result: TrialResult) -> None:
        """Store a result, with the room that was kept for it where the disk is full.

        It is not synced, no more than the evidence that it lists: a power cut within the half minute that the system
        takes to write both costs the trial, whichever of them it takes.

        Where even that fails it is kept in memory, to be fetched until the testbed is restarted.
        """
        path = self.folder(result.attempt_id) / attempt_folder.RESULT
        try:
            try:
                write_whole(path, result)
            except OSError as error:
                if not is_full(error):
                    raise
                self._reserve.give_up()
                write_whole(path, result)
            self._last_result = result
        except OSError:
            _log.exception("Attempt %s: its result cannot be written, and is kept in memory", result.attempt_id)
            self._unwritten[result.attempt_id] = result

    def give_up_reserve(self) -> None:
        """Let the end of a trial have the room that was kept for it."""
        self._reserve.give_up()

    def sharpen(self, failure: JouleBedError) -> JouleBedError:
        """What a trial failed by: a full disk, where that is the reason."""
        return sharpen_by_disk(failure, self.data_dir, self._reserve_bytes)

    def set_aside(self, attempt_id: str) -> Path:
        """Move an attempt that cannot be read out of the way; nothing of it is deleted.

        Returns:
            Where it is now.
        """
        return self._move_aside(self.folder(attempt_id))

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

    def small_artifacts(self, result: TrialResult) -> dict[str, bytes]:
        """Name -> content of the smallest artifacts, `MAX_BROUGHT_BYTES` at most; a file that is gone is left out."""
        folder = self.folder(result.attempt_id)
        contents: dict[str, bytes] = {}
        room = MAX_BROUGHT_BYTES
        for artifact in sorted(result.artifacts, key=lambda each: each.size_bytes):
            room -= artifact.size_bytes
            if room < 0:
                break
            try:
                contents[artifact.name] = (folder / artifact.name).read_bytes()
            except OSError:
                continue
        return contents

    def acknowledge(self, attempt_id: str) -> list[str]:
        """Mark an attempt as safe elsewhere.

        Returns:
            The attempts that are not kept any more, the oldest acknowledgement first: for `delete`. None most of the
            time, then several: to remember what was deleted costs the disk the same for one as for many.
        """
        if attempt_id not in self._acknowledged:
            try:
                self._mark_acknowledged(self.folder(attempt_id))
            except OSError:
                # It would be asked for once more after a restart, and acknowledged again.
                _log.exception("Attempt %s: its acknowledgement cannot be written", attempt_id)
            self._acknowledged[attempt_id] = None
            self._unwritten.pop(attempt_id, None)
        if len(self._acknowledged) <= self._keep + self._keep // 3:
            return []
        surplus = len(self._acknowledged) - self._keep
        pruned = [self._acknowledged.popitem(last=False)[0] for _ in range(surplus)]
        for each in pruned:
            bisect.insort(self._pruned, _digest(each))
        return pruned

    def is_pruned(self, attempt_id: str) -> bool:
        """Whether an attempt was here, acknowledged and deleted: its id must never run again."""
        digest = _digest(attempt_id)
        place = bisect.bisect_left(self._pruned, digest)
        return place < len(self._pruned) and self._pruned[place] == digest

    def delete(self, attempt_ids: Sequence[str]) -> None:
        """Delete attempts that `acknowledge` gave up. Thread-safe: nobody else needs to wait for it.

        Raises:
            StorageError: the disk takes no note of them; they stay, and are found again after a restart.
        """
        with self._deleting:
            # Remembered before they are gone: a submission that the network delivers again must not run them again.
            try:
                self._note_pruned(attempt_ids)
            except OSError as error:
                if not is_full(error):
                    raise storage_error(error, self.data_dir) from error
                # What is to be deleted holds the room that the note needs; it was acknowledged: its evidence can go.
                for attempt_id in attempt_ids:
                    self._thin_out(self.folder(attempt_id))
                self._note_pruned(attempt_ids)
            for attempt_id in attempt_ids:
                # Out of the way first: a crash in the middle must not leave half an attempt under its name.
                trash = self.folder(attempt_id).replace(self._attempts / f"{_TRASH}{attempt_id}")
                shutil.rmtree(trash, ignore_errors=True)

    def _mark_acknowledged(self, folder: Path) -> None:
        # Of an attempt that is over nobody asks for its process any more: to rename a file is cheaper than to make one.
        try:
            (folder / attempt_folder.PROCESS).replace(folder / attempt_folder.ACKNOWLEDGED)
        except FileNotFoundError:
            (folder / attempt_folder.ACKNOWLEDGED).touch(mode=0o600)

    def _thin_out(self, folder: Path) -> None:
        for path in folder.iterdir():
            if path.name not in (attempt_folder.SPEC, attempt_folder.ACKNOWLEDGED):
                path.unlink()

    def _note_pruned(self, attempt_ids: Sequence[str]) -> None:
        with self._pruned_file.open("ab") as file:
            size_bytes = file.tell()
            try:
                file.write("".join(f"{attempt_id}\n" for attempt_id in attempt_ids).encode())
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                os.truncate(self._pruned_file, size_bytes)  # half a name would swallow the next one
                raise

    def _read_pruned(self) -> "array[int]":
        """Digests in order: 8 bytes an attempt, where a set of names would grow by 130."""
        try:
            data = self._pruned_file.read_bytes()
            whole = data[: data.rfind(b"\n") + 1]
            if whole != data:
                # A power cut left half a name: it names no attempt, and would swallow the next one.
                os.truncate(self._pruned_file, len(whole))
        except FileNotFoundError:
            return array("Q")
        except OSError as error:
            aside = self._move_aside(self._pruned_file)
            _log.error("The list of pruned attempts cannot be read (%s); it is in %s now", error.strerror, aside)
            return array("Q")
        return array("Q", sorted(map(_digest, whole.decode(errors="replace").splitlines())))

    def _move_aside(self, path: Path) -> Path:
        shelf = self.data_dir / _DAMAGED
        shelf.mkdir(mode=0o700, exist_ok=True)
        aside = next(place for n in itertools.count(1) if not (place := shelf / f"{path.name}.{n}").exists())
        return path.replace(aside)

    def _remove_halves(self) -> None:
        """Delete what a crash left: submissions that were never answered, and attempts on their way out."""
        for prefix in (_NEW, _TRASH):
            for path in self._attempts.glob(f"{prefix}*"):
                shutil.rmtree(path, ignore_errors=True)


def _read(path: Path, attempt_id: str) -> TrialResult | None:
    """The result of an attempt; None where it is missing, or is damaged, which the log tells."""
    try:
        read = TrialResult.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error).splitlines()[0]
        _log.warning("Attempt %s: its %s cannot be read (%s)", attempt_id, path.name, why)
        return None
    if read.attempt_id != attempt_id:
        _log.warning("Attempt %s: its %s is that of attempt %s", attempt_id, path.name, read.attempt_id)
        return None
    return read


def _digest(attempt_id: str) -> int:
    """64 bits: that a new id meets one of a million old ones is less likely than a fault of the memory."""
    return int.from_bytes(hashlib.blake2b(attempt_id.encode(), digest_size=8).digest())


def _is_id(name: str) -> bool:
    try:
        _IDENTIFIER.validate_python(name)
    except ValidationError:
        return False
    return True


def check_id(attempt_id: str) -> None:
    """See that an id may name a folder.

    Raises:
        InvalidRequestError: it may not.
    """
    if not _is_id(attempt_id):
        raise InvalidRequestError(
            "An attempt id has 1 to 128 characters of A-Z a-z 0-9 . _ - and starts with a letter or digit."
        )
