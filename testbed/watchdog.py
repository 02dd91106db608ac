"""Starts the watchdog: a small process that outlives a trial and puts its devices back.

For the case that the trial and the testbed are both killed, and nobody starts the testbed again. It waits for the end
of the trial's process on a pidfd, so it sleeps until then, and leads a session of its own, so that ending the trial's
process group leaves it alone.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from contract.errors import ActuatorError
from testbed.reclaim import MARK, SPARED
from testbed.restore import RESTORE_COMMAND

_SCRIPT = Path(__file__).with_name("watchdog_process.py")
_LOG = "restore.log"


class Watchdog:
    """Waits for the end of this process, then puts back what it left set.

    Args:
        folder: of the ledger.
        command: what puts devices back, without the folder.

    Raises:
        ActuatorError: it cannot be started: then no device is touched.
    """

    def __init__(self, folder: Path, command: Sequence[str] = (*RESTORE_COMMAND, "--tries", "5")) -> None:
        # What a trial leaves behind is ended; this is not of that kind.
        env = {name: value for name, value in os.environ.items() if name != MARK} | {SPARED: "watchdog"}
        owner = _pidfd()
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with (folder / _LOG).open("ab") as log:
                self._process = subprocess.Popen(
                    # Where there is no pidfd, its input ends with this process.
                    [sys.executable, "-I", "-S", str(_SCRIPT), str(owner or 0), *command, str(folder)],
                    stdin=subprocess.DEVNULL if owner else subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                    env=env,
                    pass_fds=[owner] if owner else [],
                    start_new_session=True,
                )
        except OSError as error:
            raise ActuatorError(f"The watchdog cannot be started ({error}), so no device is touched.") from error
        finally:
            if owner:
                os.close(owner)

    @property
    def pid(self) -> int:
        """Of its process."""
        return self._process.pid

    def dismiss(self) -> None:
        """End it: everything is put back. Idempotent; returns when it is gone."""
        self._process.kill()
        self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()


def _pidfd() -> int | None:
    """A descriptor of this process that becomes readable at its end; None where the system has none (macOS)."""
    try:
        return os.pidfd_open(os.getpid())
    except (AttributeError, OSError):
        return None
