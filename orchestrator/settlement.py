"""From a result to the run table: its files, the verdict, the attempt's end."""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from contract.attempt_state import AttemptState
from contract.errors import (
    ArtifactCorruptError,
    AttemptNotFoundError,
    DiskFullError,
    ErrorBody,
    InvalidRequestError,
    StorageError,
    TestbedRestartedError,
    error_from_body,
)
from contract.routes import MAX_BROUGHT_BYTES
from contract.trial_result import SuspectReason, TrialResult
from contract.trial_spec import TrialSpec
from orchestrator.acknowledger import Acknowledger
from orchestrator.artifacts import ArtifactFolder
from orchestrator.attempt_journal import ended_attempt
from orchestrator.campaign_view import AttemptEnd
from orchestrator.clients.base import TestbedClient
from orchestrator.config import OnSuspect
from orchestrator.cooldown import CooldownOutcome
from orchestrator.patience import Patience
from orchestrator.store.base import Claim, RunLedger
from orchestrator.suspicion import Verdict, judge, reason_text

_log = logging.getLogger(__name__)

_STORAGE_CODES = (StorageError.code, DiskFullError.code)


@dataclass(frozen=True)
class Measured:
    """A result that is here, and not in the run table yet.

    Attributes:
        claim: its attempt.
        result: as the testbed sent it.
        cooled: the pause before it; None where none was recorded.
    """

    claim: Claim
    result: TrialResult
    cooled: CooldownOutcome | None


def begins_measured(spec: TrialSpec) -> bool:
    """Whether a trial measures from its first milliseconds: a warm engine, and a baseline or no warm-up before it.

    Where both nodes are on one machine, what is settled meanwhile would be in its figures.
    """
    return spec.engine.lifetime == "block" and (spec.warmup_requests == 0 or spec.baseline_s > 0)


class Settlement:
    """Ends attempts; of one controller.

    Args:
        store: the run table.
        client: the testbed that has the files.
        testbed: its name in the run table.
        artifacts: takes the files.
        patience: with the testbed.
        on_suspect: what becomes of doubted results.
        ended: is told of each end, after the run table.

    Attributes:
        acknowledger: knows which results are safe here.
    """

    def __init__(
        self,
        store: RunLedger,
        client: TestbedClient,
        *,
        testbed: str,
        artifacts: ArtifactFolder,
        patience: Patience,
        on_suspect: OnSuspect,
        ended: Callable[[AttemptEnd], None],
    ) -> None:
        self._store = store
        self._client = client
        self._testbed = testbed
        self._artifacts = artifacts
        self._patience = patience
        self._on_suspect = on_suspect
        self._ended = ended
        self.acknowledger = Acknowledger(client)

    def may_wait(self, measured: Measured) -> bool:
        """Whether the next trial may begin before this one is settled.

        A sound result may, whose files came with it: neither does it change what is to do next, nor does the testbed
        have to serve files while it measures. Until it is settled, the testbed keeps it.
        """
        brought_bytes = sum(artifact.size_bytes for artifact in measured.result.artifacts)
        return brought_bytes <= MAX_BROUGHT_BYTES and self._verdict(measured).state is AttemptState.SUCCEEDED

    def settle(self, measured: Measured) -> None:
        """Fetch the files, and end the attempt as its result says. Idempotent.

        Raises:
            StorageError: this machine cannot store it, or the testbed cannot store anything more; what is not settled
                is taken up again by the next orchestrator.
            TakenOverError: another orchestrator has it.
        """
        claim, result = measured.claim, measured.result
        if (result.attempt_id, result.spec_sha256) != (claim.attempt_id, claim.spec.sha256()):
            foreign = InvalidRequestError(
                "The testbed answered with the result of another trial. Upgrade joulebed there."
            )
            self.end(claim, AttemptState.FAILED, measured.cooled, error=foreign.body())
            return
        try:
            self._patience.ask(lambda: self._artifacts.collect(self._client, result))
        except AttemptNotFoundError:
            self.lost(claim, measured.cooled)
            return
        except ArtifactCorruptError as error:
            if result.state.has_result:
                # Numbers without their evidence are not accepted; the testbed keeps its copy.
                self.end(claim, AttemptState.FAILED, measured.cooled, error=error.body())
                return
            _log.warning("Attempt %s: %s", claim.attempt_id, error.message)
        verdict = self._verdict(measured)
        self.end(claim, verdict.state, measured.cooled, result=result, error=verdict.error, reasons=verdict.reasons)
        self.acknowledger.add(claim.attempt_id)
        if result.error is not None and result.error.code in _STORAGE_CODES:
            # Every other trial would end like this one: a person has to make room.
            raise error_from_body(result.error)

    def lost(self, claim: Claim, cooled: CooldownOutcome | None) -> None:
        """End an attempt that its testbed knows no more; see `end`."""
        error = TestbedRestartedError(
            "The testbed no longer knows this attempt: its data folder is new, or it is another machine. "
            "The run is tried again."
        )
        self.end(claim, AttemptState.LOST, cooled, error=error.body())

    def end(
        self,
        claim: Claim,
        state: AttemptState,
        cooled: CooldownOutcome | None,
        *,
        result: TrialResult | None = None,
        error: ErrorBody | None = None,
        reasons: tuple[SuspectReason, ...] = (),
    ) -> None:
        """End an attempt in the run table, and tell everybody.

        Args:
            claim: the attempt.
            state: its last.
            cooled: the pause before it; None where none was recorded.
            result: from the testbed.
            error: why there is no result to accept.
            reasons: why the result is doubted.

        Raises:
            TakenOverError: it is another orchestrator's now.
        """
        message = error.message if error is not None else reason_text(reasons)
        run_state = self._store.finish(
            claim.attempt_id, state, result=result, error=error, message=message, reasons=reasons
        )
        end = AttemptEnd(claim, state, run_state, result, error, reasons)
        self._artifacts.journal.note(ended_attempt(end, self._testbed, cooled))
        self._ended(end)

    def _verdict(self, measured: Measured) -> Verdict:
        return judge(measured.result, measured.cooled, self._on_suspect)
