"""Tells the testbed which results are safe: with the next submission, since a request of its own costs a trial time."""

import logging
from collections.abc import Sequence

from contract.errors import JouleBedError, TestbedUnreachableError
from contract.routes import MAX_ACKNOWLEDGED
from orchestrator.clients.base import TestbedClient

_log = logging.getLogger(__name__)


class Acknowledger:
    """Attempts that are to be acknowledged. One that never is costs the testbed disk, no more.

    Args:
        client: the testbed.
    """

    def __init__(self, client: TestbedClient) -> None:
        self._client = client
        self._waiting: list[str] = []

    def add(self, attempt_id: str) -> None:
        """An attempt's result and files are safe here."""
        self._waiting.append(attempt_id)

    def next(self) -> list[str]:
        """The oldest of them, for a submission to carry."""
        return self._waiting[:MAX_ACKNOWLEDGED]

    def told(self, attempt_ids: Sequence[str]) -> None:
        """A submission carried them."""
        self._waiting = [each for each in self._waiting if each not in attempt_ids]

    def tell_all(self) -> None:
        """No submission follows: tell those that are left, one by one, and give up on what cannot be told."""
        while self._waiting:
            attempt_id = self._waiting.pop(0)
            try:
                self._client.acknowledge(attempt_id)
            except TestbedUnreachableError as error:
                _log.warning("Attempt %s could not be acknowledged: %s", attempt_id, error.message)
                return
            except JouleBedError as error:
                _log.warning("Attempt %s could not be acknowledged: %s", attempt_id, error.message)
