"""Files of an experiment's folder that survive a crash: old or new content, never a part."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Self


def write_durably(path: Path, content: bytes | Iterable[bytes]) -> None:
    """Replace a file, and return when a power cut can no longer undo it.

    Temporary name, fsync, rename, fsync of the folder.

    Args:
        path: of the file.
        content: all of it, or part by part.

    Raises:
        OSError: it cannot be written; what was there is untouched.
    """
    with DurableFile(path, content) as file:
        file.place()
    sync_names(path.parent)


class DurableFile:
    """A file on its way to the disk: written now under a temporary name, durable and in place after `place`.

    What is written between the two reaches the disk with it, at about the cost of one. Use as a context manager:
    without `place`, nothing changes.

    Args:
        path: where it is to appear; what is there stays until then.
        content: all of it.

    Raises:
        OSError: it cannot be written.
    """

    def __init__(self, path: Path, content: bytes | Iterable[bytes]) -> None:
        self._path = path
        self._part = path.with_name(path.name + ".part")
        self._file = self._part.open("wb")
        try:
            self._file.writelines([content] if isinstance(content, bytes) else content)
            self._file.flush()
        except OSError:
            self._part.unlink()  # on a full disk, every byte counts
            self._file.close()
            raise
        begin_writing(self._file.fileno())

    def place(self) -> None:
        """Sync the content and give the file its name; the name itself is durable after `sync_names`."""
        os.fsync(self._file.fileno())
        self._part.replace(self._path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()
        self._part.unlink(missing_ok=True)


def begin_writing(descriptor: int) -> None:
    """Have the kernel begin to write a file out, without waiting.

    Where several files are synced, this for all of them before the first sync: then its commit of the journal carries
    the blocks of all, and the others find nothing left to wait for.
    """
    if hasattr(os, "posix_fadvise"):  # not on macOS
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


def sync_names(folder: Path) -> None:
    """Make the names in a folder durable: new files, renamed ones, and those that are gone."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
