"""An attempt that this orchestrator drives: what the run table says of it, and its lease."""

from collections.abc import Callable

from contract.attempt_state import AttemptState, may_follow
from orchestrator.cooldown import CooldownOutcome
from orchestrator.store.base import Claim, RunLedger, TakenOverError


class HeldAttempt:
    """One attempt, from its claim to its end.

    Args:
        store: the run table.
        claim: as it was claimed just now.
        clock: monotonic seconds.
        renew_s: how often its lease is renewed; infinite: somebody else renews it.

    Attributes:
        claim: the attempt.
        cooled: the pause before it; None where none was recorded.
        state: as the run table has it.
    """

    def __init__(self, store: RunLedger, claim: Claim, *, clock: Callable[[], float], renew_s: float) -> None:
        self.claim = claim
        self.cooled = claim.cooldown
        self.state = claim.state
        self._store = store
        self._clock = clock
        self._renew_s = renew_s
        self._renewed_s = clock()

    def note_cooldown(self, cooled: CooldownOutcome) -> None:
        """Write down the pause before it.

        Before the testbed hears of the attempt: whoever takes it over must know how warm it began.

        Raises:
            TakenOverError: it is another orchestrator's now.
        """
        self._write(AttemptState.CLAIMED, cooled.message, cooled)
        self.cooled = cooled

    def record(self, state: AttemptState) -> None:
        """Write down where it is, if that is new; else see `renew`.

        Raises:
            TakenOverError: it is another orchestrator's now.
        """
        if state is self.state or not may_follow(self.state, state):
            self.renew()
        else:
            self._write(state)

    def renew(self) -> None:
        """Keep the lease, at most every few seconds: requests may be many.

        Raises:
            TakenOverError: it is another orchestrator's now.
        """
        if self._clock() - self._renewed_s >= self._renew_s:
            self._write(self.state)

    def _write(self, state: AttemptState, message: str = "", cooldown: CooldownOutcome | None = None) -> None:
        attempt_id = self.claim.attempt_id
        try:
            self._store.record_state(attempt_id, state, message, cooldown=cooldown)
        except ValueError as error:
            # Not by this process: somebody drove it on in the meantime.
            raise TakenOverError(
                f"Another orchestrator took attempt {attempt_id} over: this one was silent for too long ({error})."
            ) from error
        self.state = state
        self._renewed_s = self._clock()
