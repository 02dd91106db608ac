"""What a testbed still holds of attempts that were given up while it was away: superseded, and not to pile up there.

Their runs were given to others. So whatever the testbed has made of them meanwhile is kept as evidence at most, and
never accepted as a second result.
"""

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

from contract.errors import ArtifactCorruptError, AttemptNotFoundError
from contract.trial_result import AttemptStatus
from orchestrator.artifacts import ArtifactFolder
from orchestrator.clients.base import TestbedClient
from orchestrator.store.base import Claim, Leftover, RunStore

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
        leftovers: of earlier processes, see `RunReader.leftovers`.
    """

    def __init__(
        self,
        store: RunStore,
        client: TestbedClient,
        artifacts: ArtifactFolder,
        testbed: str,
        ask: Callable[[Callable[[], AttemptStatus]], AttemptStatus],
        leftovers: Sequence[Leftover] = (),
    ) -> None:
        self._store = store
        self._client = client
        self._artifacts = artifacts
        self._testbed = testbed
        self._ask = ask
        self._left = list(leftovers)
        self._taken_over: list[Leftover] = []

    def give_up(self, claim: Claim) -> None:
        """An attempt is given up here."""
        self._left.append(Leftover(claim.attempt_id, claim.run_id))

    def note_taken_over(self, claim: Claim) -> None:
        """An attempt is another orchestrator's: it drives it on, or gives it up."""
        self._taken_over.append(Leftover(claim.attempt_id, claim.run_id))

    def are_there(self) -> bool:
        """Whether there is something to settle; cheap."""
        if self._taken_over:
            given_up = self._store.leftovers().get(self._testbed, [])
            self._left += [left for left in given_up if left in self._taken_over]
            self._taken_over = [left for left in self._taken_over if left not in given_up]
        return bool(self._left)

    def settle_all(self) -> None:
        """Settle them one by one; waits until the testbed answers."""
        while self._left:
            self._settle(self._left[0])
            self._left.pop(0)

    def _settle(self, left: Leftover) -> None:
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
