"""Setting the kernel's one-value files: whether that is possible at all, and what it says when it is not."""

import errno
import os
import stat
from pathlib import Path

from contract.errors import ActuatorError, ActuatorUnavailableError
from testbed.meters.sysfs import read_number


def obstacle(path: Path) -> str | None:
    """Why a file cannot be set, with the command that mends it; None where it can. Nothing is written.

    Args:
        path: of the file.
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        return f"{path} cannot be looked at ({error.strerror})."
    if not mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH):
        return f"{path} is read-only for everybody: this kernel does not let it be set."
    if not os.access(path, os.W_OK):
        return f"{path} may not be written by this user. Start the testbed as root, or after each boot: {grant(path)}"
    return None


def grant(path: Path) -> str:
    """The command that lets the user who types it set a file."""
    return f"sudo chown $USER {path}"


def by_hand(path: Path, value: int) -> str:
    """The command that sets a file."""
    return f"echo {value} | sudo tee {path}"


def write_value(path: Path, value: int) -> None:
    """Set a file.

    Raises:
        ActuatorUnavailableError: this user may not, or the file system is read-only; nothing was changed.
        ActuatorError: the kernel refused the value, or the file is gone.
    """
    try:
        # One write of the whole value: what the kernel's parser expects.
        descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
        try:
            os.write(descriptor, b"%d\n" % value)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise ActuatorUnavailableError(
                f"{path} may not be written ({error.strerror}). Start the testbed as root, or: {grant(path)}"
            ) from error
        raise ActuatorError(
            f"{path} did not take {value} ({error.strerror}). By hand: {by_hand(path, value)}"
        ) from error


def read_value(path: Path) -> int:
    """A file's whole number.

    Raises:
        ActuatorError: it cannot be read, or holds none.
    """
    try:
        return round(read_number(path))
    except OSError as error:
        raise ActuatorError(f"{path} cannot be read ({error}).") from error
