"""Tells the testbed that results are safe, while the campaign goes on."""

import logging
from concurrent.futures import ThreadPoolExecutor

from contract.errors import JouleBedError, TestbedUnreachableError
from contract.log_line import note_attempt
from orchestrator.clients.base import TestbedClient

_log = logging.getLogger(__name__)


class Acknowledger:
    """Acknowledges in a thread of its own: the next trial need not wait for what the testbed does with the files.

    Args:
        client: the testbed.
    """

    def __init__(self, client: TestbedClient) -> None:
        self._client = client
        self._background = ThreadPoolExecutor(1, thread_name_prefix="acknowledge")
        self._waiting: list[str] = []

    def add(self, attempt_id: str) -> None:
        """Acknowledge an attempt soon; those that could not be before are tried again first."""
        self._waiting.append(attempt_id)
        self._background.submit(self._acknowledge)

    def close(self, *, try_again: bool) -> None:
        """Wait for what is under way.

        Args:
            try_again: once more for those that are left.
        """
        if try_again:
            self._background.submit(self._acknowledge)
        self._background.shutdown()

    def _acknowledge(self) -> None:
        while self._waiting:
            attempt_id = self._waiting[0]
            note_attempt(attempt_id, None)  # this thread's own
            try:
                self._client.acknowledge(attempt_id)
            except TestbedUnreachableError as error:
                # It costs the testbed disk, no more: tried again after the next run.
                _log.warning("Attempt %s could not be acknowledged yet: %s", attempt_id, error.message)
                return
            except JouleBedError as error:
                _log.warning("Attempt %s could not be acknowledged: %s", attempt_id, error.message)
            self._waiting.pop(0)
