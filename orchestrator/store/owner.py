"""Who drives an attempt: a process, told apart from a later one with the same number."""

import os
import socket

import psutil

_SINCE_EPOCH_S = 10**9
"""A start of this size is told since the epoch, a smaller one since the boot."""


def this_owner() -> str:
    """`host:pid:start` of this process.

    On Linux the start is told in seconds since the boot, as the kernel has it: since the epoch it would move when the
    wall clock is set, and a living process would pass for one that is gone.
    """
    process = psutil.Process()
    start_s = process.create_time() - (psutil.boot_time() if psutil.LINUX else 0.0)
    return f"{socket.gethostname()}:{os.getpid()}:{start_s:.0f}"


def is_gone(owner: str) -> bool:
    """Whether an owner is a process of this host that no longer lives; False for other hosts: only a lease can tell."""
    host, _, rest = owner.rpartition(":")[0].rpartition(":")
    start = owner.rpartition(":")[2]
    if host != socket.gethostname() or not rest.isdigit() or not start.isdigit():
        return False
    try:
        process = psutil.Process(int(rest))
        zero_s = 0.0 if int(start) >= _SINCE_EPOCH_S else psutil.boot_time()
        # The kernel rounds the boot's time, so both differ by a second or so from look to look.
        is_other = abs(process.create_time() - zero_s - int(start)) > 2
        return bool(process.status() == psutil.STATUS_ZOMBIE or is_other)
    except psutil.NoSuchProcess:
        return True
    except psutil.AccessDenied:
        return False
