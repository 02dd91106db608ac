"""What a testbed still holds of attempts that were given up while it was away: superseded, and not to pile up there.

Their runs were given to others. So whatever the testbed has made of them meanwhile is kept as evidence at most, and
never accepted as a second result.
"""

import logging
from collections.abc import Callable
from typing import TypeVar

from contract.errors import ArtifactCorruptError, AttemptNotFoundError
from contract.trial_result import AttemptStatus
from orchestrator.artifacts import ArtifactFolder
from orchestrator.clients.base import TestbedClient
from orchestrator.store.base import Leftover, RunLedger

_log = logging.getLogger("orchestrator.campaign")

_Answer = TypeVar("_Answer")
_POLL_S = 10.0


class LeftoverSettler:
    """Settles the leftovers of one testbed.

    Args:
        store: is told of each.
        client: the testbed.
        artifacts: takes the files.
        testbed: its name.
        ask: repeats a question while the testbed is away.
    """

    def __init__(
        self,
        store: RunLedger,
        client: TestbedClient,
        artifacts: ArtifactFolder,
        testbed: str,
        ask: Callable[[Callable[[], AttemptStatus]], AttemptStatus],
    ) -> None:
        self._store = store
        self._client = client
        self._artifacts = artifacts
        self._testbed = testbed
        self._ask = ask

    def settle(self, left: Leftover) -> None:
        """Cancel what still runs of it, keep its files, and acknowledge it, so that the testbed may forget it.

        Idempotent: it can be repeated after a kill at any point. Waits until the testbed answers.
        """
        attempt_id = left.attempt_id
        try:
            status = self._ask(lambda: self._client.cancel(attempt_id))
            while not status.state.is_final:
                status = self._ask(self._later(status))
            kept = self._keep(status)
            self._ask(lambda: self._client.acknowledge(attempt_id))
            told = f"{self._testbed} had it as {status.state}, which is superseded and not accepted: {kept}"
        except AttemptNotFoundError:
            told = f"{self._testbed} holds nothing of it"
        _log.info("attempt %s: %s", attempt_id, told)
        self._store.remember(left.settled_key, self._testbed, told, attempt_id=attempt_id, run_id=left.run_id)

    def _later(self, status: AttemptStatus) -> Callable[[], AttemptStatus]:
        return lambda: self._client.status(
            status.attempt_id, after_version=status.version, wait_s=_POLL_S, with_result=True
        )

    def _keep(self, status: AttemptStatus) -> str:
        def collect() -> AttemptStatus:
            self._artifacts.collect(self._client, status.result or self._client.result(status.attempt_id))
            return status

        try:
            self._ask(collect)
        except ArtifactCorruptError as error:
            return f"its files are not kept ({error.message})"
        return "its files are kept as evidence"
