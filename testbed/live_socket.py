"""The way of a running trial's points to the testbed: datagrams on a socket in the attempt's folder.

The socket is there while somebody listens, and only then. Sending never waits: where the receiver is slow, gone, or
killed, the system says so at once. Nothing is written to a disk.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LIVE_SOCKET = ".live"
"""File name in the attempt's folder; no artifact."""

MAX_MESSAGE_BYTES = 64 * 1024
"""Longer datagrams are cut, and then refused."""

_LONGEST_PATH = 100
"""Of a socket's name the kernel takes 108 bytes."""


def open_receiver(folder: Path) -> socket.socket:
    """A socket that never waits, in place of one that a killed testbed left.

    Raises:
        OSError: the file system has no sockets, or cannot be written.
    """
    receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        receiver.setblocking(False)
        (folder / LIVE_SOCKET).unlink(missing_ok=True)
        with _address(folder) as address:
            receiver.bind(address)
        # The folder keeps others out already.
        (folder / LIVE_SOCKET).chmod(0o600)
    except OSError:
        receiver.close()
        raise
    return receiver


def open_sender(folder: Path) -> socket.socket | None:
    """A socket to whoever listens; None: nobody does. Never waits."""
    try:
        (folder / LIVE_SOCKET).stat()  # the usual case, and the cheapest answer
    except OSError:
        return None
    sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        sender.setblocking(False)
        with _address(folder) as address:
            sender.connect(address)
    except OSError:
        sender.close()
        return None
    return sender


@contextmanager
def _address(folder: Path) -> Iterator[str]:
    path = str(folder / LIVE_SOCKET)
    if len(os.fsencode(path)) <= _LONGEST_PATH:
        yield path
        return
    # The kernel's own name of an open folder is short, wherever that is.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield f"/proc/self/fd/{descriptor}/{LIVE_SOCKET}"
    finally:
        os.close(descriptor)
