"""File systems that are really full, or really read-only. Skips where this process may not mount."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

BALLAST = "ballast"


def _mount(*arguments: str) -> None:
    try:
        done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount here")
    if done.returncode != 0:
        pytest.skip(f"this process may not mount: {done.stderr.strip() or 'it failed'}")


@contextmanager
def small_disk(folder: Path, size_kib: int) -> Iterator[Path]:
    """A disk of this size, at a folder that is made for it."""
    folder.mkdir(exist_ok=True)
    _mount("-t", "tmpfs", "-o", f"size={size_kib}k,mode=700", "joulebed-test", str(folder))
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@contextmanager
def read_only(folder: Path) -> Iterator[Path]:
    """A folder that nobody can write, root included."""
    _mount("--bind", str(folder), str(folder))
    try:
        _mount("-o", "remount,ro,bind", str(folder))
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(disk: Path, left_kib: int = 0) -> None:
    """Use up a disk but for some room."""
    usage = os.statvfs(disk)
    size_bytes = usage.f_bavail * usage.f_frsize - left_kib * 1024
    if size_bytes > 0:
        with (disk / BALLAST).open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, size_bytes)


def make_room(disk: Path) -> None:
    """Undo `fill`."""
    (disk / BALLAST).unlink(missing_ok=True)
