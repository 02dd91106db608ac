"""Who drives an attempt: a process, told apart from a later one with the same number."""

import os
import socket

import psutil


def this_owner() -> str:
    """`host:pid:start` of this process."""
    return f"{socket.gethostname()}:{os.getpid()}:{psutil.Process().create_time():.0f}"


def is_gone(owner: str) -> bool:
    """Whether an owner is a process of this host that no longer lives; False for other hosts: only a lease can tell."""
    host, _, rest = owner.rpartition(":")[0].rpartition(":")
    start = owner.rpartition(":")[2]
    if host != socket.gethostname() or not rest.isdigit() or not start.isdigit():
        return False
    try:
        process = psutil.Process(int(rest))
        # The kernel's start time moves by a second or so with the wall clock.
        return bool(process.status() == psutil.STATUS_ZOMBIE or abs(process.create_time() - int(start)) > 2)
    except psutil.NoSuchProcess:
        return True
    except psutil.AccessDenied:
        return False
