"""Exports a pool's run table, a large one in a process of its own.

100,000 results are a minute of computing. In a thread it would hold up all others, which share one interpreter; of a
process of low priority no testbed feels anything.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from contract.attempt_state import RunState
from contract.errors import JouleBedError
from orchestrator.export import export_run_table
from orchestrator.store.base import RunReader

LARGE = 2000
"""Runs with attempts from which on a process is worth its start."""

_NICE = 10
_LONGEST_S = 3600.0


def pool_exporter(
    reader: RunReader, folder: Path, *, command: Sequence[str] = (sys.executable, "-m", "orchestrator", "export")
) -> Callable[[], None]:
    """What writes `run_table.csv`.

    Args:
        reader: the run table.
        folder: the experiment's, where other processes find the run table too.
        command: what is started, before the folder.
    """

    def export() -> None:
        counts = reader.counts()
        if sum(counts.values()) - counts[RunState.TODO] < LARGE:
            export_run_table(reader, folder, "csv")
            return
        try:
            # Ctrl-C in the terminal is for the orchestrator.
            done = subprocess.run(
                [*command, str(folder)],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_LONGEST_S,
                check=False,
                start_new_session=True,
                preexec_fn=_humble,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise JouleBedError(
                f"The run table could not be exported ({error}): orchestrator export {folder}"
            ) from error
        if done.returncode != 0:
            told = " ".join(done.stderr.split())[-500:]
            raise JouleBedError(f"The run table could not be exported: {told} Again: orchestrator export {folder}")

    return export


def _humble() -> None:
    os.nice(_NICE)
