"""What a node does after a child: read its files, end what it left running, put back what it left set."""

import logging
from pathlib import Path
from typing import Any

from contract.errors import JouleBedError, TestbedBusyError
from contract.trial_result import TrialResult
from testbed.attempt_store import AttemptStore
from testbed.disk_reserve import is_full, storage_error
from testbed.node_parts import NodeParts
from testbed.supervisor import Supervisor

_log = logging.getLogger(__name__)


class Aftermath:
    """Leaves the machine to the next trial as the last one found it.

    Args:
        store: the node's.
        parts: the node's.
    """

    def __init__(self, store: AttemptStore, parts: NodeParts) -> None:
        self._store = store
        self._parts = parts

    def collect(self, folder: Path, *, failure: JouleBedError | None = None, **what: Any) -> TrialResult:
        """`testbed.collect.collect`, on a full disk too: it writes files, and there is room kept for them.

        Raises:
            StorageError: they cannot be written.
        """
        failure = failure and self._store.sharpen(failure)
        try:
            return self._parts.collect(folder, failure=failure, **what)
        except OSError as error:
            if not is_full(error):
                raise
            self._store.give_up_reserve()
        try:
            return self._parts.collect(folder, failure=failure, **what)
        except OSError as error:
            raise storage_error(error, self._store.data_dir) from error

    def tidy(self, *, has_child: bool) -> None:
        """End what a child left running, then put back what it left set, which needs its end.

        Args:
            has_child: whether a child of this attempt may still be there.
        """
        if has_child:
            self._parts.launcher.reclaim()
        try:
            self._parts.restore()
        except JouleBedError as error:
            _log.error("%s", error.message)  # no trial is taken until it is mended

    def require_free(self, straggler: Supervisor | None) -> None:
        """Refuse a trial on a machine that an earlier one still holds: it would be measured wrong, or lack memory.

        Args:
            straggler: of an ended attempt whose files may still be being read.

        Raises:
            TestbedBusyError: a person has to look.
        """
        obstacle = self._parts.launcher.obstacle()
        if straggler is not None and straggler.still_collects:
            obstacle = f"the files of attempt {straggler.attempt.attempt_id} are still being read"
        if obstacle:
            raise TestbedBusyError(
                f"An ended trial still holds this testbed: {obstacle}. If that does not end by itself, restart the "
                "testbed; a process that waits in the kernel needs a reset of its GPU (nvidia-smi --gpu-reset) or a "
                "reboot.",
                obstacle=obstacle,
            )
