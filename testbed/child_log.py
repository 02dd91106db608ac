"""What a child printed: its last lines, and a bound on how much of it is kept."""

import ctypes
import os
import re
from collections.abc import Collection
from pathlib import Path

from contract.log_line import hide, secret_values

TAIL_LINES = 40
_TAIL_BYTES = 16_384
_KEPT_END_BYTES = 2**20
_KEEP_SIZE_PUNCH_HOLE = 0x03
"""FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE of linux/falloc.h."""
_LINE_BREAK = re.compile(rb"[\r\n]+")
_CUT = b"\n[JouleBed: the middle of this log was left out]\n"


def log_tail(path: Path, *, n_lines: int = TAIL_LINES, n_bytes: int = _TAIL_BYTES) -> list[str]:
    """The last lines of a log; empty where there is none. Reads no more than `n_bytes`, however long it is.

    Secrets are hidden; see `last_lines`.

    Args:
        path: of the log.
        n_lines: how many lines at most.
        n_bytes: how much is read from its end.
    """
    try:
        with path.open("rb") as file:
            begin = max(file.seek(0, os.SEEK_END) - n_bytes, 0)
            file.seek(begin)
            end = file.read(n_bytes)
            return last_lines((_from_a_line_on(end) if begin else end).decode(errors="replace"), n_lines)
    except OSError:
        return []


def last_lines(text: str, n_lines: int = TAIL_LINES) -> list[str]:
    """The last lines of what a child printed.

    Secrets of this process's environment, which the child inherits, are hidden: the lines end in error bodies.
    """
    return hide(text, secret_values(os.environ)).splitlines()[-n_lines:]


def spare_disk(path: Path, limit_bytes: int) -> bool:
    """Free the blocks of the middle of a log whose writer goes on: nothing that it writes meanwhile is lost.

    Length and offsets stay; the middle reads as zeros. Linux only, on file systems that have holes, as most do.

    Args:
        path: of the log; absent is fine.
        limit_bytes: see `bound_log`; counts what is on disk.

    Returns:
        Whether something was freed.
    """
    try:
        size = path.stat()
        if size.st_size <= limit_bytes or size.st_blocks * 512 <= limit_bytes:
            return False
        head_bytes, tail_bytes = _kept(limit_bytes)
        with path.open("r+b") as file:
            return _punch_hole(file.fileno(), head_bytes, size.st_size - tail_bytes - head_bytes)
    except OSError:
        return False


def bound_log(path: Path, limit_bytes: int) -> bool:
    """Cut the middle out of a log that grew beyond a limit: its beginning and its end are what explains a failure.

    After the end of its writers: what they would write at this very moment may be lost.

    Args:
        path: of the log; absent is fine.
        limit_bytes: above it, half of this is kept of the beginning, and up to 1 MiB of the end.

    Returns:
        Whether it was cut.
    """
    try:
        with path.open("r+b") as file:
            size_bytes = file.seek(0, os.SEEK_END)
            if size_bytes <= limit_bytes:
                return False
            head_bytes, tail_bytes = _kept(limit_bytes)
            file.seek(size_bytes - tail_bytes)
            tail = _from_a_line_on(file.read(tail_bytes))
            file.seek(head_bytes // 2)
            file.truncate(head_bytes // 2 + _to_a_line(file.read(head_bytes - head_bytes // 2)))
        with path.open("ab") as file:
            file.write(_CUT + tail)
    except OSError:
        return False
    return True


def _kept(limit_bytes: int) -> tuple[int, int]:
    """Of the beginning and of the end."""
    return limit_bytes // 2, min(limit_bytes // 2, _KEPT_END_BYTES)


def _from_a_line_on(text: bytes) -> bytes:
    """What begins in the middle of a line may begin in the middle of a secret, which nobody would know by its end.

    Where no line begins in the first quarter, that quarter goes.
    """
    limit = len(text) // 4
    line = _LINE_BREAK.search(text, 0, limit)
    return text[line.end() if line else limit :]


def _to_a_line(text: bytes) -> int:
    """How much of a text to keep, as its end may be the beginning of a secret: to a line's end, or three quarters."""
    limit = len(text) * 3 // 4
    return max(text.rfind(b"\n", limit), text.rfind(b"\r", limit)) + 1 or limit


def _punch_hole(descriptor: int, start_bytes: int, length_bytes: int) -> bool:
    """fallocate(2) with FALLOC_FL_PUNCH_HOLE, which Python's os module lacks."""
    library = ctypes.CDLL(None, use_errno=True)
    if not hasattr(library, "fallocate64"):  # macOS
        return False
    offset, length = ctypes.c_int64(start_bytes), ctypes.c_int64(length_bytes)
    return bool(library.fallocate64(descriptor, _KEEP_SIZE_PUNCH_HOLE, offset, length) == 0)


def hide_in_log(path: Path, secrets: Collection[str] | None = None) -> bool:
    """Take secrets out of the log of a child that has ended: the orchestrator fetches it as an artifact.

    Args:
        path: of the log; absent is fine.
        secrets: values; None: those of this process's environment, which the child inherited.

    Returns:
        Whether there were any.
    """
    try:
        # Bytes that are no text come back as they were.
        before = path.read_bytes().decode(errors="surrogateescape")
        if not before:
            return False
        after = hide(before, secret_values(os.environ) if secrets is None else secrets)
        if after == before:
            return False
        path.write_bytes(after.encode(errors="surrogateescape"))
    except OSError:
        return False
    return True
