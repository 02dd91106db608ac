"""What can be told of the processes that drive experiments, and of those that hold a run table."""

import os
import socket
from enum import StrEnum
from pathlib import Path

import psutil

from orchestrator.store.owner import is_gone

_WRITE_LOCK_BYTE = 120
"""Byte of the -shm file that a writer of a SQLite database in WAL mode locks: https://sqlite.org/walformat.html"""
_PENDING_BYTE = 0x40000000
"""First of the bytes of the database file itself that are locked without WAL: https://sqlite.org/fileformat.html"""


class ProcessState(StrEnum):
    """How the process behind an owner is."""

    ALIVE = "alive"
    SUSPENDED = "suspended"
    GONE = "gone"
    ELSEWHERE = "elsewhere"
    """On another machine: only its signs of life tell."""


def process_state(owner: str) -> ProcessState:
    """How an owner is; see `orchestrator.store.owner`."""
    host, pid = host_of(owner), pid_of(owner)
    if host != socket.gethostname() or pid is None:
        return ProcessState.ELSEWHERE
    if is_gone(owner):
        return ProcessState.GONE
    try:
        is_suspended = psutil.Process(pid).status() in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)
    except psutil.NoSuchProcess:
        return ProcessState.GONE
    except psutil.AccessDenied:
        return ProcessState.ALIVE
    return ProcessState.SUSPENDED if is_suspended else ProcessState.ALIVE


def host_of(owner: str) -> str:
    """The host of `host:pid:start`."""
    return owner.split(":")[0]


def pid_of(owner: str) -> int | None:
    """The number of `host:pid:start`; None where it has another form."""
    parts = owner.split(":")
    return int(parts[1]) if len(parts) == 3 and parts[1].isdecimal() else None


def holders(database: Path, *, proc: Path = Path("/proc")) -> list[int]:
    """Processes of this machine that hold the write lock of a SQLite file, as the kernel lists them.

    Empty where nobody does, where there is no such list, or where the holder is in another container.

    Args:
        database: the file.
        proc: the kernel's process file system.
    """
    try:
        table = (proc / "locks").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    watched = {}
    shared = database.with_name(database.name + "-shm")
    # (first, last) of the bytes that a writer locks one of.
    for path, span in (
        (database, (_PENDING_BYTE, _PENDING_BYTE + 511)),
        (shared, (_WRITE_LOCK_BYTE, _WRITE_LOCK_BYTE)),
    ):
        try:
            watched[path.stat().st_ino] = span
        except OSError:
            continue
    found = set()
    for line in table:
        # `1: POSIX  ADVISORY  WRITE 1234 08:01:5678 120 120`; a waiting one has `->` after its number.
        parts = line.split()
        if len(parts) != 8 or parts[3] != "WRITE":
            continue
        pid, inode = int(parts[4]), int(parts[5].rpartition(":")[2])
        if inode not in watched or pid <= 0:
            continue
        first, last = watched[inode]
        if int(parts[6]) <= last and (parts[7] == "EOF" or int(parts[7]) >= first):
            found.add(pid)
    return sorted(found)


def told_process(pid: int) -> str:
    """`process 123 (sqlite3 run_table.sqlite)`."""
    try:
        name = " ".join(psutil.Process(pid).cmdline()[:4]) or psutil.Process(pid).name()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        name = ""
    return f"process {pid}{f' ({name[:80]})' if name else ''}{', this one' if pid == os.getpid() else ''}"
