"""Room that is kept for the end of a trial, and what is said when the disk is full."""

import errno
import os
import shutil
from pathlib import Path

from contract.errors import ChildDiedError, DiskFullError, JouleBedError, StorageError

RESERVE_BYTES = 4 * 2**20
"""Enough for a result, the sheet of its requests and the statuses of a trial."""

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_WORDS = ("No space left on device", "Disk quota exceeded", "File too large")
_VAGUE = (JouleBedError, ChildDiedError)


class DiskReserve:
    """A file that holds room, and is deleted when the room is needed.

    A trial that begins on a disk with little room fills it; what it measured can then still be written down.

    Args:
        path: of the file.
        size_bytes: how much it holds.
    """

    def __init__(self, path: Path, size_bytes: int = RESERVE_BYTES) -> None:
        self._path = path
        self._size_bytes = size_bytes

    def keep(self) -> None:
        """See that the room is held; costs a look when it is.

        Raises:
            DiskFullError: there is no such room.
            StorageError: the folder cannot be written.
        """
        try:
            if self._path.exists() and self._path.stat().st_size == self._size_bytes:
                return
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, self._size_bytes)
                os.truncate(descriptor, self._size_bytes)
            finally:
                os.close(descriptor)
        except OSError as error:
            self.give_up()
            raise storage_error(error, self._path.parent) from error

    def give_up(self) -> None:
        """Let the room be used. Idempotent."""
        self._path.unlink(missing_ok=True)


def is_full(error: BaseException) -> bool:
    """Whether an error says that a disk, a quota or a file has no room left."""
    return isinstance(error, OSError) and error.errno in _FULL


def storage_error(error: OSError, folder: Path) -> StorageError:
    """What is told of a data folder that cannot be written.

    Args:
        error: from the system.
        folder: the data folder.
    """
    if is_full(error):
        return _full(folder)
    return StorageError(
        f"The testbed's data folder cannot be written ({error.strerror or error}): {folder}. Mend its permissions or "
        "its disk, or give `testbed serve` another --data-dir; then run the same command again."
    )


def sharpen_by_disk(failure: JouleBedError, folder: Path, reserve_bytes: int = RESERVE_BYTES) -> JouleBedError:
    """A full disk, where that is what a trial failed by; the same failure where it is not.

    Args:
        failure: of the trial.
        folder: the data folder.
        reserve_bytes: less than this is no room.
    """
    words = [failure.message, *(str(line) for line in failure.detail.get("log_tail", ()))]
    says_so = any(word in line for line in words for word in _WORDS)
    is_vague = type(failure) in _VAGUE
    if isinstance(failure, StorageError) or not (says_so or (is_vague and _free_bytes(folder) < reserve_bytes)):
        return failure
    full = _full(folder)
    full.detail = {**failure.detail, **full.detail, "was": failure.code, "message": failure.message}
    return full


def _full(folder: Path) -> DiskFullError:
    return DiskFullError(
        f"The testbed's disk is full: the trial's files cannot be written to {folder}. Make room there (results that "
        "were not fetched yet are kept), then run the same command again.",
        free_bytes=_free_bytes(folder),
    )


def _free_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder).free
