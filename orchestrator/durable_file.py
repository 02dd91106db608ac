"""Files of an experiment's folder that survive a crash: old or new content, never a part."""

import os
from collections.abc import Iterable
from pathlib import Path


def write_durably(path: Path, content: bytes | Iterable[bytes]) -> None:
    """Replace a file, and return when a power cut can no longer undo it.

    Temporary name, fsync, rename, fsync of the folder.

    Args:
        path: of the file.
        content: all of it, or part by part.

    Raises:
        OSError: it cannot be written; what was there is untouched.
    """
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            file.writelines([content] if isinstance(content, bytes) else content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)  # on a full disk, every byte counts
        raise
    sync_names(path.parent)


def sync_names(folder: Path) -> None:
    """Make the names in a folder durable: new files, renamed ones, and those that are gone."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
