"""Processes of low priority beside the page: how they are started, and how one is spoken with."""

import asyncio
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from contract.errors import JouleBedError

LINE_BYTES = 64 * 1024 * 1024
"""Longest answer of a process."""

_THREADS = ("POLARS_MAX_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class BackgroundError(JouleBedError):
    """A process beside the page ended without an answer."""

    code = "background"
    http_status = 503
    retryable = True


async def start(module: str, arguments: Sequence[str]) -> asyncio.subprocess.Process:
    """Start `python -m MODULE ARGUMENTS`, with one thread for each library that would take all cores.

    Args:
        module: of this distribution.
        arguments: of its command line.
    """
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        # A core that is taken from a trial on this machine would show in its figures.
        env={**os.environ, **dict.fromkeys(_THREADS, "1"), "MPLBACKEND": "Agg"},
        # Ctrl-C at the dashboard is not meant for it; it ends when the dashboard does.
        start_new_session=True,
        limit=LINE_BYTES,
    )


async def read_line(process: asyncio.subprocess.Process) -> dict[str, Any]:
    """The next answer of a process.

    Raises:
        BackgroundError: it has ended.
    """
    assert process.stdout is not None
    line = await process.stdout.readline()
    if not line:
        code = await process.wait()
        reason = "killed, perhaps for want of memory" if code < 0 else f"exit status {code}"
        raise BackgroundError(f"The computation beside the page ended without an answer ({reason}). Try again.")
    document: dict[str, Any] = json.loads(line)
    return document


def let_go(process: asyncio.subprocess.Process) -> None:
    """Let a process end by itself, soon. Idempotent."""
    if process.returncode is None:
        process.kill()


async def end(process: asyncio.subprocess.Process) -> None:
    """End a process, and see it gone. Idempotent."""
    let_go(process)
    # Its last words too: the pipes are closed when they have been read.
    await process.communicate()
