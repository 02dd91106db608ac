"""Puts devices back that a dead process left set: `python -m testbed.restore FOLDER`.

What the watchdog and the testbed run, and what a person runs who mended a device. Prints one JSON line for each
device that could not be put back; exit status 1 if there is one that is still set.
"""

import argparse
import json
import logging
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from contract.errors import DeviceNotRestoredError, JouleBedError
from testbed.child_log import last_lines
from testbed.child_process import run_bounded
from testbed.clock import Clock, SystemClock
from testbed.restore_ledger import RestoreLedger, Unrestored

_log = logging.getLogger(__name__)

RESTORE_COMMAND = (sys.executable, "-m", "testbed.restore")

_FIRST_PAUSE_S = 0.5


def restore_patiently(ledger: RestoreLedger, n_tries: int, clock: Clock) -> list[Unrestored]:
    """Put back what dead processes left set; a device that has just lost its process may need a moment.

    Args:
        ledger: of the devices.
        n_tries: how often; between them 0.5 s, 1 s, 2 s, ...
        clock: for the pauses.

    Returns:
        What could not be put back.
    """
    for n_tried in range(n_tries):
        left = ledger.restore_orphans()
        if all(each.is_gone for each in left) or n_tried == n_tries - 1:
            return left
        clock.sleep(_FIRST_PAUSE_S * 2**n_tried)
    return []


class Restorer:
    """Puts back, for a testbed, what its dead children left set. Thread-safe.

    In a process of its own: a driver that hangs takes that one along, not the testbed, and the testbed loads no
    driver's library.

    Args:
        folder: the ledger's.
        command: of that process, without the folder.
        limit_s: it is ended after this time.
    """

    def __init__(self, folder: Path, command: Sequence[str] = RESTORE_COMMAND, limit_s: float = 30.0) -> None:
        self._ledger = RestoreLedger(folder)
        self._command = [*command, str(folder)]
        self._limit_s = limit_s

    def __call__(self) -> None:
        """Put everything back; costs next to nothing where there is nothing.

        Raises:
            DeviceNotRestoredError: a device is still set; the message says which, and how to put it back by hand.
        """
        if not self._ledger.has_orphans():
            return
        try:
            done = run_bounded(self._command, self._limit_s)
        except subprocess.TimeoutExpired as error:
            raise DeviceNotRestoredError(
                f"Putting devices back took longer than {self._limit_s:g} s: a driver may hang. Entries of the devices "
                f"are in {self._ledger.folder}; try `{' '.join(self._command)}`, then restart the machine."
            ) from error
        left = [Unrestored(**json.loads(line)) for line in done.stdout.splitlines() if line.startswith("{")]
        for each in left:
            _log.warning("%s", each.message())
        still_set = [each for each in left if not each.is_gone]
        if still_set:
            raise DeviceNotRestoredError(
                " ".join(each.message() for each in still_set),
                domains=[each.domain for each in still_set],
                mending=[each.mending for each in still_set],
            )
        if done.returncode != 0:
            raise DeviceNotRestoredError(
                f"`{' '.join(self._command)}` ended with exit status {done.returncode}: a device may still be set as "
                "in an earlier trial. Its last output is in detail.log_tail.",
                log_tail=last_lines(done.stderr, 20),
            )


def main(arguments: Sequence[str] | None = None, ledger: Callable[[Path], RestoreLedger] = RestoreLedger) -> int:
    """Entry of the process; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m testbed.restore", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="the ledger: `restore` in the testbed's data folder")
    parser.add_argument("--tries", type=int, default=1, help="with growing pauses between them")
    given = parser.parse_args(arguments)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        left = restore_patiently(ledger(given.folder), max(given.tries, 1), SystemClock())
    except JouleBedError as error:
        print(error.message, file=sys.stderr)
        return 1
    for each in left:
        print(json.dumps(asdict(each)))
    return int(any(not each.is_gone for each in left))


if __name__ == "__main__":
    sys.exit(main())
