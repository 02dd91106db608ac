"""Reading the kernel's one-value files."""

import os
import re
from functools import partial
from pathlib import Path

from testbed.meters.sampler import Reader

_MAX_BYTES = 64

_GPU_NAME = re.compile(r"\.(gpu|g[a-z]\d+b)$")
"""Devfreq devices such as 17000000.gpu, 17000000.ga10b, 17000000.gv11b, 57000000.gpu."""


def read_number(path: Path | str) -> float:
    """A file's number, in the file's own unit.

    Opened anew each time, without Python's layers of buffers: half the cost of `Path.read_text`, and a file that
    vanished is an error, not its last value.

    Raises:
        OSError: it cannot be read, or holds no number.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        text = os.read(descriptor, _MAX_BYTES)
    finally:
        os.close(descriptor)
    try:
        return float(text)
    except ValueError as error:
        raise OSError(f"{path} holds no number: {text!r}") from error


def scaled(path: Path, factor: float) -> Reader:
    """A reader of a file whose number is multiplied.

    Args:
        path: the file.
        factor: from the file's unit to ours.
    """
    return partial(_read_scaled, str(path), factor)


def text_of(path: Path) -> str:
    """A file's text without its ends; empty where it cannot be read."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def gpu_devices(devfreq: Path) -> list[Path]:
    """A Jetson's GPUs among the devfreq devices, in the order that numbers them: gpu:0 first.

    Args:
        devfreq: the kernel's devfreq folder.
    """
    return [each for each in sorted(devfreq.glob("*")) if _GPU_NAME.search(each.name)]


def is_readable(read: Reader) -> bool:
    """Whether a sensor answers now."""
    try:
        read()
    except OSError:
        return False
    return True


def _read_scaled(path: str, factor: float) -> float:
    return read_number(path) * factor
